//! From where to where a backup can be recovered.

use jiff::Timestamp;
use serde::Serialize;

use super::{Backup, Catalog, plan_recovery};
use crate::model::{Lsn, Timeline};

/// From where to where a backup can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub timeline: Timeline,
    pub from_lsn: Lsn,
    /// When the backup finished: nothing before that can be reached.
    pub from: Option<Timestamp>,
    /// End of the last segment before any gap.
    pub to_lsn: Lsn,
    /// When that segment came into the bucket; what it holds was committed before.
    pub to: Timestamp,
    /// A gap follows, and WAL after it that this backup cannot reach.
    pub gap: Option<String>,
}

impl Catalog {
    /// The window of a backup that can be restored; `None` for one that cannot.
    pub fn window(&self, backup: &Backup) -> Option<Window> {
        let sentinel = backup.sentinel.as_ref()?;
        let path = plan_recovery(
            &self.wal,
            backup.timeline,
            sentinel.start_lsn,
            sentinel.finish_lsn,
        )
        .ok()?;
        let last = path.reachable?;
        Some(Window {
            timeline: path.timeline,
            from_lsn: sentinel.finish_lsn,
            from: backup.finished_at,
            to_lsn: last.end(self.wal.size),
            to: self.wal.get(last)?.last_modified,
            gap: path.missing.first().map(|gap| gap.named(self.wal.size)),
        })
    }
}
