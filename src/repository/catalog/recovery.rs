//! What a recovery from a backup would replay: pure, from a listing.

use std::fmt;

use super::{SegmentRange, Wal};
use crate::model::{Lsn, Timeline, TimelineHistory, WalSegment};

/// The way from a backup to the end of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveryPath {
    /// The newest timeline that descends from the backup.
    pub timeline: Timeline,
    /// The last segment that replay can reach without a gap; `None` when not even the first is there.
    pub reachable: Option<WalSegment>,
    /// The newest segment on the way, beyond any gap.
    pub newest: Option<WalSegment>,
    /// Where the last switch on the way lies; `None` on the backup's own timeline.
    pub switched_at: Option<Lsn>,
    /// A newer timeline that has WAL and no history: whether it descends from the backup cannot be known.
    pub without_history: Option<Timeline>,
    /// Gaps on the way.
    pub missing: Vec<SegmentRange>,
    /// Retention has deleted what followed: the way ends where the backup does.
    pub own_end_only: bool,
    /// Segments and stored bytes up to `reachable`.
    pub segments: u64,
    pub stored_bytes: u64,
}

/// A history that is needed and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadHistory {
    pub timeline: Timeline,
    pub reason: String,
}

impl fmt::Display for UnreadHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the history of timeline {} cannot be read: {}",
            self.timeline, self.reason
        )
    }
}

/// Plans the recovery of a backup taken on `timeline` from `start` to `finish`, along the newest timeline that left its own after it.
///
/// The path walks the timelines' histories, not the file names: around a switch, the segment is named after the newer
/// timeline (PostgreSQL's `XLogFileReadAnyTLI`).
///
/// # Errors
/// When a newer timeline's history cannot be read: whether it descends from the backup is then unknown.
pub(crate) fn plan_recovery(
    wal: &Wal,
    timeline: Timeline,
    start: Lsn,
    finish: Lsn,
) -> Result<RecoveryPath, UnreadHistory> {
    let (target, history) = newest_descendant(wal, timeline, finish)?;
    Ok(follow(wal, timeline, start, target, &history))
}

/// The way from `start` on `timeline` to the end of `target`, whose history is `history`.
pub(super) fn follow(
    wal: &Wal,
    timeline: Timeline,
    start: Lsn,
    target: Timeline,
    history: &TimelineHistory,
) -> RecoveryPath {
    let mut path = RecoveryPath {
        timeline: target,
        switched_at: history
            .parent()
            .map(|switch| switch.at)
            .filter(|_| target > timeline),
        without_history: newer_without_history(wal, target),
        reachable: None,
        newest: None,
        missing: Vec::new(),
        own_end_only: false,
        segments: 0,
        stored_bytes: 0,
    };
    let ancestors = history
        .0
        .iter()
        .filter(|switch| switch.timeline >= timeline);
    let mut from = start;
    for switch in ancestors {
        // The segment that holds the switch is archived under the newer name.
        let switch_segment = switch.at.0 / wal.size.bytes();
        let first = from.0 / wal.size.bytes();
        if switch_segment > first {
            walk(
                wal,
                &mut path,
                SegmentRange {
                    timeline: switch.timeline,
                    first,
                    last: switch_segment - 1,
                },
            );
        }
        from = switch.at;
    }
    let first = from.0 / wal.size.bytes();
    match wal.last_known(target).filter(|last| *last >= first) {
        Some(last) => walk(
            wal,
            &mut path,
            SegmentRange {
                timeline: target,
                first,
                last,
            },
        ),
        // Not a single segment of the last timeline: a gap where it begins, unless all is replayed before.
        None if path.newest.is_none() => path.missing.push(SegmentRange {
            timeline: target,
            first,
            last: first,
        }),
        None => {}
    }
    end_at_what_was_pruned(wal, &mut path);
    path
}

/// A timeline newer than `target` that has WAL, and no history that says whose it is.
fn newer_without_history(wal: &Wal, target: Timeline) -> Option<Timeline> {
    let marked = wal.mark().map(|mark| mark.timeline);
    let mut all = wal.runs.keys().copied().chain(marked);
    all.find(|newer| {
        *newer > target && !wal.histories.contains_key(newer) && !wal.foreign.contains_key(newer)
    })
}

/// What retention deleted on purpose is no gap, and what lies beyond is of no use to this backup.
fn end_at_what_was_pruned(wal: &Wal, path: &mut RecoveryPath) {
    let (Some(last), Some(gap)) = (path.reachable, path.missing.first()) else {
        return;
    };
    let (timeline, number) = (gap.timeline, gap.first);
    if wal.is_pruned(WalSegment { timeline, number }) {
        path.own_end_only = true;
        path.switched_at = path.switched_at.filter(|_| last.timeline == path.timeline);
        path.timeline = last.timeline;
        path.newest = path.reachable;
        path.missing.clear();
    }
}

fn newest_descendant(
    wal: &Wal,
    timeline: Timeline,
    finish: Lsn,
) -> Result<(Timeline, TimelineHistory), UnreadHistory> {
    for (candidate, history) in wal
        .histories
        .iter()
        .rev()
        .take_while(|(candidate, _)| **candidate > timeline)
    {
        let history = history.as_ref().map_err(|reason| UnreadHistory {
            timeline: *candidate,
            reason: reason.clone(),
        })?;
        if history
            .switched_from(timeline)
            .is_some_and(|switch| switch >= finish)
        {
            return Ok((*candidate, history.clone()));
        }
    }
    // What lies before the backup's own timeline is of no interest to it.
    Ok((timeline, TimelineHistory::default()))
}

fn walk(wal: &Wal, path: &mut RecoveryPath, span: SegmentRange) {
    let missing = wal.missing_numbers(span.timeline, span.first, span.last);
    let segment = |number| WalSegment {
        timeline: span.timeline,
        number,
    };
    let stored = wal.stored_numbers(span.timeline, span.first, span.last);
    path.newest = stored.last.map(segment).or(path.newest);
    let end = missing
        .first()
        .map_or(Some(span.last), |gap| gap.first.checked_sub(1));
    if let Some(end) = end.filter(|end| path.missing.is_empty() && *end >= span.first) {
        let unbroken = wal.stored_numbers(span.timeline, span.first, end);
        path.reachable = Some(segment(end));
        path.segments += unbroken.segments;
        path.stored_bytes += unbroken.bytes;
    }
    path.missing.extend(missing);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::SegmentSize;
    use crate::repository::catalog::wal::Stored;

    const SEGMENT: u64 = 16 << 20;

    fn wal(segments: &[(u32, std::ops::RangeInclusive<u64>)], histories: &[(u32, &str)]) -> Wal {
        let mut wal = Wal::default();
        for (timeline, numbers) in segments {
            for number in numbers.clone() {
                let stored = Stored {
                    size: 100,
                    last_modified: Timestamp::UNIX_EPOCH,
                };
                wal.add(
                    WalSegment {
                        timeline: Timeline(*timeline),
                        number,
                    },
                    stored,
                );
            }
        }
        wal.histories = histories
            .iter()
            .map(|(id, text)| (Timeline(*id), text.parse().map_err(|_| "bad".to_owned())))
            .collect();
        wal
    }

    fn plan(wal: &Wal) -> RecoveryPath {
        plan_recovery(
            wal,
            Timeline(1),
            Lsn(3 * SEGMENT + 0x28),
            Lsn(3 * SEGMENT + 0x120),
        )
        .unwrap()
    }

    fn segment(timeline: u32, number: u64) -> Option<WalSegment> {
        Some(WalSegment {
            timeline: Timeline(timeline),
            number,
        })
    }

    #[test]
    fn an_unbroken_archive_is_reachable_to_its_end() {
        let path = plan(&wal(&[(1, 1..=9)], &[]));
        assert_eq!(
            (path.timeline, path.reachable, path.newest),
            (Timeline(1), segment(1, 9), segment(1, 9))
        );
        assert_eq!(
            (path.missing.len(), path.segments, path.stored_bytes),
            (0, 7, 700)
        );
    }

    #[test]
    fn a_gap_ends_what_is_reachable_and_is_named() {
        let path = plan(&wal(&[(1, 1..=5), (1, 8..=9)], &[]));
        assert_eq!(
            (path.reachable, path.newest),
            (segment(1, 5), segment(1, 9))
        );
        assert_eq!(
            path.missing[0].named(SegmentSize::default()),
            "000000010000000000000006 to 000000010000000000000007"
        );
    }

    #[test]
    fn an_archive_without_the_backups_first_segment_reaches_nothing() {
        for listed in [wal(&[], &[]), wal(&[(1, 1..=2)], &[])] {
            let path = plan(&listed);
            assert_eq!((path.reachable, path.missing.len()), (None, 1));
        }
    }

    #[test]
    fn a_switch_inside_a_segment_needs_only_the_newer_name() {
        // wal-g calls segment 7 of timeline 1 missing here (wal-g#1390); PostgreSQL never asks for it.
        let path = plan(&wal(
            &[(1, 1..=6), (2, 7..=8)],
            &[(2, "1\t0/70000A0\tno recovery target specified\n")],
        ));
        assert_eq!(
            (path.timeline, path.reachable),
            (Timeline(2), segment(2, 8))
        );
        assert_eq!((path.missing.as_slice(), path.segments), ([].as_slice(), 6));
    }

    #[test]
    fn short_timelines_are_walked_by_their_histories() {
        // Timelines 2 and 3 both began and ended inside segment 7.
        let histories = [
            (2, "1\t0/70000A0\tr\n"),
            (3, "1\t0/70000A0\tr\n2\t0/7000200\tr\n"),
        ];
        let path = plan(&wal(&[(1, 1..=6), (3, 7..=7)], &histories));
        assert_eq!(
            (path.timeline, path.reachable, path.missing.len()),
            (Timeline(3), segment(3, 7), 0)
        );
    }

    #[test]
    fn a_gap_before_the_switch_hides_what_follows() {
        let path = plan(&wal(&[(1, 1..=4), (2, 7..=8)], &[(2, "1\t0/70000A0\tr\n")]));
        assert_eq!(
            (path.reachable, path.newest),
            (segment(1, 4), segment(2, 8))
        );
        assert_eq!(
            path.missing,
            [SegmentRange {
                timeline: Timeline(1),
                first: 5,
                last: 6
            }]
        );
    }

    #[test]
    fn what_retention_deleted_is_no_gap_and_ends_the_way() {
        let mut kept = wal(
            &[(1, 3..=3), (1, 8..=8), (2, 9..=12)],
            &[(2, "1\t0/90000A0\tr\n")],
        );
        kept.pruned_before = segment(1, 8);
        let path = plan(&kept);
        assert_eq!(
            (
                path.timeline,
                path.reachable,
                path.newest,
                path.own_end_only
            ),
            (Timeline(1), segment(1, 3), segment(1, 3), true)
        );
        assert_eq!((path.missing.len(), path.switched_at), (0, None));
        // What lacks beyond is a gap as ever.
        kept.pruned_before = segment(1, 4);
        let path = plan(&kept);
        assert_eq!((path.missing.len(), path.own_end_only), (1, false));
    }

    #[test]
    fn a_timeline_that_left_before_the_backup_is_not_followed() {
        let path = plan(&wal(&[(1, 1..=9), (2, 2..=4)], &[(2, "1\t0/20000A0\tr\n")]));
        assert_eq!(
            (path.timeline, path.reachable),
            (Timeline(1), segment(1, 9))
        );
    }

    #[test]
    fn an_unreadable_newer_history_is_an_error_and_an_older_one_is_not() {
        let broken = wal(&[(1, 1..=9)], &[(2, "nonsense")]);
        assert!(plan_recovery(&broken, Timeline(1), Lsn(3 * SEGMENT), Lsn(3 * SEGMENT)).is_err());
        let older = plan_recovery(
            &wal(&[(5, 1..=9)], &[(2, "nonsense")]),
            Timeline(5),
            Lsn(SEGMENT),
            Lsn(SEGMENT),
        );
        assert_eq!(older.unwrap().reachable, segment(5, 9));
    }

    #[test]
    fn a_newer_timeline_without_its_history_is_told() {
        let path = plan(&wal(&[(1, 1..=6), (2, 7..=8)], &[]));
        assert_eq!(
            (path.timeline, path.without_history),
            (Timeline(1), Some(Timeline(2)))
        );
        let known = plan(&wal(&[(1, 1..=6), (2, 2..=4)], &[(2, "1\t0/20000A0\tr\n")]));
        assert_eq!(known.without_history, None);
    }

    #[test]
    fn a_promotion_that_archived_no_segment_yet_ends_where_the_old_timeline_does() {
        let path = plan(&wal(&[(1, 1..=6)], &[(2, "1\t0/70000A0\tr\n")]));
        assert_eq!(
            (path.timeline, path.reachable, path.missing.len()),
            (Timeline(2), segment(1, 6), 0)
        );
    }
}
