//! Reading a repository: two listings, the sentinels, the timelines' histories.

use std::io::Read;

use futures_util::{StreamExt, TryStreamExt, stream};
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::wal::{Stored, archived_name};
use super::{Backup, Catalog, Sentinel, Wal};
use crate::archive::ArchiveError;
use crate::model::{ArchiveFile, ParseError, SegmentSize, Timeline, TimelineHistory, WalSegment};
use crate::storage::{Bucket, Cause, Object, Repository, StorageError};

const SENTINEL: &str = "_backup_stop_sentinel.json";
/// Small objects read at once.
const AT_ONCE: usize = 8;

/// Reads what `repository` holds.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn read(bucket: &Bucket, repository: &Repository) -> Result<Catalog, ArchiveError> {
    let wal_prefix = repository.key("wal_005/");
    let (backups, listed) =
        tokio::try_join!(read_backups(bucket, repository), bucket.list(&wal_prefix))?;
    let starts = backups.iter().filter_map(|backup| {
        Some((
            Backup::segment_of(&backup.name)?,
            backup.sentinel.as_ref()?.start_lsn,
        ))
    });
    let size = SegmentSize::infer(starts).unwrap_or_default();
    let wal = read_wal(bucket, repository, size, &listed).await?;
    Ok(Catalog { backups, wal })
}

async fn read_backups(
    bucket: &Bucket,
    repository: &Repository,
) -> Result<Vec<Backup>, StorageError> {
    let prefix = repository.key("basebackups_005/");
    let (folders, objects) = bucket.list_level(&prefix).await?;
    let mut backups: BTreeMap<String, Option<Object>> = BTreeMap::new();
    for folder in folders
        .iter()
        .filter_map(|folder| folder.strip_prefix(&prefix))
    {
        backups.insert(folder.to_owned(), None);
    }
    for object in objects {
        let name = object
            .key
            .strip_prefix(&prefix)
            .and_then(|name| name.strip_suffix(SENTINEL));
        if let Some(name) = name.map(str::to_owned) {
            backups.insert(name, Some(object));
        }
    }
    let named = backups
        .into_iter()
        .filter_map(|(name, object)| Some((Backup::timeline_of(&name)?, name, object)));
    let reads = named.map(|(timeline, name, object)| async move {
        let Some(object) = object else {
            return Ok(Some(Backup {
                name,
                timeline,
                sentinel: None,
                damage: None,
                finished_at: None,
            }));
        };
        let json = match bucket.get(&object.key).await {
            // Retention took it away since the listing.
            Err(error) if error.cause() == Some(&Cause::NoSuchKey) => return Ok(None),
            json => json?,
        };
        let (sentinel, damage) = match Sentinel::parse(&json) {
            Ok(sentinel) => (Some(sentinel), None),
            Err(reason) => (None, Some(reason)),
        };
        let finished_at = sentinel.as_ref().and_then(|sentinel| sentinel.finished_at);
        let finished_at = Some(finished_at.unwrap_or(object.last_modified));
        Ok(Some(Backup {
            name,
            timeline,
            sentinel,
            damage,
            finished_at,
        }))
    });
    // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
    let read: Vec<Option<Backup>> = stream::iter(reads.map(Box::pin))
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

async fn read_wal(
    bucket: &Bucket,
    repository: &Repository,
    size: SegmentSize,
    listed: &[Object],
) -> Result<Wal, StorageError> {
    let mut wal = Wal {
        size,
        ..Wal::default()
    };
    let prefix = repository.key("wal_005/");
    for object in listed {
        let Some((name, kind)) = object.key.strip_prefix(&prefix).and_then(archived_name) else {
            continue;
        };
        match kind {
            ArchiveFile::Segment => {
                if let Ok(segment) = WalSegment::parse(name, size) {
                    wal.add(
                        segment,
                        Stored {
                            size: object.size,
                            last_modified: object.last_modified,
                        },
                    );
                }
            }
            ArchiveFile::TimelineHistory => {
                let timeline = u32::from_str_radix(&name[..8], 16).map(Timeline);
                if let Ok(timeline) = timeline {
                    let stored = bucket.get(&object.key).await?;
                    wal.histories
                        .insert(timeline, parse_stored_history(&object.key, &stored));
                }
            }
            ArchiveFile::Partial | ArchiveFile::BackupHistory => {}
        }
    }
    Ok(wal)
}

/// wal-g compresses histories, walrus does not.
fn parse_stored_history(key: &str, stored: &[u8]) -> Result<TimelineHistory, String> {
    let text = String::from_utf8(decompressed(key, stored)?).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: ParseError| error.to_string())
}

/// The content of the object `key`, by its suffix; held in memory, for files of a segment's size at most.
///
/// # Errors
/// Why it cannot be read: damaged, encrypted, or of a compression that xdb does not know.
pub fn decompressed(key: &str, stored: &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    match key.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("lz4") => FrameDecoder::new(stored)
            .read_to_end(&mut content)
            .map_err(|e| e.to_string())?,
        Some("zst") => StreamingDecoder::new(stored)
            .map_err(|e| e.to_string())?
            .read_to_end(&mut content)
            .map_err(|e| e.to_string())?,
        Some(suffix @ ("lzma" | "br")) => return Err(format!("xdb does not read .{suffix}")),
        _ => return Ok(stored.to_vec()),
    };
    Ok(content)
}

/// The tar parts of `backup` and their sizes as stored.
///
/// # Errors
/// When the bucket cannot be listed.
pub async fn tar_parts(
    bucket: &Bucket,
    repository: &Repository,
    backup: &str,
) -> Result<Vec<Object>, StorageError> {
    bucket
        .list(&repository.key(&format!("basebackups_005/{backup}/tar_partitions/")))
        .await
}

/// The paths, relative to the data directory, that `backup` says it holds, from its `files_metadata.json`.
///
/// # Errors
/// When it cannot be read; it is missing in backups taken with `WALG_WITHOUT_FILES_METADATA`.
pub async fn stored_files(
    bucket: &Bucket,
    repository: &Repository,
    backup: &str,
) -> Result<Vec<String>, ArchiveError> {
    #[derive(Deserialize)]
    struct FilesMetadata {
        #[serde(rename = "Files", default)]
        files: BTreeMap<String, serde::de::IgnoredAny>,
    }
    let json = bucket
        .get(&repository.key(&format!("basebackups_005/{backup}/files_metadata.json")))
        .await?;
    let metadata: FilesMetadata =
        serde_json::from_slice(&json).map_err(|error| ArchiveError::Sentinel {
            backup: backup.to_owned(),
            reason: format!("files_metadata.json: {error}"),
        })?;
    Ok(metadata
        .files
        .into_keys()
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_history_is_read_through_its_compression() {
        let text = b"1\t0/70000A0\tno recovery target specified\n";
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text).unwrap();
        let lz4 = encoder.finish().unwrap();
        let zst = ruzstd::encoding::compress_to_vec(
            &text[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for (key, stored) in [
            ("a/00000002.history", text.to_vec()),
            ("a/00000002.history.lz4", lz4),
            ("a/00000002.history.zst", zst),
        ] {
            let history = parse_stored_history(key, &stored).unwrap();
            assert_eq!(
                history.parent().map(|switch| switch.timeline),
                Some(Timeline(1)),
                "{key}"
            );
        }
        assert!(parse_stored_history("a/00000002.history.zst", text).is_err());
        assert!(
            parse_stored_history("a/00000002.history.br", text)
                .unwrap_err()
                .contains("br")
        );
    }
}
