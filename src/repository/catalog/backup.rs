//! One base backup as the repository tells it: `{name}_backup_stop_sentinel.json`, written last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SegmentRange, Sentinel, StoredParts, Tests};
use crate::model::{SegmentSize, Timeline, WalSegment};

/// A backup's folder, with or without the sentinel that makes it a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// `base_000000010000000000000003`, with `_D_…` for a delta.
    pub name: String,
    pub timeline: Timeline,
    /// `None`: the push never finished, or see `damage`.
    pub sentinel: Option<Sentinel>,
    /// Why the sentinel that is there cannot be read.
    pub damage: Option<String>,
    /// When it finished, by the server's clock; by S3's where the sentinel does not say. `None` when it did not.
    pub finished_at: Option<Timestamp>,
    /// What is stored of it; `None` where that was not listed.
    pub stored: Option<StoredParts>,
    pub tests: Tests,
}

impl Backup {
    /// The timeline in a backup's name; `None` when it is no backup's name.
    pub fn timeline_of(name: &str) -> Option<Timeline> {
        let digits = Self::segment_of(name)?.get(..8)?;
        u32::from_str_radix(digits, 16)
            .ok()
            .filter(|id| *id > 0)
            .map(Timeline)
    }

    /// Whether its name fits where it starts; one that was taken with another segment size in mind has a wrong name.
    pub fn is_named_after(&self, size: SegmentSize) -> bool {
        self.sentinel.as_ref().is_none_or(|sentinel| {
            let start = WalSegment::holding(self.timeline, sentinel.start_lsn, size);
            Self::segment_of(&self.name) == Some(start.name(size).as_str())
        })
    }

    /// The segments of `size` from its start to its finish; `None` where it did not finish.
    pub fn own_wal(&self, size: SegmentSize) -> Option<SegmentRange> {
        let sentinel = self.sentinel.as_ref()?;
        let (start, finish) = (sentinel.start_lsn.0, sentinel.finish_lsn.0);
        Some(SegmentRange {
            timeline: self.timeline,
            first: start / size.bytes(),
            last: finish.saturating_sub(1).max(start) / size.bytes(),
        })
    }

    /// The name of the segment that the backup starts in.
    pub fn segment_of(name: &str) -> Option<&str> {
        let digits = name.strip_prefix("base_")?.get(..24)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then_some(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &[u8] = include_bytes!(
        "../../../tests/fixtures/walg-3.0.9/repository/basebackups_005/base_000000010000000000000003_backup_stop_sentinel.json"
    );

    #[test]
    fn the_sentinel_that_wal_g_wrote_is_read() {
        let sentinel = Sentinel::parse(FIXTURE).unwrap();
        assert_eq!(sentinel.start_lsn.to_string(), "0/3000028");
        assert_eq!(sentinel.finish_lsn.to_string(), "0/3000120");
        assert_eq!(sentinel.system_identifier, Some(7_710_528_144_203_341_750));
        assert_eq!(sentinel.restored_size(), 33_931_263);
        assert_eq!((&sentinel.delta, sentinel.tablespaces.len()), (&None, 0));
    }

    #[test]
    fn a_delta_and_its_tablespaces_are_read() {
        let json = br#"{"LSN":83886120,"FinishLSN":83886368,"PgVersion":170011,"UncompressedSize":1148951,
            "CompressedSize":223897,"DataCatalogSize":34000000,"DeltaLSN":50331688,
            "DeltaFrom":"base_000000010000000000000003","DeltaFullName":"base_000000010000000000000003","DeltaCount":1,
            "Spec":{"base_prefix":"/d","tablespaces":["16390"],"16390":{"loc":"/srv/ts","link":"pg_tblspc/16390"}}}"#;
        let sentinel = Sentinel::parse(json).unwrap();
        assert_eq!(sentinel.delta.as_ref().map(|delta| delta.count), Some(1));
        assert_eq!(sentinel.tablespaces[0].location, "/srv/ts");
        // A delta alone is small; what it restores is not.
        assert_eq!(sentinel.restored_size(), 34_000_000);
    }

    #[test]
    fn a_cut_sentinel_is_refused() {
        assert!(Sentinel::parse(&FIXTURE[..100]).is_err());
        assert!(Sentinel::parse(b"{}").unwrap_err().contains("LSN"));
    }

    #[test]
    fn a_backup_is_named_after_the_segment_it_starts_in() {
        assert_eq!(
            Backup::timeline_of("base_0000000A0000000000000003_D_000000010000000000000001"),
            Some(Timeline(10))
        );
        for name in [
            "base_",
            "base_00000000000000000000000",
            "xbase_000000010000000000000003",
            "base_00000001é000000000000003",
        ] {
            assert_eq!(Backup::timeline_of(name), None, "{name:?}");
        }
    }
}
