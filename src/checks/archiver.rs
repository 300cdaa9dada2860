//! Judges whether WAL gets away. Pure.

use jiff::Timestamp;

use super::Limits;
use crate::model::Verdict;
use crate::postgres::Archiver;

/// What the server says of its archiving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archiving {
    /// `archive_mode` lets this server archive in its role.
    pub enabled: bool,
    pub archiver: Archiver,
    /// `.ready` files: segments, histories and backup labels that wait.
    pub pending: u32,
}

/// Judges by the newest attempt and by what waits.
///
/// The age of the last success says nothing on a quiet database, so it only explains.
pub(super) fn judge(archiving: &Archiving, limits: &Limits, now: Timestamp) -> Verdict {
    let Archiving {
        enabled,
        archiver,
        pending,
    } = archiving;
    if !enabled {
        return Verdict::Critical("archive_mode is off: no WAL leaves this node".to_owned());
    }
    let last = archiver.last_archived_at.map_or_else(
        || "nothing was archived since the statistics began".to_owned(),
        |at| {
            format!(
                "last success {} s ago",
                now.duration_since(at).as_secs().max(0)
            )
        },
    );
    if archiver.failing() {
        let file = archiver.last_failed.as_deref().unwrap_or("a file");
        return Verdict::Critical(format!(
            "archive_command fails on {file}; {pending} files wait; {last}"
        ));
    }
    limits.judge(f64::from(*pending), |limit| {
        format!("{pending} files wait to be archived (limit {limit}); {last}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_attempt_and_what_waits_decide() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(1_000);
        let limits = Limits {
            warning: Some(5.0),
            critical: Some(50.0),
        };
        let archiving = |done, failed: Option<i64>, pending| Archiving {
            enabled: true,
            archiver: Archiver {
                last_archived_at: Option::map(done, at),
                last_failed: failed.map(|_| "000000010000000000000002".to_owned()),
                last_failed_at: failed.map(at),
                ..Archiver::default()
            },
            pending,
        };
        for (what, archiving, word) in [
            ("quiet for long", archiving(Some(1), None, 0), "ok"),
            ("nothing yet", archiving(None, None, 0), "ok"),
            ("failed long ago", archiving(Some(900), Some(800), 0), "ok"),
            ("failing", archiving(Some(900), Some(990), 1), "critical"),
            ("never succeeded", archiving(None, Some(990), 1), "critical"),
            ("behind", archiving(Some(999), None, 5), "warning"),
            ("far behind", archiving(Some(999), None, 50), "critical"),
        ] {
            let verdict = judge(&archiving, &limits, now);
            assert_eq!(verdict.word(), word, "{what}: {verdict:?}");
        }
        let failing = judge(&archiving(Some(900), Some(990), 3), &limits, now);
        assert_eq!(
            failing.reason(),
            Some(
                "archive_command fails on 000000010000000000000002; 3 files wait; last success 100 s ago"
            )
        );
        let off = Archiving {
            enabled: false,
            ..archiving(None, None, 0)
        };
        assert_eq!(judge(&off, &limits, now).word(), "critical");
    }
}
