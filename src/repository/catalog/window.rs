//! From where to where a backup can be recovered.

use jiff::Timestamp;
use serde::Serialize;

use super::recovery::follow;
use super::{Backup, Catalog, RecoveryPath, plan_recovery};
use crate::model::{Lsn, Timeline, TimelineHistory};

/// From where to where a backup can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub timeline: Timeline,
    pub from_lsn: Lsn,
    /// When the backup finished: nothing before that can be reached.
    pub from: Option<Timestamp>,
    /// End of the last segment before any gap.
    pub to_lsn: Lsn,
    /// When what leads there came into the bucket, the last of it; what it holds was committed before.
    pub to: Timestamp,
    /// Retention has deleted what followed the backup.
    pub own_end_only: bool,
    /// A gap follows, and WAL after it that this backup cannot reach.
    pub gap: Option<String>,
}

impl Catalog {
    /// The window of a backup that can be restored, along the newest timeline that descends from it; `None` for one that cannot.
    pub fn window(&self, backup: &Backup) -> Option<Window> {
        let sentinel = backup.sentinel.as_ref()?;
        let path = plan_recovery(
            &self.wal,
            backup.timeline,
            sentinel.start_lsn,
            sentinel.finish_lsn,
        );
        self.window_of(backup, &path.ok()?)
    }

    /// The window along each timeline that `backup` can follow: its own first, then those that left it later.
    ///
    /// All but the last are reached by naming `recovery_target_timeline`. A history that cannot be read is passed over.
    pub fn windows(&self, backup: &Backup) -> Vec<Window> {
        let Some(sentinel) = &backup.sentinel else {
            return Vec::new();
        };
        let own = (backup.timeline, TimelineHistory::default());
        let histories = self.wal.histories.iter();
        let descendants = histories.filter_map(|(timeline, history)| {
            let history = history.as_ref().ok()?;
            let left = history.switched_from(backup.timeline)?;
            (left >= sentinel.finish_lsn).then(|| (*timeline, history.clone()))
        });
        let windows = std::iter::once(own).chain(descendants);
        let windows = windows.filter_map(|(target, history)| {
            let start = sentinel.start_lsn;
            let path = follow(&self.wal, backup.timeline, start, target, &history);
            // Beside its own end there is one way only.
            let other = target != backup.timeline;
            self.window_of(backup, &path)
                .filter(|window| !(other && window.own_end_only))
        });
        windows.collect()
    }

    fn window_of(&self, backup: &Backup, path: &RecoveryPath) -> Option<Window> {
        let last = path.reachable?;
        Some(Window {
            timeline: path.timeline,
            from_lsn: backup.sentinel.as_ref()?.finish_lsn,
            from: backup.finished_at,
            to_lsn: last.end(self.wal.size),
            to: self.wal.get(last)?.last_modified,
            own_end_only: path.own_end_only,
            gap: path.missing.first().map(|gap| gap.named(self.wal.size)),
        })
    }
}
