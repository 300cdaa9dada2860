//! The target of `--until`: which backup leads to it, and whether the archive reaches it. Pure, from the listing.

use jiff::{SignedDuration, Timestamp};

use super::until::Until;
use crate::repository::catalog::{Backup, Catalog, RecoveryPath, Sentinel, Window};
use crate::restore::RestoreError;

/// S3's clock, which dates segments, and the server's, which dates commits, may differ by this much.
const CLOCKS: SignedDuration = SignedDuration::from_mins(1);

/// `SizeOfXLogLongPHD`: a segment's first record lies that far behind its begin, and nothing between.
const PAGE_HEADER: u64 = 40;

/// To the second, as an operator would write it after `--until`.
fn to_the_second(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

/// The backup that finished last before `until`, of the complete ones; before a restore point's name, the newest.
///
/// # Errors
/// [`RestoreError::Unreachable`] when all of them finished later.
pub(crate) fn choose_backup<'a>(
    catalog: &'a Catalog,
    until: &Until,
) -> Result<Option<&'a Backup>, RestoreError> {
    let whole = |backup: &&Backup| catalog.is_complete(backup);
    let all: Vec<&Backup> = catalog.backups.iter().filter(whole).collect();
    let last = all
        .iter()
        .filter(|backup| finished_before(backup, until))
        .max_by_key(|backup| backup.finished_at);
    match (last, all.iter().min_by_key(|backup| backup.finished_at)) {
        (Some(last), _) => Ok(Some(last)),
        (None, Some(first)) => Err(too_early(catalog, first, until)),
        (None, None) => Ok(None),
    }
}

/// Whether `backup` finished before `until`; before a restore point's name, any may have.
pub(crate) fn finished_before(backup: &Backup, until: &Until) -> bool {
    match (until, &backup.sentinel) {
        (Until::Time(at), _) => backup.finished_at.is_some_and(|finished| finished <= *at),
        (Until::Lsn(lsn), Some(sentinel)) => sentinel.finish_lsn <= *lsn,
        (Until::Name(_), Some(_)) => true,
        (_, None) => false,
    }
}

/// Whether a recovery of `backup` along `path` can reach `until`.
///
/// # Errors
/// [`RestoreError::Unreachable`], with the backup's window as the hint.
pub(crate) fn judge_reach(
    catalog: &Catalog,
    backup: &Backup,
    sentinel: &Sentinel,
    path: &RecoveryPath,
    until: &Until,
) -> Result<(), RestoreError> {
    let size = catalog.wal.size;
    let end = path.reachable.map(|last| last.end(size));
    let stored = path.reachable.and_then(|last| catalog.wal.get(last));
    let (too_early_for, too_late) = match until {
        Until::Time(at) => (
            backup.finished_at.is_some_and(|finished| *at < finished),
            stored.is_some_and(|run| {
                run.last_modified
                    .saturating_add(CLOCKS)
                    .is_ok_and(|end| *at > end)
            }),
        ),
        Until::Lsn(lsn) => (
            *lsn < sentinel.finish_lsn,
            end.is_some_and(|end| lsn.0 > end.0 + PAGE_HEADER),
        ),
        // Only replay finds it.
        Until::Name(_) => (false, false),
    };
    if too_early_for {
        return Err(too_early(catalog, backup, until));
    }
    if !too_late {
        return Ok(());
    }
    let reason = match path.missing.first() {
        Some(gap) => format!(
            "{until} cannot be reached: {}",
            catalog.wal.why_not_past(*gap)
        ),
        None => format!("{until} is past the end of the archive"),
    };
    Err(RestoreError::Unreachable {
        reason,
        hint: window_hint(catalog, backup),
    })
}

/// Whether the WAL that can be replayed ends right at `until`, so that PostgreSQL needs no target to stop there.
///
/// With a target its recovery would fail: no record follows before which it could stop.
pub(crate) fn ends_there(catalog: &Catalog, path: &RecoveryPath, until: &Until) -> bool {
    let end = path.reachable.map(|last| last.end(catalog.wal.size));
    let Until::Lsn(lsn) = until else {
        return false;
    };
    // Without a gap the archive may grow while it is replayed.
    !path.missing.is_empty() && end == Some(*lsn)
}

fn too_early(catalog: &Catalog, backup: &Backup, until: &Until) -> RestoreError {
    RestoreError::Unreachable {
        reason: format!("{until} is before the end of {}", backup.name),
        hint: window_hint(catalog, backup),
    }
}

fn window_hint(catalog: &Catalog, backup: &Backup) -> String {
    match catalog.window(backup) {
        Some(window) => format!(
            "{}; `xdb backup list` shows the other backups",
            window_words(&window, &backup.name)
        ),
        None => "`xdb backup list` shows how far each backup can be recovered".to_owned(),
    }
}

fn window_words(window: &Window, name: &str) -> String {
    let from = window
        .from
        .map_or_else(|| "its end".to_owned(), to_the_second);
    format!(
        "{name} can be recovered from {from} ({}) to {} on timeline {}, stored at {}",
        window.from_lsn,
        window.to_lsn,
        window.timeline,
        to_the_second(window.to)
    )
}

/// The error for a restore point that the WAL after the backup does not hold; `last` is what the replay showed of its end.
pub(crate) fn not_in_the_wal(until: &Until, last: &str) -> RestoreError {
    RestoreError::Unreachable {
        reason: format!("{until} is not in the WAL that follows the backup{last}"),
        hint: "a time needs date, time and zone; a restore point that was made before needs an older backup: `xdb backup list`, then --backup"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Timeline, WalSegment};
    use crate::repository::catalog::{Stored, Tests, Wal, plan_recovery};

    const SEGMENT: u64 = 16 << 20;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    /// Finishes at its segment's start and a bit, and at so many minutes.
    fn backup(segment: u64) -> Backup {
        let start = segment * SEGMENT + 40;
        let json = format!(
            r#"{{"LSN":{start},"FinishLSN":{},"PgVersion":170011}}"#,
            start + 80
        );
        Backup {
            name: format!("base_00000001{segment:016X}"),
            timeline: Timeline(1),
            sentinel: Some(Sentinel::parse(json.as_bytes()).unwrap()),
            damage: None,
            finished_at: Some(at(i64::try_from(segment).unwrap())),
            stored: None,
            tests: Tests::default(),
        }
    }

    /// Backups in 2 and 6, WAL from 1 to 9 without `missing`, stored a minute each.
    fn catalog(missing: &[u64]) -> Catalog {
        let mut wal = Wal::default();
        for number in (1..=9).filter(|number| !missing.contains(number)) {
            let stored = Stored {
                size: 100,
                last_modified: at(i64::try_from(number).unwrap() + 1),
            };
            let timeline = Timeline(1);
            wal.add(WalSegment { timeline, number }, stored);
        }
        Catalog {
            backups: vec![backup(2), backup(6)],
            wal,
        }
    }

    fn reached(catalog: &Catalog, until: &Until) -> Result<String, String> {
        let message = |error: RestoreError| format!("{error} ({})", error.hint().unwrap());
        let backup = choose_backup(catalog, until).map_err(message)?.unwrap();
        let sentinel = backup.sentinel.as_ref().unwrap();
        let (start, finish) = (sentinel.start_lsn, sentinel.finish_lsn);
        let path = plan_recovery(&catalog.wal, backup.timeline, start, finish).unwrap();
        judge_reach(catalog, backup, sentinel, &path, until).map_err(message)?;
        Ok(backup.name.clone())
    }

    #[test]
    fn the_last_backup_before_the_target_is_taken() {
        let catalog = catalog(&[]);
        for (until, segment) in [
            (Until::Time(at(2)), 2),
            (Until::Time(at(5)), 2),
            (Until::Time(at(6)), 6),
            (Until::Time(at(9)), 6),
            (Until::Lsn(Lsn(3 * SEGMENT)), 2),
            (Until::Lsn(Lsn(10 * SEGMENT)), 6),
            (Until::Name("x".to_owned()), 6),
        ] {
            let name = format!("base_00000001{segment:016X}");
            assert_eq!(reached(&catalog, &until), Ok(name), "{until}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_said_with_the_window() {
        let catalog_with_gap = catalog(&[8]);
        let whole = catalog(&[]);
        for (catalog, until, to_the_second) in [
            (
                &whole,
                Until::Time(at(1)),
                "is before the end of base_000000010000000000000002",
            ),
            (&whole, Until::Lsn(Lsn(SEGMENT)), "is before the end of"),
            (&whole, Until::Time(at(60)), "past the end of the archive"),
            (
                &whole,
                Until::Lsn(Lsn(11 * SEGMENT)),
                "past the end of the archive",
            ),
            (
                &catalog_with_gap,
                Until::Time(at(20)),
                "WAL is missing: 000000010000000000000008",
            ),
            (
                &catalog_with_gap,
                Until::Lsn(Lsn(9 * SEGMENT)),
                "WAL is missing",
            ),
        ] {
            let message = reached(catalog, &until).unwrap_err();
            assert!(message.contains(to_the_second), "{until}: {message}");
            assert!(message.contains("can be recovered from 1970"), "{message}");
        }
        assert!(reached(&catalog_with_gap, &Until::Lsn(Lsn(8 * SEGMENT))).is_ok());
    }

    #[test]
    fn a_damaged_backup_before_the_target_is_passed_over_for_an_older_one() {
        // The second's own WAL is gone.
        let catalog = catalog(&[6]);
        let until = Until::Lsn(Lsn(6 * SEGMENT));
        assert_eq!(reached(&catalog, &until), Ok(backup(2).name));
    }

    #[test]
    fn only_the_end_before_a_gap_is_come_to_without_a_target() {
        let ends = |missing: &[u64], segment: u64| {
            let catalog = catalog(missing);
            let path = plan_recovery(
                &catalog.wal,
                Timeline(1),
                Lsn(2 * SEGMENT),
                Lsn(2 * SEGMENT),
            );
            ends_there(
                &catalog,
                &path.unwrap(),
                &Until::Lsn(Lsn(segment * SEGMENT)),
            )
        };
        assert!(ends(&[8], 8));
        assert!(!ends(&[8], 7) && !ends(&[], 10));
    }

    #[test]
    fn a_page_header_past_the_end_is_no_more_than_the_end() {
        let whole = catalog(&[]);
        for (offset, reaches) in [(0, true), (PAGE_HEADER, true), (PAGE_HEADER + 1, false)] {
            let until = Until::Lsn(Lsn(10 * SEGMENT + offset));
            assert_eq!(reached(&whole, &until).is_ok(), reaches, "{offset}");
        }
    }
}
