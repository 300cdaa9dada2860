//! What the buckets say about a restore, and what the primary says about the commits that they do not hold.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ArchiveExtent;
use crate::model::{Lsn, Timeline};

/// One look at the buckets.
///
/// Each part has an `…_error` beside it: why that part could not be read. The part then holds what was last read, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// When the buckets were last asked, whatever they answered.
    pub at: Timestamp,
    /// The newest base backup that finished; `None` where there is none.
    pub base_backup: Option<Recoverable>,
    pub base_backup_error: Option<String>,
    /// When the look that last read `base_backup` began; `None` before the first answer.
    pub base_backup_read_at: Option<Timestamp>,
    /// What else is wrong there; `None` where the bucket has not been read yet.
    #[serde(rename = "doubts")]
    pub faults: Option<RepositoryFaults>,
    /// How far the archive reaches, read with `base_backup`; for the metrics and the page of this node only.
    #[serde(skip)]
    pub extent: Option<ArchiveExtent>,
    /// How long a restore of `base_backup` to the end of the archive takes; `None` without a backup.
    pub forecast: Option<RestoreForecast>,
    /// The newest complete set of dumps of every database whose newest dump test, if there is one, passed.
    pub dump: Option<NewestDump>,
    pub dump_error: Option<String>,
    /// The newest restore test that passed, on any node.
    pub proof: Option<ProvenRestore>,
    pub proof_error: Option<String>,
}

impl Evidence {
    /// What is known where no bucket answers, for `reason`.
    pub(crate) fn unread(at: Timestamp, reason: &str) -> Self {
        let reason = Some(reason.to_owned());
        Self {
            at,
            base_backup: None,
            base_backup_error: reason.clone(),
            base_backup_read_at: None,
            faults: None,
            extent: None,
            forecast: None,
            dump: None,
            dump_error: reason.clone(),
            proof: None,
            proof_error: reason,
        }
    }

    /// Keeps what `before` knew of each part that could not be read this time.
    #[must_use]
    pub(crate) fn holding(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self;
        };
        if self.base_backup_error.is_some() {
            self.base_backup.clone_from(&before.base_backup);
            self.base_backup_read_at = before.base_backup_read_at;
            self.forecast.clone_from(&before.forecast);
            // A doubt that was known is judged on: without it, its alert would end with the next finding of its check.
            self.faults.clone_from(&before.faults);
            self.extent.clone_from(&before.extent);
        } else if self.proof_error.is_some()
            && let (Some(extent), Some(before)) = (&mut self.extent, &before.extent)
        {
            extent.tests.clone_from(&before.tests);
        }
        if self.dump_error.is_some() {
            self.dump.clone_from(&before.dump);
        }
        if self.proof_error.is_some() {
            self.proof.clone_from(&before.proof);
        }
        self
    }
}

/// A base backup, and how far the archive leads from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recoverable {
    pub backup: String,
    pub finished_at: Option<Timestamp>,
    /// Why it cannot be restored; `None` when it can.
    pub unusable: Option<String>,
    /// Where the archive ends before any gap.
    pub to: Option<ArchiveEnd>,
    /// WAL that is missing before WAL that is there.
    pub gap: Option<String>,
    /// Who acknowledged the gap, until when and why; `None` for a gap that is not acknowledged.
    pub acknowledged: Option<String>,
}

/// The end of the last segment that a restore can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchiveEnd {
    pub timeline: Timeline,
    pub lsn: Lsn,
    /// When that segment was stored, by the S3 server's clock.
    pub archived_at: Timestamp,
}

/// What is wrong in the repository beside the newest backup's own way; each a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryFaults {
    /// Unacknowledged missing WAL that only older backups need.
    pub gap: Option<String>,
    /// Backups of another cluster.
    pub foreign: Option<String>,
    /// A backup that cannot be restored, or that was begun long ago and never finished.
    pub incomplete: Option<String>,
}

/// How long a restore from now would take, by restore tests of this repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RestoreForecast {
    /// The best estimate; `None` where no test can be scaled.
    pub secs: Option<f64>,
    /// Both ends of the range that the tests allow.
    pub low_secs: Option<f64>,
    pub high_secs: Option<f64>,
    /// The tests it rests on, or why there is none.
    pub based_on: String,
    /// The tests were held back by a network or disk limit, so no objective applies.
    pub throttled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewestDump {
    pub set: String,
    pub at: Timestamp,
    /// A newer set of some of the databases, which does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_partial: Option<String>,
}

/// A restore test that passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProvenRestore {
    pub node: String,
    pub at: Timestamp,
    pub backup: Option<String>,
    /// Where its recovery ended.
    pub timeline: Option<Timeline>,
    pub lsn: Option<Lsn>,
    pub rto_secs: Option<f64>,
    pub rpo_secs: Option<f64>,
    /// The newest base backup has a restore test that passed; `None` where that is not known.
    pub newest_backup_proven: Option<bool>,
}
