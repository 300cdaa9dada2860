//! Runs a job and publishes what came of it: for the daemon when it is due, and for a verb at once, with or without a daemon.
//!
//! The way from a job to an alert:
//!
//! 1. [`next_run`] says when the job is due: a pure function of its [`Schedule`] and of its [`LastRuns`], which
//!    [`job_history`] reads from this node's store and from the last success in the bucket. [`belongs_here`] says whether
//!    the role of this node is the job's.
//! 2. `Job::run` does the work once, under its own lock (a file on this node, an object in the bucket), and returns a `JobRun`:
//!    findings with how long each must last, and the detail to be found again. An error is a finding of verdict `unknown`.
//! 3. [`publish`] writes the log line and the row of the history. After a success [`success_exchange`] tells the bucket and Redis.
//! 4. `Alerts::record` compares the findings with the alerts that stand (`alerts::transition`, pure), and puts each event into
//!    the outbox; [`alerts::deliver`] empties it into Redis, now or once Redis answers again.

pub(crate) mod alerts;
pub(crate) mod publish;
pub(crate) mod success_exchange;

mod activity;
mod heartbeat;
mod history;
mod last_successes;
mod node;
mod outages;
mod peers;
mod role;
mod run_once;
mod schedule;

use crate::postgres::PostgresError;
use crate::redis::RedisError;
use crate::store::StoreError;
pub(crate) use activity::Activity;
pub(crate) use heartbeat::has_heartbeat;
pub(crate) use history::{JobHistory, job_history};
pub(crate) use node::{JUDGED_BY_LOOK, Node};
pub(crate) use outages::{Attempt, LeftOut, Outages};
pub(crate) use peers::{ask_peers, is_this_node};
pub(crate) use role::belongs_here;
pub(crate) use run_once::{NotRun, run_job, run_once};
pub(crate) use schedule::{LastRuns, Schedule, next_run, schedule_of};

/// Why no job can be run or published here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunnerError {
    #[error("schedule.{job}: {reason}")]
    Schedule { job: &'static str, reason: String },
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl RunnerError {
    /// What the operator can do.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => Some(error.hint()),
            Self::Redis(error) => Some(error.hint()),
            Self::Schedule { .. } | Self::Postgres(_) => None,
        }
    }
}
