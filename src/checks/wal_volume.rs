//! Judges how long the volume of `pg_wal` lasts. Pure.

use jiff::{SignedDuration, Timestamp};

use super::Limits;
use super::values::in_hours;
use crate::model::Verdict;
use crate::postgres::WalDirectory;

/// The limits are in seconds, and less is worse.
///
/// While archiving works, PostgreSQL uses its segments again and the volume does not fill.
pub(super) fn judge(wal: &WalDirectory, limits: &Limits, now: Timestamp) -> Verdict {
    if !wal.stands_still(now) {
        return Verdict::Ok;
    }
    // Nothing is written that could fill it.
    let Some(until) = wal.until_full(now) else {
        return Verdict::Ok;
    };
    limits.judge(until.as_secs_f64(), |limit| {
        format!(
            "archiving stands still, and the volume of pg_wal is full in {} (limit {}); {} files wait",
            in_hours(until),
            in_hours(SignedDuration::from_secs_f64(limit)),
            wal.pending
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Worse;

    #[test]
    fn the_forecast_counts_only_while_archiving_stands_still() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(10_000);
        let limits = Limits {
            warning: Some(24.0 * 3600.0),
            critical: Some(4.0 * 3600.0),
            worse: Worse::Below,
            ..Limits::default()
        };
        // Ten segments of 100 bytes in 1,000 s: a byte a second.
        let finished: Vec<_> = (0..=10).map(|_| at(9_000)).collect();
        for (what, oldest, free_bytes, finished, word) in [
            ("at work", Some(9_990), 1, &finished[..], "ok"),
            ("nothing waits", None, 1, &finished[..], "ok"),
            ("two days", Some(9_000), 172_800, &finished[..], "ok"),
            ("a day", Some(9_000), 86_400, &finished[..], "warning"),
            ("four hours", Some(9_000), 14_400, &finished[..], "critical"),
            ("nothing is written", Some(9_000), 1, &[], "ok"),
        ] {
            let wal = WalDirectory::new(1, oldest.map(at), finished, 100, free_bytes);
            assert_eq!(judge(&wal, &limits, now).word(), word, "{what}");
        }
        let wal = WalDirectory::new(3, Some(at(9_000)), &finished, 100, 14_400);
        assert_eq!(
            judge(&wal, &limits, now).reason(),
            Some(
                "archiving stands still, and the volume of pg_wal is full in 4 h (limit 4 h); 3 files wait"
            )
        );
    }
}
