//! `{name}_backup_stop_sentinel.json`, which WAL-G writes last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::model::Lsn;

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
        let written: SentinelJson =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let delta = match (written.delta_from, written.delta_full_name) {
            (Some(from), full) => Some(Delta {
                full: full.unwrap_or_else(|| from.clone()),
                from,
                count: written.delta_count.unwrap_or(1),
            }),
            (None, _) => None,
        };
        let tablespaces = written
            .spec
            .map(TablespaceSpec::tablespaces)
            .unwrap_or_default();
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
struct SentinelJson {
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
    spec: Option<TablespaceSpec>,
    #[serde(default)]
    version: u32,
    #[serde(default)]
    files_metadata_disabled: bool,
}

/// `{"base_prefix": …, "tablespaces": ["16384"], "16384": {"loc": "/srv/a", "link": "pg_tblspc/16384"}}`
#[derive(Deserialize)]
struct TablespaceSpec {
    tablespaces: Option<Vec<String>>,
    /// What stands beside them, by its key.
    #[serde(flatten)]
    entries: BTreeMap<String, SpecEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecEntry {
    Tablespace { loc: String },
    Other(IgnoredAny),
}

impl TablespaceSpec {
    fn tablespaces(self) -> Vec<Tablespace> {
        let oids = self.tablespaces.unwrap_or_default().into_iter();
        oids.map(|oid| {
            let location = match self.entries.get(&oid) {
                Some(SpecEntry::Tablespace { loc }) => loc.clone(),
                Some(SpecEntry::Other(_)) | None => "unknown".to_owned(),
            };
            Tablespace { oid, location }
        })
        .collect()
    }
}
