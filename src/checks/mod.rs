//! What is watched: definitions from TOML, sampling, and judging as pure functions.
//!
//! A check ends in findings, each ok, warning, critical or unknown; raising alerts is not its business.
//! `for` is only stored here: the runner measures how long a finding has lasted.

mod age;
mod anomaly;
mod archiver;
mod certificate;
mod clock;
mod configuration;
mod definition;
mod disk;
mod error;
mod haproxy;
mod increase;
mod keys;
mod limits;
mod live;
mod load;
mod measured;
mod measured_here;
mod nodes_alike;
mod parse;
mod parse_measured;
mod pgbouncer_up;
mod program;
#[cfg(test)]
mod reference;
mod replication_lag;
mod round;
mod runbook;
mod sample;
mod server;
mod shipped;
mod show;
mod slow_queries;
mod sql;
mod trace;
mod values;
mod version_watch;
mod wal_volume;

pub(crate) use definition::{Definition, Kind, LagLimits, Role};
pub(crate) use error::{DefinitionError, SampleError};
pub(crate) use limits::{Limits, Worse};
pub(crate) use live::LiveDefinitions;
#[cfg(test)]
pub(crate) use load::BUILT_IN;
pub(crate) use load::{DIRECTORY, Definitions, load, read_file};
pub(crate) use pgbouncer_up::{PGBOUNCER_DOWN, PgBouncerWatch, judge_pgbouncer_up};
pub(crate) use program::Oldest;
pub(crate) use replication_lag::{Standby, judge_replication_lag};
pub(crate) use round::{Nodes, Round};
pub(crate) use runbook::{Runbook, runbook, runbooks};
pub(crate) use sample::{CheckResult, Sampler};
pub(crate) use show::ShowCheck;
pub(crate) use sql::SqlCheck;
pub(crate) use trace::Asked;
pub(crate) use values::Measure;
