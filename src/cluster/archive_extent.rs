//! How far the archive reaches and what lies in it, for the metrics and the page.

use jiff::Timestamp;

use crate::model::Lsn;

/// What a look at the buckets counted; not part of `/api/status`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ArchiveExtent {
    /// When the oldest backup that can be restored finished: nothing before that can be reached.
    pub from: Option<Timestamp>,
    /// How many base backups there are of each state, by its word; all states are listed.
    pub backups: Vec<(&'static str, u64)>,
    /// As stored.
    pub backup_bytes: u64,
    pub wal_segments: u64,
    pub wal_bytes: u64,
    /// In order of position; the newest [`ArchiveExtent::LIMIT`].
    pub stretches: Vec<Stretch>,
    pub base_backups: Vec<BackupMark>,
    /// Newest first.
    pub tests: Vec<RestoreTested>,
}

impl ArchiveExtent {
    /// Of each list: what is shown stays small, however long the archive is.
    pub(crate) const LIMIT: usize = 60;
}

/// WAL from one position to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub kind: StretchKind,
    pub from: Lsn,
    pub to: Lsn,
    /// The segments, as `0000…03 to 0000…05`; for a gap that is acknowledged also who, until when and why.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StretchKind {
    Stored,
    /// Missing, and a recovery would ask for it.
    Gap,
    AcknowledgedGap,
}

/// A base backup that finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupMark {
    pub name: String,
    pub at: Option<Timestamp>,
    /// Where it started.
    pub lsn: Lsn,
    /// As `xdb backup list` names it.
    pub state: &'static str,
}

/// A restore test that judged a backup.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RestoreTested {
    pub at: Timestamp,
    pub node: String,
    pub backup: String,
    pub passed: bool,
    /// It passed, looked at pages, and recovered to the end of the archive.
    pub proves: bool,
    /// Where its recovery ended.
    pub lsn: Option<Lsn>,
    pub rto_secs: Option<f64>,
    pub rpo_secs: Option<f64>,
    /// Each phase with its seconds.
    pub phases: Vec<(String, f64)>,
    /// How many verifications ended in each verdict, by its word.
    pub verifications: Vec<(String, u64)>,
}
