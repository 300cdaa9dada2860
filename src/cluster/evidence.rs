//! What the buckets say could be got back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Lsn, Timeline};

/// One look at the buckets; `Err` says why one could not be looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub at: Timestamp,
    /// The newest base backup that finished.
    pub base_backup: Result<Option<Recoverable>, String>,
    /// What else is wrong there; `None` where the bucket could not be looked at.
    #[serde(default)]
    pub doubts: Option<Doubts>,
    /// The newest complete set of dumps.
    pub dump: Result<Option<Dumped>, String>,
    /// The last restore test that passed, on whatever node.
    pub proof: Result<Option<Proof>, String>,
}

/// A base backup, and how far the archive leads from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recoverable {
    pub backup: String,
    pub finished_at: Option<Timestamp>,
    /// Why it cannot be restored; `None` when it can.
    pub unusable: Option<String>,
    /// The end of the last segment before any gap, and when that segment came into the bucket.
    pub to: Option<(Timeline, Lsn, Timestamp)>,
    /// WAL that is missing before WAL that is there.
    pub gap: Option<String>,
    /// Who knows of the gap, until when and why; `None` where nobody does.
    #[serde(default)]
    pub acknowledged: Option<String>,
}

/// What is wrong in the repository beside the newest backup's own way; each a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubts {
    /// WAL that nobody knows to be lost, and that only older backups need.
    pub gap: Option<String>,
    /// Backups of another cluster.
    pub foreign: Option<String>,
    /// A backup that cannot be restored, or that was begun long ago and never finished.
    pub incomplete: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    pub set: String,
    pub at: Timestamp,
}

/// A restore test that passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub node: String,
    pub at: Timestamp,
    pub backup: Option<String>,
    pub rto_secs: Option<f64>,
    pub rpo_secs: Option<f64>,
}
