//! Where a recovery stopped in the archive, and which commits it would have lost.
//!
//! PostgreSQL takes the first record that it cannot read for the end of the WAL. Whether that is the end of the archive, or
//! damage within its last segment, is recognized by the bytes that stand there.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::live::Live;
use super::preflight::Found;
use super::report::secs;
use super::run::Test;
use super::scratch::Scratch;
use super::verify::Recovered;
use crate::config::Config;
use crate::model::{Lsn, SegmentSize, Timeline, Verdict, WalSegment};
use crate::postgres::{Commit, WalReader, WalStretch};

/// Seconds of committed work that a loss of the primary at `live`'s moment would have cost.
///
/// From the first commit past `archived`, the end of what would have come back, to that moment; 0 where there is none. Read from the live server's own WAL
/// with `pg_waldump`, as the live RPO is: an idle primary loses nothing, however old its last commit.
///
/// # Errors
/// Why it is not known, as a sentence.
pub async fn measure_rpo(
    config: &Config,
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
        bin_directory: config.postgres.bin_directory.clone(),
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

/// What stands in the archive where the replay stopped, within the last segment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// A record that continues in the next segment, which is not archived yet.
    GoesOn,
    /// A record that should have been replayed, or none at all.
    Damaged,
    /// The live server's own segment has other bytes from there on.
    Differs(Lsn),
    Unread(String),
}

/// `XLogRecord`: its whole length at 0, the record before it at 8, its resource manager at 17 (`access/xlogrecord.h`).
const RECORD_HEADER: u64 = 24;
/// `XLogRecordMaxSize`.
const LONGEST_RECORD: u64 = 1020 << 20;
/// `XLogPageHeaderData` and `XLogLongPageHeaderData`, which begins a segment and holds the size of a page at 36.
const PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;

/// What stands at `at` in the archived `segment`, which begins at `start`, in an archive that goes up to `end`; `live` is the
/// live server's own segment, where that is here.
fn stop(segment: &[u8], live: Option<&[u8]>, start: Lsn, (at, end): (Lsn, Lsn)) -> Stop {
    let behind = usize::try_from(at.0 - start.0).unwrap_or(usize::MAX);
    if let Some(live) = live.filter(|live| live.len() == segment.len()) {
        let pairs = segment.iter().zip(live).enumerate().skip(behind);
        let other = pairs.clone().find(|(_, (one, other))| one != other);
        if let Some((offset, _)) = other {
            return Stop::Differs(Lsn(start.0 + offset as u64));
        }
    }
    goes_on(segment, start, (at, end))
}

/// The same by the record alone.
fn goes_on(segment: &[u8], start: Lsn, (at, end): (Lsn, Lsn)) -> Stop {
    match record_end(segment, at.0 - start.0) {
        Some(behind) if start.0 + behind > end.0 => Stop::GoesOn,
        _ => Stop::Damaged,
    }
}

/// Where the record ends that begins at `offset` of `segment`, or behind the page header there; `None` where no record does.
fn record_end(segment: &[u8], offset: u64) -> Option<u64> {
    let bytes = |at: u64, count: usize| {
        let at = usize::try_from(at).ok()?;
        segment.get(at..at + count)
    };
    let page = u64::from(u32::from_ne_bytes(bytes(36, 4)?.try_into().ok()?));
    if !page.is_power_of_two() || page < 1024 {
        return None;
    }
    let begin = match (offset, offset % page) {
        (0, _) => LONG_PAGE_HEADER,
        (_, 0) => offset + PAGE_HEADER,
        _ => offset,
    };
    if begin >= segment.len() as u64 {
        return Some(begin + 1);
    }
    let length = u64::from(u32::from_ne_bytes(bytes(begin, 4)?.try_into().ok()?));
    if !(RECORD_HEADER..=LONGEST_RECORD).contains(&length) {
        return None;
    }
    // The rest of a header may stand on the next page.
    if begin % page + RECORD_HEADER <= page {
        let first = u64::from_ne_bytes(bytes(8, 8)?.try_into().ok()?);
        let before = u64::from_ne_bytes(bytes(begin + 8, 8)?.try_into().ok()?);
        let here = first + begin;
        let manager = *bytes(begin + 17, 1)?.first()?;
        // The numbers between are PostgreSQL's own, and not in use.
        if before >= here || here - before > LONGEST_RECORD || (64..128).contains(&manager) {
            return None;
        }
    }
    let pages = (begin % page + length - 1) / page;
    Some(begin + length + pages * PAGE_HEADER)
}

/// Whether the replay reached the end of the listed WAL.
///
/// PostgreSQL archives a segment when it is full or switched: replay ends at its end, or before a last record that goes
/// on in the next. `stop` tells what stands at `recovered`, where that is within the segment.
fn judge_end(
    recovered: Lsn,
    (reachable, newest): (Option<WalSegment>, Option<WalSegment>),
    size: SegmentSize,
    stop: impl FnOnce(WalSegment) -> Stop,
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
        match stop(WalSegment::holding(reachable.timeline, recovered, size)) {
            Stop::GoesOn => {}
            Stop::Damaged => {
                return Verdict::Critical(format!("{ended}: the archived copy is damaged there"));
            }
            Stop::Differs(at) => {
                return Verdict::Critical(format!(
                    "{ended}: the archived copy is damaged, it differs from this server's own at {at}"
                ));
            }
            Stop::Unread(reason) => {
                return Verdict::Unknown(format!("{ended}, and what follows is unknown: {reason}"));
            }
        }
    }
    if reachable != newest {
        return Verdict::Critical(format!(
            "recovery ended at {recovered}: after {} a segment is missing, and the archive continues to {}",
            name(reachable),
            name(newest)
        ));
    }
    Verdict::Ok
}

impl Test<'_> {
    /// Judges the stop of a recovery that was to come to the end of the archive.
    pub(super) fn judge_archive_end(
        scratch: &Scratch,
        found: &Found,
        recovered: &Recovered,
    ) -> Verdict {
        let (path, size) = (&found.plan.path, found.catalog.wal.size);
        let stopped = |segment: WalSegment| {
            let name = segment.name(size);
            let read = |data: &Path| fs::read(data.join("pg_wal").join(&name));
            let live = found.live.as_ref().ok().filter(|live| {
                // What a standby has not received yet holds older bytes.
                let server = &live.server;
                let written = match server.in_recovery {
                    true => server.wal_end,
                    false => server.position,
                };
                written.is_some_and(|written| written >= segment.end(size))
            });
            let live = live.and_then(|live| read(&live.server.data_directory).ok());
            let end = path.reachable.map_or(recovered.lsn, |last| last.end(size));
            let (start, at) = (segment.start(size), (recovered.lsn, end));
            match read(&scratch.data()) {
                Ok(bytes) => stop(&bytes, live.as_deref(), start, at),
                // Where nothing of a segment was replayed, the promotion removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    live.map_or(Stop::Damaged, |live| goes_on(&live, start, at))
                }
                Err(error) => Stop::Unread(format!("{name} cannot be read: {error}")),
            }
        };
        judge_end(recovered.lsn, (path.reachable, path.newest), size, stopped)
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
        let config = &self.loaded.config;
        let measured = measure_rpo(config, live, recovered.timeline, recovered.lsn).await;
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
        // What the listing showed to be lost stays.
        if let Some(rpo) = rpo.find(|it| !matches!(it.verdict, Verdict::Critical(_))) {
            rpo.verdict = verdict;
            self.report.rpo_secs = measured.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;
    const PAGE: usize = 8192;

    fn segment_of(number: u64) -> WalSegment {
        WalSegment {
            timeline: Timeline(1),
            number,
        }
    }

    fn start() -> Lsn {
        Lsn(5 * SIZE as u64)
    }

    /// Segment 5 with a record of `length` bytes at `offset`.
    fn segment(offset: usize, length: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; SIZE];
        for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
            page[8..16].copy_from_slice(&(start().0 + (index * PAGE) as u64).to_ne_bytes());
        }
        bytes[24..32].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
        bytes[offset..offset + 4].copy_from_slice(&length.to_ne_bytes());
        let before = start().0 + offset as u64 - 64;
        bytes[offset + 8..offset + 16].copy_from_slice(&before.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_a_record_that_goes_on_in_the_next_segment_may_follow_the_end() {
        let near = SIZE - 4096;
        let at = |offset: usize| Lsn(start().0 + offset as u64);
        let to = |offset: usize| (at(offset), at(SIZE));
        let mut far_back = segment(near, 9000);
        far_back[near + 8..near + 16].copy_from_slice(&u64::MAX.to_ne_bytes());
        for (what, bytes, offset, expected) in [
            ("it goes on", segment(near, 9000), near, Stop::GoesOn),
            (
                "it ends with the segment",
                segment(near, 4096),
                near,
                Stop::Damaged,
            ),
            ("it fits", segment(near, 64), near, Stop::Damaged),
            ("zeros", segment(near, 0), near, Stop::Damaged),
            ("no length", segment(near, u32::MAX), near, Stop::Damaged),
            ("no record before it", far_back, near, Stop::Damaged),
            (
                "behind a page header",
                segment(SIZE - PAGE + 24, 9000),
                SIZE - PAGE,
                Stop::GoesOn,
            ),
        ] {
            assert_eq!(stop(&bytes, None, start(), to(offset)), expected, "{what}");
        }
        // Longer than the rest of this segment, and not than the archive.
        let further = (at(near), at(2 * SIZE));
        let spans = segment(near, 9000);
        assert_eq!(stop(&spans, None, start(), further), Stop::Damaged);
        let archived = segment(near, 9000);
        let mut live = archived.clone();
        assert_eq!(
            stop(&archived, Some(&live), start(), to(near)),
            Stop::GoesOn
        );
        live[near + 100] = 1;
        let differs = Stop::Differs(at(near + 100));
        assert_eq!(stop(&archived, Some(&live), start(), to(near)), differs);
        // Before the stop all was replayed.
        assert_eq!(
            stop(&archived, Some(&live), start(), to(near + 104)),
            Stop::Damaged
        );
    }

    #[test]
    fn the_end_is_reached_at_the_end_of_the_last_segment_alone() {
        let size = SegmentSize::default();
        let segment = |number| Some(segment_of(number));
        let lsn = |number: u64, offset| Lsn(number * size.bytes() + offset);
        let whole = (segment(5), segment(5));
        // A record may span all of the last segment.
        for recovered in [lsn(6, 0), lsn(6, 0x28), Lsn(lsn(6, 0).0 - 8192), lsn(4, 9)] {
            let judged = judge_end(recovered, whole, size, |_| Stop::GoesOn);
            assert_eq!(judged, Verdict::Ok, "{recovered}");
        }
        for (recovered, path, stop) in [
            (lsn(6, 0).0 - 64, whole, Stop::Damaged),
            (lsn(6, 0).0 - 64, whole, Stop::Differs(lsn(6, 0))),
            (lsn(5, 1).0, whole, Stop::Damaged),
            (lsn(4, 9).0, whole, Stop::Damaged),
            (lsn(6, 0).0, (segment(5), segment(8)), Stop::GoesOn),
            (lsn(6, 0).0, (None, None), Stop::GoesOn),
        ] {
            let judged = judge_end(Lsn(recovered), path, size, |_| stop);
            assert!(matches!(judged, Verdict::Critical(_)), "{judged:?}");
        }
        let unread = judge_end(lsn(5, 1), whole, size, |_| Stop::Unread("gone".to_owned()));
        assert!(matches!(unread, Verdict::Unknown(_)), "{unread:?}");
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
