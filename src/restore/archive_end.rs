//! Where a recovery stopped in the archive, and which commits it would have lost.
//!
//! PostgreSQL takes the first record that it cannot read for the end of the WAL. The bytes at that LSN show whether it is the
//! end of the archive or damage within its last segment.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use super::live::Live;
use super::preflight::Found;
use super::report::secs;
use super::run::Test;
use super::verify::Recovered;
use super::wal_stop::{Stop, StopSegment, StoppedAt, judge_record, judge_stop};
use super::young_gap::MAY_COME;
use crate::model::{Lsn, SegmentSize, Timeline, Verdict, WalSegment};
use crate::postgres::{Commit, WalReader, WalStretch};
use std::path::Path;

/// Seconds of committed work that a loss of the primary at `live`'s moment would have cost.
///
/// Measured from the first commit past `archived`, the end of the recoverable WAL, to that moment; 0 without such a commit.
/// Read from the live server's own WAL with `pg_waldump`, as the live RPO is: an idle primary loses nothing, however old its
/// last commit.
///
/// # Errors
/// Why it is not known, as a sentence.
pub async fn measure_rpo(
    bin_directory: &Path,
    live: &Live,
    timeline: Timeline,
    archived: Lsn,
) -> Result<f64, String> {
    let server = &live.server;
    if server.in_recovery && !server.streaming {
        return Err(
            "this standby is not streaming: what the primary committed since is not known here"
                .into(),
        );
    }
    if server.timeline != timeline {
        return Err(format!(
            "the live server is on timeline {}, the archive on {timeline}",
            server.timeline
        ));
    }
    // A primary's WAL can be read as far as it is written, not as far as it is inserted.
    let end = match server.in_recovery {
        true => server
            .wal_end
            .ok_or("this standby has received no WAL yet")?,
        false => server
            .position
            .ok_or("the server does not tell its position")?,
    };
    // A segment begins with a page header, which is no record: nothing was written past the last switch.
    const PAGE_HEADER: u64 = 40;
    let begins_segment = archived.0.is_multiple_of(server.segment_size.bytes());
    if end <= archived || begins_segment && end.0 - archived.0 <= PAGE_HEADER {
        return Ok(0.0);
    }
    let reader = WalReader {
        bin_directory: bin_directory.to_owned(),
        data_directory: server.data_directory.clone(),
        segment_size: server.segment_size,
    };
    let stretch = WalStretch {
        timeline,
        from: archived,
        to: end,
    };
    match reader.first_commit(stretch).await? {
        Some(first) => lost_secs(first, server.now, live.clock_behind),
        None => Ok(0.0),
    }
}

/// Never 0: the commit is lost, whatever the clocks of this node and of the primary make of its age.
///
/// # Errors
/// Where this node's clock is behind the primary's: the age of the primary's commit cannot be told by it.
fn lost_secs(first: Commit, now: Timestamp, behind: Option<Duration>) -> Result<f64, String> {
    const LEAST: f64 = 0.1;
    /// Clocks that are kept by the same time service differ by less.
    const TOLERATED: Duration = Duration::from_secs(1);
    let ahead = Duration::try_from(first.at.duration_since(now)).ok();
    if let Some(behind) = behind.max(ahead).filter(|behind| *behind > TOLERATED) {
        return Err(format!(
            "commits are lost, and how old they are is unknown: this node's clock is at least {:.1} s behind the primary's",
            behind.as_secs_f64()
        ));
    }
    let age = Duration::try_from(now.duration_since(first.at));
    Ok(age.map_or(LEAST, |age| secs(age).max(LEAST)))
}

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
    stop: impl FnOnce() -> Stop,
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
        if let Stop::Unread(reason) = stop {
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
        Verdict::Unknown(_) => Verdict::Unknown(format!("{gap}; {MAY_COME}")),
        _ => Verdict::Critical(gap),
    }
}

/// Judges the archive at the LSN where the replay of `recovered` stopped.
pub(super) fn what_stands_there(found: &Found, recovered: &Recovered) -> Stop {
    let (path, size) = (&found.plan.path, found.catalog.wal.size);
    let segment = WalSegment::holding(path.timeline, recovered.lsn, size);
    let stopped = StoppedAt {
        start: segment.start(size),
        at: recovered.lsn,
        last: recovered.logged.last_record,
        end: path.reachable.map_or(recovered.lsn, |last| last.end(size)),
    };
    let live = found.live.as_ref().ok().filter(|live| {
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
        Some(StopSegment::Damaged(reason)) => return Stop::BadSegment(reason.clone()),
        Some(StopSegment::Unread(reason)) => reason.clone(),
        None => format!("{name} is not in the archive"),
    };
    // A record that continues past the end of the archive loses no commit, whatever the archived copy holds.
    match live.map(|live| judge_record(&live, stopped)) {
        Some(Stop::GoesOn) => Stop::GoesOn,
        _ => Stop::Unread(unread),
    }
}

impl Test<'_> {
    /// Judges the stop of a recovery to the end of the archive.
    pub(super) fn judge_archive_end(found: &Found, recovered: &Recovered) -> Verdict {
        let (plan, size) = (&found.plan, found.catalog.wal.size);
        let ends = (plan.path.reachable, plan.path.newest);
        let stop = || what_stands_there(found, recovered);
        judge_end(recovered.lsn, ends, size, &plan.gaps, stop)
    }

    /// Measures the loss again from where the replay stopped, where that is before the end that the listing promised.
    pub(super) async fn measure_from_stop(&mut self, found: &Found, recovered: &Recovered) {
        let plan = &found.plan;
        let end = plan
            .path
            .reachable
            .map(|last| last.end(found.catalog.wal.size));
        let (Ok(live), true) = (&found.live, Some(recovered.lsn) < end) else {
            return;
        };
        let bin = &self.setup.postgres().bin_directory;
        let measured = measure_rpo(bin, live, recovered.timeline, recovered.lsn).await;
        // Behind a record that continues in the next segment no commit was lost that was not counted.
        let mut all = self.report.verifications.iter();
        let is_end = all.any(|it| it.name == "end_reached" && it.verdict == Verdict::Ok);
        if is_end && measured.is_err() {
            return;
        }
        let verdict = match &measured {
            Ok(_) => Verdict::Ok,
            Err(reason) => Verdict::Unknown(reason.clone()),
        };
        let rpo = self.report.verifications.iter_mut();
        let mut rpo = rpo.filter(|it| it.name == "rpo");
        // A loss that the listing showed is kept.
        if let Some(rpo) = rpo.find(|it| !matches!(it.verdict, Verdict::Critical(_))) {
            rpo.verdict = verdict;
            self.report.rpo_secs = measured.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let judged = judge(recovered, whole, Stop::GoesOn);
            assert_eq!(judged, Verdict::Ok, "{recovered}");
        }
        for (recovered, ends, stop) in [
            (lsn(6, 0).0 - 64, whole, Stop::Damaged),
            (lsn(6, 0).0 - 64, whole, Stop::BadSegment("cut".to_owned())),
            (lsn(6, 0).0 - 64, whole, Stop::Differs(lsn(6, 0))),
            (lsn(5, 1).0, whole, Stop::Damaged),
            (lsn(4, 9).0, whole, Stop::Damaged),
            (lsn(6, 0).0, gap, Stop::GoesOn),
            (lsn(6, 0).0, (None, None), Stop::GoesOn),
        ] {
            let judged = judge(Lsn(recovered), ends, stop);
            assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
        }
        let unread = judge(lsn(5, 1), whole, Stop::Unread("timed out".to_owned()));
        assert!(matches!(unread, Verdict::Unknown(_)), "{unread:?}");
        let may_come = Verdict::Unknown(MAY_COME.to_owned());
        let judged = judge_end(lsn(6, 0), gap, size, &may_come, || Stop::GoesOn);
        assert!(matches!(judged, Verdict::Unknown(_)), "{judged:?}");
        let damaged = judge_end(lsn(5, 1), gap, size, &may_come, || Stop::Damaged);
        assert!(matches!(damaged, Verdict::Critical(_)), "{damaged:?}");
    }

    #[test]
    fn a_lost_commit_is_a_loss_and_a_clock_that_is_behind_cannot_tell_its_age() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        let lost = |committed, behind| {
            let commit = Commit {
                end: Lsn(1),
                at: at(committed),
            };
            lost_secs(commit, at(20_000), behind)
        };
        for (committed, expected) in [(18_500, 1.5), (19_999, 0.1), (20_000, 0.1), (20_500, 0.1)] {
            let lost = lost(committed, None).unwrap();
            assert!((lost - expected).abs() < 1e-9, "{committed}: {lost}");
        }
        assert!(lost(21_500, None).unwrap_err().contains("1.5 s behind"));
        let behind = |secs| Some(Duration::from_secs(secs));
        assert!(lost(10_000, behind(1)).is_ok());
        assert!(
            lost(10_000, behind(30))
                .unwrap_err()
                .contains("30.0 s behind")
        );
    }
}
