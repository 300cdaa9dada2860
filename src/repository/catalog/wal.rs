//! The WAL of a repository: which segments are there, and the timelines' histories.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{COMPRESSIONS, End, SegmentRange};
use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline, TimelineHistory, WalSegment};

/// One segment as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes as stored.
    pub size: u64,
    pub last_modified: Timestamp,
}

/// Stored segments of one timeline without one missing in between, both ends included.
///
/// An archive of millions is a handful of these, so what each single segment says is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRun {
    pub first: u64,
    pub last: u64,
    /// As stored, all together.
    pub bytes: u64,
    /// When the newest of them came into the bucket.
    pub last_modified: Timestamp,
}

impl SegmentRun {
    pub fn segments(&self) -> u64 {
        self.last - self.first + 1
    }

    fn holds(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Stored bytes of those from `first` to `last`, which reach into it: of a part, its share.
    fn bytes_of(&self, first: u64, last: u64) -> u64 {
        let part = last.min(self.last) - first.max(self.first) + 1;
        let bytes = u128::from(self.bytes) * u128::from(part) / u128::from(self.segments());
        u64::try_from(bytes).unwrap_or(self.bytes)
    }

    /// Takes in what follows directly.
    fn join(&mut self, next: &Self) {
        self.last = next.last;
        self.bytes += next.bytes;
        self.last_modified = self.last_modified.max(next.last_modified);
    }
}

/// What stands in `wal_005/`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Wal {
    pub size: SegmentSize,
    /// In order, and apart: where one ends and the next begins, segments are missing.
    pub runs: BTreeMap<Timeline, Vec<SegmentRun>>,
    /// Segments that are stored with too few bytes to be whole, and so count as missing: by name, with their bytes.
    #[serde(default)]
    pub cut: BTreeMap<String, u64>,
    /// Each timeline's history, or why it could not be read.
    pub histories: BTreeMap<Timeline, Result<TimelineHistory, String>>,
    /// The system identifier in the WAL of a timeline that no backup was taken on; `None` where the WAL cannot be read.
    #[serde(default)]
    pub owners: BTreeMap<Timeline, Option<u64>>,
    /// Timelines that are not of the backups' cluster, each with the reason; their histories are not in `histories`.
    #[serde(skip)]
    pub foreign: BTreeMap<Timeline, String>,
    /// How far it is known to have come; no listing tells that.
    #[serde(skip)]
    pub end: End,
    /// Segments that a restore test found damaged, and so count as missing: by name, with the test.
    #[serde(skip)]
    pub damaged: BTreeMap<String, String>,
    /// What precedes this segment, by timeline and number, retention has deleted, but for what permanent backups need.
    #[serde(skip)]
    pub pruned_before: Option<WalSegment>,
}

impl Wal {
    /// The run that holds `segment`; `None` when it is not stored.
    pub fn get(&self, segment: WalSegment) -> Option<&SegmentRun> {
        let runs = self.runs(segment.timeline);
        let after = runs.partition_point(|run| run.first <= segment.number);
        runs[..after].last().filter(|run| run.holds(segment.number))
    }

    /// Takes in one segment; one that is there already stays as it is.
    pub fn add(&mut self, segment: WalSegment, stored: Stored) {
        let number = segment.number;
        let runs = self.runs.entry(segment.timeline).or_default();
        let at = runs.partition_point(|run| run.first <= number);
        if at > 0 && runs[at - 1].holds(number) {
            return;
        }
        let added = SegmentRun {
            first: number,
            last: number,
            bytes: stored.size,
            last_modified: stored.last_modified,
        };
        let follows = at > 0 && runs[at - 1].last + 1 == number;
        if follows {
            runs[at - 1].join(&added);
        } else {
            runs.insert(at, added);
        }
        let joined = if follows { at - 1 } else { at };
        if runs
            .get(joined + 1)
            .is_some_and(|next| next.first == number + 1)
        {
            let next = runs.remove(joined + 1);
            runs[joined].join(&next);
        }
    }

    /// Counts `segment`, which was stored at `stored_at`, as missing: its content is damaged, for this `reason`.
    pub fn set_damaged(&mut self, segment: WalSegment, stored_at: Timestamp, reason: String) {
        self.damaged.insert(segment.name(self.size), reason);
        let runs = self.runs.entry(segment.timeline).or_default();
        let Some(at) = runs.iter().position(|run| run.holds(segment.number)) else {
            return;
        };
        let run = runs.remove(at);
        let part = |first, last, last_modified| {
            (first <= last).then(|| SegmentRun {
                first,
                last,
                bytes: run.bytes_of(first, last),
                last_modified,
            })
        };
        let before = segment.number.checked_sub(1);
        // Segments are stored in order, so what precedes it was not stored later.
        let by_then = run.last_modified.min(stored_at);
        let before = before.and_then(|last| part(run.first, last, by_then));
        let after = part(segment.number + 1, run.last, run.last_modified);
        runs.splice(at..at, [before, after].into_iter().flatten());
    }

    /// Why the segment `name` is damaged, though it is stored; `None` where nothing is known against it.
    pub fn why_damaged(&self, name: &str) -> Option<String> {
        let reason = self.damaged.get(name)?;
        Some(format!("{name} is stored and damaged, {reason}"))
    }

    /// Why a recovery cannot pass `gap`, which begins at the first segment that it cannot have.
    pub fn why_not_past(&self, gap: SegmentRange) -> String {
        match self.why_damaged(&gap.ends(self.size).0) {
            Some(damaged) => format!("WAL is damaged: {damaged}"),
            None => format!("WAL is missing: {}", gap.named(self.size)),
        }
    }

    /// The segments of `timeline` from `from` to `to` that are not there; `to` itself is not needed at a segment's start.
    pub fn missing_between(&self, timeline: Timeline, from: Lsn, to: Lsn) -> Vec<SegmentRange> {
        let first = WalSegment::holding(timeline, from, self.size).number;
        let last = to.0.saturating_sub(1).max(from.0) / self.size.bytes();
        self.missing_numbers(timeline, first, last)
    }

    pub(super) fn missing_numbers(
        &self,
        timeline: Timeline,
        first: u64,
        last: u64,
    ) -> Vec<SegmentRange> {
        let mut missing = Vec::new();
        let mut next = first;
        for run in self.runs_within(timeline, first, last) {
            if run.first > next {
                missing.push(SegmentRange::of(timeline, next, run.first - 1));
            }
            next = run.last + 1;
        }
        if next <= last {
            missing.push(SegmentRange::of(timeline, next, last));
        }
        missing
    }

    /// The segments of `timeline` from `first` to `last` that are there: how many, their stored bytes, and the last of them.
    pub(super) fn stored_numbers(&self, timeline: Timeline, first: u64, last: u64) -> InSpan {
        let mut found = InSpan::default();
        for (span, bytes) in self.stored_between(timeline, first, last) {
            found.segments += span.segments();
            found.bytes += bytes;
            found.last = Some(span.last);
        }
        found
    }

    /// The timelines of which segments are there.
    pub fn timelines(&self) -> impl Iterator<Item = Timeline> {
        self.runs.keys().copied()
    }

    /// The segments that are there from `first` to `last`, as spans without one missing in between, with their stored bytes.
    pub fn stored_between(
        &self,
        timeline: Timeline,
        first: u64,
        last: u64,
    ) -> Vec<(SegmentRange, u64)> {
        let runs = self.runs_within(timeline, first, last).iter();
        let part = |run: &SegmentRun| {
            let span = SegmentRange::of(timeline, run.first.max(first), run.last.min(last));
            (span, run.bytes_of(first, last))
        };
        runs.map(part).collect()
    }

    /// Whether retention has deleted what followed a backup that starts there.
    pub fn is_pruned(&self, start: WalSegment) -> bool {
        self.pruned_before.is_some_and(|before| start < before)
    }

    /// The name of the segment that came into the bucket last, and when.
    pub fn last_stored(&self) -> Option<(String, Timestamp)> {
        let runs = self.runs.iter();
        let all = runs.flat_map(|(timeline, runs)| runs.iter().map(|run| (*timeline, run)));
        // Of a run the last came last, but for what is pushed side by side.
        let (timeline, run) = all.max_by_key(|(timeline, run)| (run.last_modified, *timeline))?;
        let number = run.last;
        let name = WalSegment { timeline, number }.name(self.size);
        Some((name, run.last_modified))
    }

    /// The newest segment of `timeline`.
    pub fn newest(&self, timeline: Timeline) -> Option<WalSegment> {
        let number = self.runs(timeline).last()?.last;
        Some(WalSegment { timeline, number })
    }

    /// The last segment of `timeline` that is stored, damaged or not, or was.
    pub(super) fn last_known(&self, timeline: Timeline) -> Option<u64> {
        let damaged = self.damaged.keys().rev();
        let damaged = damaged.filter_map(|name| WalSegment::parse(name, self.size).ok());
        let known = [self.newest(timeline), self.mark()].into_iter().flatten();
        let known = known.chain(damaged);
        let known = known.filter(|segment| segment.timeline == timeline);
        known.map(|segment| segment.number).max()
    }

    pub(super) fn mark(&self) -> Option<WalSegment> {
        match self.end {
            End::Marked(mark) => Some(mark),
            End::Unverified(_) => None,
        }
    }

    fn runs(&self, timeline: Timeline) -> &[SegmentRun] {
        self.runs.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// The runs of `timeline` that reach into the segments from `first` to `last`.
    fn runs_within(&self, timeline: Timeline, first: u64, last: u64) -> &[SegmentRun] {
        let runs = self.runs(timeline);
        let begin = runs.partition_point(|run| run.last < first);
        let end = runs.partition_point(|run| run.first <= last);
        &runs[begin..end.max(begin)]
    }
}

/// What is stored of a span.
#[derive(Debug, Default)]
pub(super) struct InSpan {
    pub segments: u64,
    pub bytes: u64,
    pub last: Option<u64>,
}

/// The least that a file of `bytes` bytes takes as `object`, by its compression: a smaller one is cut, whatever is in it.
///
/// LZ4 takes at least a byte for each 255 that it repeats. A block of Zstandard takes at least four and holds 128 KiB at most.
/// Encryption adds to that.
pub(crate) fn least_stored(object: &str, bytes: u64) -> u64 {
    let least = match object.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("lz4") => bytes / 255,
        Some("zst") => bytes / (128 << 10) * 4,
        Some("lzma" | "br") => 1,
        _ => bytes,
    };
    least.max(1)
}

/// The name of an archived file without its compression's suffix, as PostgreSQL knows it.
pub(crate) fn archived_name(object: &str) -> Option<(&str, ArchiveFile)> {
    let name = match object.rsplit_once('.') {
        Some((name, suffix)) if COMPRESSIONS.contains(&suffix) => name,
        _ => object,
    };
    ArchiveFile::of(name).map(|kind| (name, kind))
}

/// The segment that `object`, a name in `wal_005/`, is the archived copy of; `None` for any other file.
pub(crate) fn archived_segment(object: &str, size: SegmentSize) -> Option<WalSegment> {
    let (name, kind) = archived_name(object)?;
    let whole = kind == ArchiveFile::Segment;
    whole.then(|| WalSegment::parse(name, size).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wal(numbers: &[u64]) -> Wal {
        let mut wal = Wal::default();
        let timeline = Timeline(1);
        for number in numbers {
            let last_modified = Timestamp::from_second(i64::try_from(*number).unwrap()).unwrap();
            let stored = Stored {
                size: 100 + number,
                last_modified,
            };
            let number = *number;
            wal.add(WalSegment { timeline, number }, stored);
        }
        wal
    }

    proptest! {
        #[test]
        fn runs_tell_what_a_list_of_each_segment_would(
            numbers in proptest::collection::vec(0_u64..40, 0..60),
            first in 0_u64..40,
            length in 0_u64..20,
        ) {
            let (wal, last, timeline) = (wal(&numbers), first + length, Timeline(1));
            let there = |number: &u64| numbers.contains(number);
            for number in 0..40 {
                prop_assert_eq!(wal.get(WalSegment { timeline, number }).is_some(), there(&number));
            }
            let missing = wal.missing_numbers(timeline, first, last);
            let missing: Vec<u64> = missing.iter().flat_map(|span| span.first..=span.last).collect();
            let expected: Vec<u64> = (first..=last).filter(|number| !there(number)).collect();
            prop_assert_eq!(missing, expected);
            let stored = wal.stored_numbers(timeline, first, last);
            let expected: Vec<u64> = (first..=last).filter(there).collect();
            prop_assert_eq!((stored.segments, stored.last), (expected.len() as u64, expected.last().copied()));
            let all = wal.stored_numbers(timeline, 0, 40).bytes;
            prop_assert_eq!(all, (0..40).filter(there).map(|number| 100 + number).sum::<u64>());
            let runs = wal.runs.get(&timeline).map_or(&[][..], Vec::as_slice);
            prop_assert!(runs.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            let newest = numbers.iter().max().map(|number| WalSegment { timeline, number: *number });
            prop_assert_eq!(wal.newest(timeline), newest);
            let last = wal.last_stored().map(|(name, _)| name);
            prop_assert_eq!(last, newest.map(|newest| newest.name(wal.size)));
        }
    }

    #[test]
    fn a_damaged_segment_splits_its_run_and_stays_known() {
        let timeline = Timeline(1);
        let at = |second| Timestamp::from_second(second).unwrap();
        for (numbers, number, parts) in [
            (&[3, 4, 5][..], 4, &[(3, 3, 4), (5, 5, 5)][..]),
            (&[3, 4, 5], 3, &[(4, 5, 5)]),
            (&[3, 4, 5], 5, &[(3, 4, 5)]),
            (&[0, 1], 0, &[(1, 1, 1)]),
            (&[7], 7, &[]),
        ] {
            let mut wal = wal(numbers);
            let segment = WalSegment { timeline, number };
            let stored_at = at(i64::try_from(number).unwrap());
            wal.set_damaged(segment, stored_at, "by a test".to_owned());
            let runs = wal.runs[&timeline].iter();
            let runs: Vec<_> = runs
                .map(|run| (run.first, run.last, run.last_modified.as_second()))
                .collect();
            assert_eq!(runs, parts, "{number} of {numbers:?}");
            assert!(wal.get(segment).is_none());
            assert_eq!(wal.last_known(timeline), numbers.last().copied());
            let gap = SegmentRange::of(timeline, number, number + 1);
            assert!(wal.why_not_past(gap).ends_with("damaged, by a test"));
            let later = SegmentRange::of(timeline, number + 1, number + 1);
            assert!(wal.why_not_past(later).starts_with("WAL is missing"));
        }
    }

    #[test]
    fn what_is_too_small_for_its_compression_is_cut() {
        let segment = 16 << 20;
        for (object, bytes, least) in [
            ("000000010000000000000003.lz4", segment, 65_793),
            ("000000010000000000000003.lz4", 1 << 20, 4_112),
            ("000000010000000000000003.zst", segment, 512),
            ("000000010000000000000003.br", segment, 1),
            ("000000010000000000000003.lzma", segment, 1),
            ("000000010000000000000003", segment, segment),
            ("000000010000000000000003.partial", segment, segment),
            ("00000002.history", 41, 41),
            ("00000002.history.lz4", 41, 1),
            ("00000002.history.zst", 0, 1),
        ] {
            assert_eq!(least_stored(object, bytes), least, "{object} {bytes}");
        }
        // The smallest that wal-g 3.0.9 and walrus 0.4.1 stored of a segment with next to nothing in it.
        for (object, stored) in [("a.lz4", 66_129), ("a.zst", 1_974)] {
            assert!(least_stored(object, segment) <= stored, "{object}");
        }
    }

    #[test]
    fn names_lose_their_compression_only() {
        for (object, name) in [
            (
                "000000010000000000000003.zst",
                Some("000000010000000000000003"),
            ),
            ("000000010000000000000003", Some("000000010000000000000003")),
            ("00000002.history", Some("00000002.history")),
            ("00000002.history.lz4", Some("00000002.history")),
            (
                "000000010000000000000003.00000028.backup.zst",
                Some("000000010000000000000003.00000028.backup"),
            ),
            ("000000010000000000000003.gz", None),
        ] {
            assert_eq!(
                archived_name(object).map(|(name, _)| name),
                name,
                "{object}"
            );
        }
    }
}
