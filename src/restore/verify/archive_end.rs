//! Whether the end of the archive is in the bucket, and whether a recovery reached it.
//!
//! PostgreSQL takes the first record that it cannot read for the end of the WAL. The bytes at that LSN show whether it is the
//! end of the archive or damage within its last segment.

use std::fs;

use super::stop_record::{StopPosition, StopRecord, judge_record, judge_stop};
use crate::model::{Lsn, SegmentSize, Verdict, WalSegment};
use crate::repository::catalog::Catalog;
use crate::restore::plan::{GAP_MAY_CLOSE, LiveServer, NoLiveServer, Survey, archived_segment};
use crate::restore::recover::{RecoveryEnd, StopSegment};

/// Whether the replay reached the end of the listed WAL.
///
/// PostgreSQL archives a segment when it is full or switched: replay ends at its end, or before a last record that continues
/// in the next. `stop` judges the archived bytes at `recovered`, where that is within the segment; `gaps` is the verdict on
/// the listing.
fn judge_end(
    recovered: Lsn,
    (reachable, newest): (Option<WalSegment>, Option<WalSegment>),
    size: SegmentSize,
    gaps: &Verdict,
    stop: impl FnOnce() -> StopRecord,
) -> Verdict {
    let name = |segment: WalSegment| segment.name(size);
    let (Some(reachable), Some(newest)) = (reachable, newest) else {
        return Verdict::Critical("the archive holds no WAL for this backup".to_owned());
    };
    let ended = format!(
        "recovery ended at {recovered}, before the end of the segment {} that the archive goes up to",
        name(reachable)
    );
    if recovered < reachable.end(size) {
        // A record may be longer than a segment.
        let stop = stop();
        if let Some(damage) = stop.damage() {
            return Verdict::Critical(format!("{ended}: {damage}"));
        }
        if let StopRecord::Unread(reason) = stop {
            return Verdict::Unknown(format!("{ended}, and what follows is unknown: {reason}"));
        }
    }
    if reachable == newest {
        return Verdict::Ok;
    }
    let gap = format!(
        "recovery ended at {recovered}: after {} a segment is missing, and the archive continues to {}",
        name(reachable),
        name(newest)
    );
    match gaps {
        // Its segments may still be uploading.
        Verdict::Unknown(_) => Verdict::Unknown(format!("{gap}; {GAP_MAY_CLOSE}")),
        _ => Verdict::Critical(gap),
    }
}

/// Judges the archive at the LSN where the replay of `recovered` stopped.
pub(crate) fn stop_record(survey: &Survey, recovered: &RecoveryEnd) -> StopRecord {
    let (path, size) = (&survey.plan.path, survey.catalog.wal.size);
    let segment = WalSegment::holding(path.timeline, recovered.lsn, size);
    let stopped = StopPosition {
        start: segment.start(size),
        at: recovered.lsn,
        last: recovered.logged.last_record,
        end: path.reachable.map_or(recovered.lsn, |last| last.end(size)),
    };
    let live = survey.live.as_ref().ok().filter(|live| {
        // What a standby has not received yet holds older bytes.
        let server = &live.server;
        let written = match server.in_recovery {
            true => server.wal_end,
            false => server.position,
        };
        written.is_some_and(|written| written >= segment.end(size))
    });
    let name = segment.name(size);
    let live =
        live.and_then(|live| fs::read(live.server.data_directory.join("pg_wal").join(&name)).ok());
    let unread = match &recovered.stop_segment {
        Some(StopSegment::Here(path)) => match fs::read(path) {
            Ok(bytes) => return judge_stop(&bytes, live.as_deref(), stopped),
            Err(error) => format!("{} cannot be read: {error}", path.display()),
        },
        Some(StopSegment::Damaged(reason)) => return StopRecord::BadSegment(reason.clone()),
        Some(StopSegment::Unread(reason)) => reason.clone(),
        None => format!("{name} is not in the archive"),
    };
    // A record that continues past the end of the archive loses no commit, whatever the archived copy holds.
    match live.map(|live| judge_record(&live, stopped)) {
        Some(StopRecord::Continues) => StopRecord::Continues,
        _ => StopRecord::Unread(unread),
    }
}

/// Judges the stop of a recovery to the end of the archive.
pub(crate) fn judge_archive_end(survey: &Survey, end: &RecoveryEnd) -> Verdict {
    let (plan, size) = (&survey.plan, survey.catalog.wal.size);
    let ends = (plan.path.reachable, plan.path.newest);
    let stop = || stop_record(survey, end);
    judge_end(end.lsn, ends, size, &plan.gaps, stop)
}

/// Whether the bucket holds what PostgreSQL archived last: a missing last segment cannot be seen in a bucket alone.
pub(crate) fn judge_last_archived(
    live: &Result<LiveServer, NoLiveServer>,
    catalog: &Catalog,
) -> Verdict {
    let live = match live {
        Ok(live) => live,
        Err(silent) => return judge_mark(silent.reason(), catalog),
    };
    let Some(last) = live.archiver.last_archived.as_deref() else {
        return judge_mark("this server has archived nothing yet", catalog);
    };
    let Some(segment) = archived_segment(last, catalog) else {
        return judge_mark(&format!("{last} was archived last"), catalog);
    };
    let whole = last.len() == 24;
    let newest = catalog.wal.newest(segment.timeline);
    match newest {
        Some(_) if catalog.wal.get(segment).is_some() => Verdict::Ok,
        // A partial segment's or backup history's own segment may follow later.
        Some(newest) if !whole && newest.number + 1 >= segment.number => Verdict::Ok,
        // A standby's archiver skips segments that the primary stored, and those that the archive does not hold.
        _ if live.server.in_recovery => {
            judge_mark(&format!("this standby passed over {last}"), catalog)
        }
        _ => Verdict::Critical(match catalog.wal.why_damaged(last) {
            Some(damaged) => format!("PostgreSQL archived {last} last: {damaged}"),
            None => format!(
                "PostgreSQL archived {last}, and the repository does not hold it: its newest segment is {}",
                newest.map_or_else(
                    || "none".to_owned(),
                    |segment| segment.name(catalog.wal.size)
                )
            ),
        }),
    }
}

/// Judges by the high-water mark in the bucket where this node's server does not know what was archived last, for `reason`.
fn judge_mark(reason: &str, catalog: &Catalog) -> Verdict {
    match catalog.lost_end() {
        Ok(None) => Verdict::Ok,
        Ok(Some(lost)) => {
            let name = lost.name(catalog.wal.size);
            let why = catalog.wal.why_damaged(&name);
            let why = why.unwrap_or_else(|| "the repository does not hold it".to_owned());
            Verdict::Critical(format!(
                "{name} was archived last, by the high-water mark: {why}"
            ))
        }
        Err(unmarked) => Verdict::Unknown(format!(
            "the end of the archive is unverified: {reason}, and {unmarked}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;

    fn segment_of(number: u64) -> WalSegment {
        WalSegment {
            timeline: Timeline(1),
            number,
        }
    }

    #[test]
    fn the_end_is_reached_at_the_end_of_the_last_segment_alone() {
        let size = SegmentSize::default();
        let segment = |number| Some(segment_of(number));
        let lsn = |number: u64, offset| Lsn(number * size.bytes() + offset);
        let whole = (segment(5), segment(5));
        let gap = (segment(5), segment(8));
        let judge = |recovered, ends, stop| judge_end(recovered, ends, size, &Verdict::Ok, || stop);
        // A record may span all of the last segment.
        for recovered in [lsn(6, 0), lsn(6, 0x28), Lsn(lsn(6, 0).0 - 8192), lsn(4, 9)] {
            let judged = judge(recovered, whole, StopRecord::Continues);
            assert_eq!(judged, Verdict::Ok, "{recovered}");
        }
        for (recovered, ends, stop) in [
            (lsn(6, 0).0 - 64, whole, StopRecord::Damaged),
            (
                lsn(6, 0).0 - 64,
                whole,
                StopRecord::BadSegment("cut".to_owned()),
            ),
            (lsn(6, 0).0 - 64, whole, StopRecord::Differs(lsn(6, 0))),
            (lsn(5, 1).0, whole, StopRecord::Damaged),
            (lsn(4, 9).0, whole, StopRecord::Damaged),
            (lsn(6, 0).0, gap, StopRecord::Continues),
            (lsn(6, 0).0, (None, None), StopRecord::Continues),
        ] {
            let judged = judge(Lsn(recovered), ends, stop);
            assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
        }
        let unread = judge(lsn(5, 1), whole, StopRecord::Unread("timed out".to_owned()));
        assert!(matches!(unread, Verdict::Unknown(_)), "{unread:?}");
        let may_close = Verdict::Unknown(GAP_MAY_CLOSE.to_owned());
        let judged = judge_end(lsn(6, 0), gap, size, &may_close, || StopRecord::Continues);
        assert!(matches!(judged, Verdict::Unknown(_)), "{judged:?}");
        let damaged = judge_end(lsn(5, 1), gap, size, &may_close, || StopRecord::Damaged);
        assert!(matches!(damaged, Verdict::Critical(_)), "{damaged:?}");
    }
}
