//! What the daemon's loops hand over for the metrics and the page, beside the node's view and its knowledge of the others.

use jiff::{SignedDuration, Timestamp};

use super::Plots;
use crate::model::Finding;

/// This node's own work, as its daemon last saw it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observed {
    /// When it was looked at; `None` before the first look.
    pub at: Option<Timestamp>,
    /// When this node last judged: its checks, and what it depends on. `None` before it did both.
    pub checked_at: Option<Timestamp>,
    /// The last finding of each check on each object, and when it was judged.
    pub findings: Vec<(Finding, Timestamp)>,
    pub jobs: Vec<JobState>,
    /// `None` while `pg_wal` cannot be read, or does not answer.
    pub waiting_wal: Option<WaitingWal>,
    pub pushes: Pushes,
    pub requests: Vec<Requests>,
    /// What this node depends on, and whether it answered last; what was not tried yet is left out.
    pub services: Vec<(&'static str, bool)>,
    /// Events that wait for Redis; `None` while the store cannot be read.
    pub outbox: Option<u64>,
    pub plots: Plots,
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobState {
    pub name: &'static str,
    pub schedule: String,
    /// `primary`, `replica` or `both`.
    pub runs_on: &'static str,
    /// Whether this node is the one that runs it now.
    pub is_here: bool,
    pub running_since: Option<Timestamp>,
    /// Of its last run on this node.
    pub last_run: Option<LastRun>,
    /// Of its last success on any node.
    pub last_success: Option<LastSuccess>,
    /// At or before now: due. `None` for checks, whose runs are not kept, and on a node that does not run the job: of runs that
    /// failed elsewhere it knows nothing.
    pub next_run: Option<Timestamp>,
    /// Runs since the daemon began, by the word of their verdict: all four.
    pub ended: [(&'static str, u64); 4],
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LastRun {
    pub finished_at: Timestamp,
    pub verdict: &'static str,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LastSuccess {
    pub finished_at: Timestamp,
    pub elapsed_secs: f64,
    pub node: String,
    /// What a dump, or a base backup, stored.
    pub bytes: Option<u64>,
}

/// WAL on this node's disk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WaitingWal {
    /// Files with a `.ready` mark.
    pub files: u64,
    pub bytes: u64,
    pub oldest: Option<Timestamp>,
    /// How long the volume lasts if archiving stops; `None` while the rate of WAL is not known.
    pub full_in: Option<SignedDuration>,
    pub free_bytes: u64,
}

/// Segments that the daemon pushed for `archive_command` since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pushes {
    /// The upper end of each class in seconds, the last without one, and how many pushes ended in it.
    pub classes: Vec<(f64, u64)>,
    pub total_secs: f64,
    /// Requests that the daemon left to its client.
    pub refused: u64,
}

/// Requests to S3 since the daemon began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub operation: &'static str,
    pub job: &'static str,
    pub requests: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}
