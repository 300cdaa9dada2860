//! Where PostgreSQL stopped a recovery, by its own log, and whether that is the target. Pure.

use jiff::Timestamp;

use super::until::Until;
use super::wal_stop::Stop;
use crate::model::{Lsn, SegmentSize, Verdict};

/// What a server's log says of the end of its recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoggedEnd {
    /// Where the record begins that the recovery read last; before a target, that one was not replayed.
    pub last_record: Option<Lsn>,
    /// Where the record begins before which it stopped for its target; `None` where it stopped for another reason.
    pub stopped_before: Option<Lsn>,
}

impl LoggedEnd {
    pub fn parse(log: &str) -> Self {
        let stopped = log
            .lines()
            .rev()
            .find_map(|line| line.split_once("recovery stopping before WAL location (LSN) \""));
        let stopped_before = stopped.and_then(|(_, at)| at.split('"').next()?.parse().ok());
        Self {
            last_record: last_record(log),
            stopped_before,
        }
    }
}

/// Whether `reason` says that the WAL ended before the target.
pub fn ran_out(reason: &str) -> bool {
    reason.contains("recovery ended before configured recovery target was reached")
}

/// Where the record begins that was read last, by the server's log.
pub fn last_record(log: &str) -> Option<Lsn> {
    let lines = log.lines().rev();
    let mut done = lines.filter_map(|line| line.split_once("redo done at "));
    let (_, at) = done.next()?;
    at.split_whitespace().next()?.parse().ok()
}

/// Whether no transaction came back that is later than the target.
pub fn judge_time(to: Option<Timestamp>, until: &Until) -> Verdict {
    match (until, to) {
        (Until::Time(at), Some(to)) if to > *at => Verdict::Critical(format!(
            "a transaction of {} came back, later than {until}",
            to.strftime("%F %T%.f UTC")
        )),
        _ => Verdict::Ok,
    }
}

/// Judges whether a recovery that replayed all before `recovered` ended at `target`.
///
/// It did where PostgreSQL stopped before a record for its target. Where the WAL ended first, nothing may lie between:
/// `stop` tells what stands in the archive at `recovered`.
pub fn judge_lsn(
    recovered: Lsn,
    logged: LoggedEnd,
    target: Lsn,
    size: SegmentSize,
    stop: impl FnOnce() -> Stop,
) -> Verdict {
    if let Some(next) = logged.stopped_before {
        return match next >= target {
            true => Verdict::Ok,
            false => Verdict::Critical(format!(
                "recovery stopped before the record at {next}, which is before {target}"
            )),
        };
    }
    // The last record may end behind the target: it began before.
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
        Stop::Unread(reason) => {
            Verdict::Unknown(format!("{ended}, and what follows is unknown: {reason}"))
        }
        // The record that follows is not all in the archive, so nothing of it was written before the target.
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

    fn judge(recovered: Lsn, logged: LoggedEnd, target: Lsn, stop: Option<Stop>) -> Verdict {
        let stop = || stop.unwrap_or_else(|| panic!("{recovered} {target}: not asked"));
        judge_lsn(recovered, logged, target, SegmentSize::default(), stop)
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
        assert_eq!(judge(recovered, end, Stop::GoesOn), Verdict::Ok);
        for target in [lsn(4, 0x160), lsn(4, 1 << 20), end, lsn(9, 0)] {
            for stop in [
                Stop::Damaged,
                Stop::BadSegment("cut".to_owned()),
                Stop::Differs(lsn(4, 0x170)),
            ] {
                let judged = judge(recovered, target, stop);
                assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
            }
            let unread = judge(recovered, target, Stop::Unread("403".to_owned()));
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
        assert_eq!(judge_time(Some(at(60)), &until), Verdict::Ok);
        assert_eq!(judge_time(None, &until), Verdict::Ok);
        assert_ne!(judge_time(Some(at(61)), &until), Verdict::Ok);
    }

    #[test]
    fn the_log_tells_where_the_recovery_ended() {
        let log = "LOG:  redo starts at 0/3000028\n\
                   LOG:  redo done at 0/5000140 system usage: CPU: user: 0.00 s\n\
                   FATAL:  recovery ended before configured recovery target was reached\n";
        assert_eq!(last_record(log), Some(Lsn(0x500_0140)));
        assert!(ran_out(log));
        assert_eq!(last_record("LOG:  redo is not required\n"), None);
        let log = "LOG:  recovery stopping before WAL location (LSN) \"0/5000140\"\n\
                   LOG:  redo done at 0/5000140 system usage: CPU: user: 0.00 s\n";
        let at = Some(Lsn(0x500_0140));
        assert_eq!(LoggedEnd::parse(log), logged(at, at));
        assert_eq!(LoggedEnd::parse(""), LoggedEnd::default());
    }
}
