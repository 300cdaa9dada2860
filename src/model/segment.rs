//! WAL segments and the names that PostgreSQL archives.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lsn, ParseError, Timeline};

const MIB: u64 = 1 << 20;

/// The size of a WAL segment: a power of two from 1 MiB to 1 GiB, chosen by `initdb --wal-segsize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

impl TryFrom<u64> for SegmentSize {
    type Error = ParseError;

    fn try_from(bytes: u64) -> Result<Self, ParseError> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self(16 * MIB)
    }
}

impl SegmentSize {
    /// # Errors
    /// When `bytes` is no size that `initdb` accepts.
    pub fn new(bytes: u64) -> Result<Self, ParseError> {
        let valid = bytes.is_power_of_two() && (MIB..=1024 * MIB).contains(&bytes);
        let expected = "a WAL segment size (a power of two from 1 MiB to 1 GiB)";
        valid
            .then_some(Self(bytes))
            .ok_or_else(|| ParseError::new(&bytes.to_string(), expected))
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// In MiB, the unit of the WAL-G programs.
    pub fn mebibytes(self) -> u64 {
        self.0 / MIB
    }

    /// Segments in one 4 GiB "log file", the middle part of a segment's name.
    fn per_log(self) -> u64 {
        (1 << 32) / self.0
    }

    /// The segment size that explains every `(segment name, LSN inside it)`; 16 MiB when several do.
    ///
    /// A bucket does not store the size, but each backup is named after the segment of its start LSN.
    pub fn infer<'a>(starts: impl Iterator<Item = (&'a str, Lsn)> + Clone) -> Option<Self> {
        let explains = |size: Self| {
            starts.clone().all(|(name, lsn)| {
                WalSegment::parse(name, size).is_ok_and(|segment| segment.contains(lsn, size))
            })
        };
        let others = (20..=30).map(|power| Self(1 << power));
        std::iter::once(Self::default())
            .chain(others)
            .find(|size| explains(*size))
    }
}

/// One WAL segment: `number` counts segments from LSN 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegment {
    pub timeline: Timeline,
    pub number: u64,
}

impl WalSegment {
    /// Reads the 24 upper-case hexadecimal digits of a segment's name.
    ///
    /// # Errors
    /// When `name` is not a segment's name at this segment size.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, ParseError> {
        let bad = || ParseError::new(name, "the name of a WAL segment (24 upper-case hex digits)");
        if name.len() != 24 || !is_upper_hex(name) {
            return Err(bad());
        }
        let part = |range| u64::from_str_radix(&name[range], 16).map_err(|_| bad());
        let (timeline, log, segment) = (part(0..8)?, part(8..16)?, part(16..24)?);
        if timeline == 0 || segment >= size.per_log() {
            return Err(bad());
        }
        let timeline = Timeline(u32::try_from(timeline).map_err(|_| bad())?);
        Ok(Self {
            timeline,
            number: log * size.per_log() + segment,
        })
    }

    /// The segment that holds the byte at `lsn`.
    pub fn holding(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self {
            timeline,
            number: lsn.0 / size.0,
        }
    }

    pub fn name(self, size: SegmentSize) -> String {
        let (log, segment) = (self.number / size.per_log(), self.number % size.per_log());
        format!("{:08X}{log:08X}{segment:08X}", self.timeline.0)
    }

    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number * size.0)
    }

    pub fn end(self, size: SegmentSize) -> Lsn {
        Lsn((self.number + 1) * size.0)
    }

    fn contains(self, lsn: Lsn, size: SegmentSize) -> bool {
        lsn.0 / size.0 == self.number
    }
}

/// What PostgreSQL hands to `archive_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFile {
    Segment,
    Partial,
    BackupHistory,
    TimelineHistory,
}

impl ArchiveFile {
    /// The kind of an archived file, from its name (`xlog_internal.h`: `IsXLogFileName` and similar macros).
    pub fn of(name: &str) -> Option<Self> {
        if name.len() == 24 && is_upper_hex(name) {
            return Some(Self::Segment);
        }
        let (stem, rest) = name.split_once('.')?;
        if !is_upper_hex(stem) {
            return None;
        }
        match (stem.len(), rest) {
            (8, "history") => Some(Self::TimelineHistory),
            (24, "partial") => Some(Self::Partial),
            (24, _) => {
                let offset = rest.strip_suffix(".backup")?;
                (offset.len() == 8 && is_upper_hex(offset)).then_some(Self::BackupHistory)
            }
            _ => None,
        }
    }
}

impl fmt::Display for ArchiveFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "WAL segment",
            Self::Partial => "partial WAL segment",
            Self::BackupHistory => "backup history file",
            Self::TimelineHistory => "timeline history file",
        })
    }
}

fn is_upper_hex(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::new(mib * MIB).unwrap()
    }

    #[test]
    fn a_segment_reads_back_as_it_is_named_at_every_size() {
        for (name, mib, number) in [
            ("000000010000000000000003", 16, 3),
            ("0000000200000001000000FF", 16, 0x1FF),
            ("000000020000000100000FFF", 1, 0x1FFF),
            ("000000020000000100000003", 1024, 7),
        ] {
            let segment = WalSegment::parse(name, size(mib)).unwrap();
            assert_eq!(
                (segment.number, segment.name(size(mib)).as_str()),
                (number, name)
            );
        }
        assert!(WalSegment::parse("000000010000000000000100", size(16)).is_err());
        assert!(WalSegment::parse("000000000000000000000001", size(16)).is_err());
    }

    #[test]
    fn an_lsn_lies_in_the_segment_that_postgresql_says() {
        let segment = WalSegment::holding(Timeline(1), Lsn(50_331_688), size(16));
        assert_eq!(segment.name(size(16)), "000000010000000000000003");
        assert_eq!(
            (segment.start(size(16)), segment.end(size(16))),
            (Lsn(0x300_0000), Lsn(0x400_0000))
        );
    }

    #[test]
    fn the_segment_size_follows_from_where_backups_started() {
        let infer = |starts: &[(&'static str, u64)]| {
            SegmentSize::infer(starts.iter().map(|(name, lsn)| (*name, Lsn(*lsn))))
                .map(SegmentSize::bytes)
        };
        assert_eq!(
            infer(&[("000000010000000000000003", 0x300_0028)]),
            Some(16 * MIB)
        );
        assert_eq!(
            infer(&[("000000010000000000000003", 0xC00_0028)]),
            Some(64 * MIB)
        );
        assert_eq!(infer(&[]), Some(16 * MIB));
        assert_eq!(infer(&[("000000010000000000000003", 0x28)]), None);
    }

    #[test]
    fn archived_files_are_told_apart_by_name() {
        for (name, kind) in [
            ("000000010000000000000003", Some(ArchiveFile::Segment)),
            (
                "000000010000000000000003.partial",
                Some(ArchiveFile::Partial),
            ),
            (
                "000000010000000000000003.00000028.backup",
                Some(ArchiveFile::BackupHistory),
            ),
            ("00000002.history", Some(ArchiveFile::TimelineHistory)),
            ("00000001000000000000000a", None),
            ("000000010000000000000003.28.backup", None),
            ("000000010000000000000003.lz4", None),
            ("postgresql.conf", None),
            ("0000000é.history", None),
            ("", None),
        ] {
            assert_eq!(ArchiveFile::of(name), kind, "{name:?}");
        }
    }
}
