//! One base backup as the repository tells it: `{name}_backup_stop_sentinel.json`, written last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Span, StoredParts, Tested};
use crate::model::{Lsn, SegmentSize, Timeline, WalSegment};

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

/// What restore tests found of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// The newest that counts, and the key of its proof.
    pub newest: Option<Tested>,
    pub key: Option<String>,
    /// The keys of newer proofs, none of which counts.
    pub passed_over: Vec<String>,
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
    pub fn own_wal(&self, size: SegmentSize) -> Option<Span> {
        let sentinel = self.sentinel.as_ref()?;
        let (start, finish) = (sentinel.start_lsn.0, sentinel.finish_lsn.0);
        Some(Span {
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

/// What a backup says of itself once it is finished. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinel {
    pub start_lsn: Lsn,
    pub finish_lsn: Lsn,
    /// `server_version_num`, such as 170011.
    pub pg_version: u32,
    /// Older releases did not write it.
    pub system_identifier: Option<u64>,
    /// What this backup alone holds, as tar and as stored.
    pub uncompressed_size: u64,
    pub compressed_size: u64,
    /// The whole data directory at that time, also for a delta; 0 where it was not written.
    pub data_size: u64,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub hostname: String,
    pub permanent: bool,
    pub delta: Option<Delta>,
    pub tablespaces: Vec<Tablespace>,
    /// wal-g restores it only with its `files_metadata.json`: releases before version 2 of the sentinel wrote none.
    pub needs_files_metadata: bool,
    /// A release that keeps permanent marks in `metadata.json` wrote it.
    pub has_metadata: bool,
}

/// What a delta builds on (`DeltaFrom`, `DeltaFullName`, `DeltaCount`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    pub from: String,
    pub full: String,
    pub count: u32,
}

/// A tablespace and where it stood on the server that was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: String,
    pub location: String,
}

impl Sentinel {
    /// Reads a sentinel (wal-g's `BackupSentinelDtoV2`; walrus writes the same).
    ///
    /// # Errors
    /// Says what is missing or malformed.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let delta = match (written.delta_from, written.delta_full_name) {
            (Some(from), full) => Some(Delta {
                full: full.unwrap_or_else(|| from.clone()),
                from,
                count: written.delta_count.unwrap_or(1),
            }),
            (None, _) => None,
        };
        let tablespaces = written.spec.as_ref().map(tablespaces).unwrap_or_default();
        Ok(Self {
            start_lsn: Lsn(written.lsn.ok_or("it has no LSN")?),
            finish_lsn: Lsn(written.finish_lsn.ok_or("it has no FinishLSN")?),
            pg_version: written.pg_version,
            system_identifier: written.system_identifier,
            uncompressed_size: written.uncompressed_size,
            compressed_size: written.compressed_size,
            data_size: written.data_catalog_size,
            started_at: written.start_time,
            finished_at: written.finish_time,
            hostname: written.hostname,
            permanent: written.is_permanent,
            delta,
            tablespaces,
            needs_files_metadata: written.version >= 2 && !written.files_metadata_disabled,
            has_metadata: written.version >= 2,
        })
    }

    /// Bytes that a restore of this backup needs on disk, before any WAL.
    pub fn restored_size(&self) -> u64 {
        self.data_size.max(self.uncompressed_size)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    #[serde(rename = "LSN")]
    lsn: Option<u64>,
    #[serde(rename = "FinishLSN")]
    finish_lsn: Option<u64>,
    #[serde(default)]
    pg_version: u32,
    system_identifier: Option<u64>,
    #[serde(default)]
    uncompressed_size: u64,
    #[serde(default)]
    compressed_size: u64,
    #[serde(default)]
    data_catalog_size: u64,
    start_time: Option<Timestamp>,
    finish_time: Option<Timestamp>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    is_permanent: bool,
    delta_from: Option<String>,
    delta_full_name: Option<String>,
    delta_count: Option<u32>,
    spec: Option<serde_json::Value>,
    #[serde(default)]
    version: u32,
    #[serde(default)]
    files_metadata_disabled: bool,
}

/// `{"base_prefix": …, "tablespaces": ["16384"], "16384": {"loc": "/srv/a", "link": "pg_tblspc/16384"}}`
fn tablespaces(spec: &serde_json::Value) -> Vec<Tablespace> {
    let names = spec
        .get("tablespaces")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten();
    names
        .filter_map(serde_json::Value::as_str)
        .map(|oid| {
            let location = spec
                .get(oid)
                .and_then(|entry| entry.get("loc"))
                .and_then(serde_json::Value::as_str);
            Tablespace {
                oid: oid.to_owned(),
                location: location.unwrap_or("unknown").to_owned(),
            }
        })
        .collect()
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
