//! Where PostgreSQL stopped a recovery, read from its log, and whether that is the target. Pure.

use jiff::Timestamp;

use super::stop_record::StopRecord;
use crate::model::{Lsn, SegmentSize, Verdict};
use crate::restore::plan::Until;
use crate::restore::recover::LoggedEnd;

/// Whether no transaction came back that is later than the target.
pub(crate) fn judge_time_target(to: Option<Timestamp>, until: &Until) -> Verdict {
    match (until, to) {
        (Until::Time(at), Some(to)) if to > *at => Verdict::Critical(format!(
            "a transaction of {} came back, later than {until}",
            to.strftime("%F %T%.f UTC")
        )),
        _ => Verdict::Ok,
    }
}

/// Whether a recovery that replayed the WAL up to `recovered` stopped at `target`.
///
/// PostgreSQL logs the record before which it stops for its target. Without such a line the WAL ended first, which is right
/// only if no record lies between `recovered` and `target`: `stop` judges the archived bytes at `recovered`.
pub(crate) fn judge_lsn_target(
    recovered: Lsn,
    logged: LoggedEnd,
    target: Lsn,
    size: SegmentSize,
    stop: impl FnOnce() -> StopRecord,
) -> Verdict {
    if let Some(next) = logged.stopped_before {
        return match next >= target {
            true => Verdict::Ok,
            false => Verdict::Critical(format!(
                "recovery stopped before the record at {next}, which is before {target}"
            )),
        };
    }
    // A record that begins before the target is replayed, even if it ends behind it.
    if let Some(last) = logged.last_record.filter(|last| *last >= target) {
        return Verdict::Critical(format!(
            "recovery replayed the record at {last}, which is not before {target}"
        ));
    }
    if next_record(recovered, size) >= target {
        return Verdict::Ok;
    }
    let ended = format!("recovery ended at {recovered}, before {target}");
    let stop = stop();
    if let Some(damage) = stop.damage() {
        return Verdict::Critical(format!("{ended}: {damage}"));
    }
    match stop {
        StopRecord::Unread(reason) => {
            Verdict::Unknown(format!("{ended}, and what follows is unknown: {reason}"))
        }
        // The next record continues past the end of the archive, so it was not complete at the target.
        _ => Verdict::Ok,
    }
}

/// Where the next record begins after one that ends at `end`: behind the header of a page, where a page begins there.
fn next_record(end: Lsn, size: SegmentSize) -> Lsn {
    /// `XLOG_BLCKSZ`, and `SizeOfXLogShortPHD` and `SizeOfXLogLongPHD`.
    const PAGE: u64 = 8192;
    const HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    let aligned = end.0.next_multiple_of(8);
    Lsn(match (aligned % size.bytes(), aligned % PAGE) {
        (0, _) => aligned + LONG_HEADER,
        (_, 0) => aligned + HEADER,
        _ => aligned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn lsn(segment: u64, offset: u64) -> Lsn {
        Lsn(segment * SEGMENT + offset)
    }

    fn logged(last_record: Option<Lsn>, stopped_before: Option<Lsn>) -> LoggedEnd {
        LoggedEnd {
            last_record,
            stopped_before,
        }
    }

    fn judge(recovered: Lsn, logged: LoggedEnd, target: Lsn, stop: Option<StopRecord>) -> Verdict {
        let stop = || stop.unwrap_or_else(|| panic!("{recovered} {target}: not asked"));
        judge_lsn_target(recovered, logged, target, SegmentSize::default(), stop)
    }

    #[test]
    fn a_target_that_postgresql_stopped_for_is_reached() {
        for (recovered, before, target) in [
            (lsn(4, 0x158), lsn(4, 0x158), lsn(4, 0x158)),
            // In the empty rest of a switched segment.
            (lsn(5, 0), lsn(5, 40), lsn(4, 0x158)),
            // Within a record of several segments.
            (lsn(7, 0x100), lsn(7, 0x100), lsn(4, 0x200)),
        ] {
            let judged = judge(recovered, logged(Some(before), Some(before)), target, None);
            assert_eq!(judged, Verdict::Ok, "{recovered}");
        }
        let early = logged(None, Some(lsn(4, 0x100)));
        let judged = judge(lsn(4, 0x100), early, lsn(4, 0x158), None);
        assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
    }

    #[test]
    fn where_the_wal_ended_first_nothing_may_lie_before_the_target() {
        let near = logged(Some(lsn(4, 0x100)), None);
        for (recovered, target) in [
            // The last record is that of a switch, or ends behind the target.
            (lsn(5, 0), lsn(4, 0x158)),
            (lsn(4, 0x158), lsn(4, 0x150)),
            (lsn(4, 0x151), lsn(4, 0x158)),
            // The header of a page, and of a segment.
            (lsn(4, 8192), lsn(4, 8192 + 24)),
            (lsn(5, 0), lsn(5, 40)),
        ] {
            let judged = judge(recovered, near, target, None);
            assert_eq!(judged, Verdict::Ok, "{recovered} {target}");
        }
        let judge = |recovered, target, stop| judge(recovered, near, target, Some(stop));
        let (recovered, end) = (lsn(4, 0x158), lsn(5, 0));
        assert_eq!(judge(recovered, end, StopRecord::Continues), Verdict::Ok);
        for target in [lsn(4, 0x160), lsn(4, 1 << 20), end, lsn(9, 0)] {
            for stop in [
                StopRecord::Damaged,
                StopRecord::BadSegment("cut".to_owned()),
                StopRecord::Differs(lsn(4, 0x170)),
            ] {
                let judged = judge(recovered, target, stop);
                assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
            }
            let unread = judge(recovered, target, StopRecord::Unread("403".to_owned()));
            assert!(matches!(unread, Verdict::Unknown(_)), "{unread:?}");
        }
    }

    #[test]
    fn a_record_at_the_target_is_past_it() {
        let past = logged(Some(lsn(4, 0x158)), None);
        let judged = judge(lsn(4, 0x200), past, lsn(4, 0x158), None);
        assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
    }

    #[test]
    fn a_later_transaction_is_past_the_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let until = Until::Time(at(60));
        assert_eq!(judge_time_target(Some(at(60)), &until), Verdict::Ok);
        assert_eq!(judge_time_target(None, &until), Verdict::Ok);
        assert_ne!(judge_time_target(Some(at(61)), &until), Verdict::Ok);
    }
}
