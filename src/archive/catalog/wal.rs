//! The WAL of a repository: which segments are there, and the timelines' histories.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{COMPRESSIONS, Span};
use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline, TimelineHistory, WalSegment};

/// One stored segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes as stored.
    pub size: u64,
    pub last_modified: Timestamp,
}

/// What stands in `wal_005/`.
#[derive(Debug, Clone, Default)]
pub struct Wal {
    pub size: SegmentSize,
    pub segments: BTreeMap<Timeline, BTreeMap<u64, Stored>>,
    /// Each timeline's history, or why it could not be read.
    pub histories: BTreeMap<Timeline, Result<TimelineHistory, String>>,
    /// What precedes this segment, by timeline and number, retention has deleted, but for what permanent backups need.
    pub pruned_before: Option<WalSegment>,
}

impl Wal {
    pub fn get(&self, segment: WalSegment) -> Option<&Stored> {
        self.segments.get(&segment.timeline)?.get(&segment.number)
    }

    pub fn add(&mut self, segment: WalSegment, stored: Stored) {
        self.segments
            .entry(segment.timeline)
            .or_default()
            .insert(segment.number, stored);
    }

    /// The segments of `timeline` from `from` to `to` that are not there; `to` itself is not needed at a segment's start.
    pub fn missing_between(&self, timeline: Timeline, from: Lsn, to: Lsn) -> Vec<Span> {
        let first = WalSegment::holding(timeline, from, self.size).number;
        let last = to.0.saturating_sub(1).max(from.0) / self.size.bytes();
        self.missing_numbers(timeline, first, last)
    }

    pub(super) fn missing_numbers(&self, timeline: Timeline, first: u64, last: u64) -> Vec<Span> {
        let none = BTreeMap::new();
        let stored = self.segments.get(&timeline).unwrap_or(&none);
        let mut missing = Vec::new();
        let mut next = first;
        for number in stored
            .range(first..=last.max(first))
            .map(|(number, _)| *number)
            .filter(|n| *n <= last)
        {
            if number > next {
                missing.push(Span {
                    timeline,
                    first: next,
                    last: number - 1,
                });
            }
            next = number + 1;
        }
        if next <= last {
            missing.push(Span {
                timeline,
                first: next,
                last,
            });
        }
        missing
    }

    /// The timelines of which segments are there.
    pub fn timelines(&self) -> impl Iterator<Item = Timeline> {
        self.segments.keys().copied()
    }

    /// The segments that are there from `first` to `last`, as spans without one missing in between, with their stored bytes.
    pub fn stored_between(&self, timeline: Timeline, first: u64, last: u64) -> Vec<(Span, u64)> {
        let mut spans: Vec<(Span, u64)> = Vec::new();
        if last < first {
            return spans;
        }
        let stored = self.segments.get(&timeline).into_iter();
        for (number, stored) in stored.flat_map(|all| all.range(first..=last)) {
            match spans.last_mut() {
                Some((span, bytes)) if span.last + 1 == *number => {
                    span.last = *number;
                    *bytes += stored.size;
                }
                _ => spans.push((Span::of(timeline, *number, *number), stored.size)),
            }
        }
        spans
    }

    /// Whether retention has deleted what followed a backup that starts there.
    pub fn is_pruned(&self, start: WalSegment) -> bool {
        self.pruned_before.is_some_and(|before| start < before)
    }

    /// The name of the segment that came into the bucket last, and when.
    pub fn last_stored(&self) -> Option<(String, Timestamp)> {
        let timelines = self.segments.iter();
        let all = timelines.flat_map(|(timeline, stored)| {
            let segment =
                |(number, stored): (&u64, &Stored)| (stored.last_modified, *timeline, *number);
            stored.iter().map(segment)
        });
        let (at, timeline, number) = all.max()?;
        Some((WalSegment { timeline, number }.name(self.size), at))
    }

    /// The newest segment of `timeline`.
    pub fn newest(&self, timeline: Timeline) -> Option<WalSegment> {
        let (number, _) = self.segments.get(&timeline)?.last_key_value()?;
        Some(WalSegment {
            timeline,
            number: *number,
        })
    }
}

/// The name of an archived file without its compression's suffix, as PostgreSQL knows it.
pub(super) fn archived_name(object: &str) -> Option<(&str, ArchiveFile)> {
    let name = match object.rsplit_once('.') {
        Some((name, suffix)) if COMPRESSIONS.contains(&suffix) => name,
        _ => object,
    };
    ArchiveFile::of(name).map(|kind| (name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

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
