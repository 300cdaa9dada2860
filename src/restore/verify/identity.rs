//! Which cluster was restored, and on which timeline its recovery ended.

use crate::model::{Lsn, Timeline, Verdict};
use crate::restore::recover::RecoveryEnd;

/// Whether the system identifier is that of the backup, and that of this node's server.
pub(crate) fn judge_identity(recovered: u64, backup: Option<u64>, live: Option<u64>) -> Verdict {
    for (expected, whose) in [(backup, "the backup"), (live, "this node's server")] {
        if let Some(expected) = expected.filter(|expected| *expected != recovered) {
            return Verdict::Critical(format!(
                "the system identifier is {recovered}, that of {whose} {expected}"
            ));
        }
    }
    Verdict::Ok
}

/// Whether the recovery reached the timeline that the archive ends on.
///
/// `switched_at` is where that timeline begins, if it is not the backup's own. Its number alone proves nothing: PostgreSQL
/// takes that from `recovery_target_timeline`.
pub(crate) fn judge_timeline(
    recovered: &RecoveryEnd,
    planned: Timeline,
    switched_at: Option<Lsn>,
) -> Verdict {
    if recovered.timeline != planned {
        let ended_on = recovered.timeline;
        return Verdict::Critical(format!(
            "recovery ended on timeline {ended_on}, the archive continues on timeline {planned}"
        ));
    }
    match switched_at.filter(|switch| recovered.lsn < *switch) {
        Some(switch) => Verdict::Critical(format!(
            "recovery ended at {}, before timeline {planned} begins at {switch}",
            recovered.lsn
        )),
        None => Verdict::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clusters_backup_is_found() {
        assert_eq!(judge_identity(7, Some(7), None), Verdict::Ok);
        assert_eq!(judge_identity(7, None, Some(7)), Verdict::Ok);
        assert_ne!(judge_identity(7, Some(8), None), Verdict::Ok);
        assert_ne!(judge_identity(7, Some(7), Some(8)), Verdict::Ok);
    }
}
