//! A row of segments.

use crate::model::{SegmentSize, Timeline, WalSegment};

/// Segments of one timeline, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRange {
    pub timeline: Timeline,
    pub first: u64,
    pub last: u64,
}

impl SegmentRange {
    pub(crate) fn of(timeline: Timeline, first: u64, last: u64) -> Self {
        Self {
            timeline,
            first,
            last,
        }
    }

    pub(crate) fn segments(self) -> u64 {
        self.last - self.first + 1
    }

    /// The names of the first and the last segment.
    pub fn ends(self, size: SegmentSize) -> (String, String) {
        let name = |number| {
            let timeline = self.timeline;
            WalSegment { timeline, number }.name(size)
        };
        (name(self.first), name(self.last))
    }

    /// `0000…03`, or `0000…03 to 0000…05`.
    pub fn named(self, size: SegmentSize) -> String {
        let (first, last) = self.ends(size);
        if self.first == self.last {
            first
        } else {
            format!("{first} to {last}")
        }
    }
}
