//! What a restore has shown by now; it outlives a restore that fails.

use jiff::Timestamp;

use super::verifications::Verifications;
use crate::model::{Lsn, Timeline};

#[derive(Debug, Clone, Default)]
pub(crate) struct RestoreRecord {
    pub backup: Option<String>,
    pub system_identifier: Option<u64>,
    /// The timeline that was recovered, before the promotion that ends the recovery.
    pub timeline: Option<Timeline>,
    /// End of the last record that was replayed.
    pub recovered_lsn: Option<Lsn>,
    /// Commit time of the last transaction that was replayed; `None` where the WAL held none.
    pub recovered_to: Option<Timestamp>,
    pub verifications: Verifications,
}
