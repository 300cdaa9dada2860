//! Reading a repository: all of it, and what single objects of it hold.

use std::collections::BTreeMap;
use std::io::Read;

use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;
use serde::Deserialize;

use crate::model::{ParseError, TimelineHistory};
use crate::repository::wal_header::{self, Header};
use crate::repository::{Repository, RepositoryError};
use crate::storage::{Bucket, Object, StorageError};

/// Bytes of a timeline's history: PostgreSQL's have a line a promotion.
pub(crate) const HISTORY_LIMIT: u64 = 1 << 20;
/// Of the largest segment that PostgreSQL knows.
const SEGMENT_LIMIT: u64 = 1 << 30;

/// Why a history is none, whatever its compression: an upload that stored nothing.
pub(super) const EMPTY_HISTORY: &str = "it names no timeline that it came from: delete the object, and store the file again with `xdb wal-push` where pg_wal holds it";

/// wal-g compresses histories, walrus does not.
///
/// # Errors
/// Why it cannot be unpacked, or is no history.
pub(crate) fn parse_stored_history(key: &str, stored: &[u8]) -> Result<TimelineHistory, String> {
    if stored.is_empty() {
        return Err(EMPTY_HISTORY.to_owned());
    }
    let content = decompressed_within(key, stored, HISTORY_LIMIT)?;
    let text = String::from_utf8(content).map_err(|error| error.to_string())?;
    let history: TimelineHistory = text
        .parse()
        .map_err(|error: ParseError| error.to_string())?;
    // PostgreSQL writes a line for each ancestor, and every timeline that has a history has one.
    match history.parent() {
        Some(_) => Ok(history),
        None => Err(EMPTY_HISTORY.to_owned()),
    }
}

/// The content of the object `key`, by its suffix; held in memory, for files of a segment's size at most.
///
/// # Errors
/// Why it cannot be read: damaged, encrypted, or of a compression that xdb does not know.
pub(crate) fn decompressed(key: &str, stored: &[u8]) -> Result<Vec<u8>, String> {
    decompressed_within(key, stored, SEGMENT_LIMIT)
}

fn decompressed_within(key: &str, stored: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let unpacked = unpacker(key, stored)?.take(most + 1);
    let read = { unpacked }.read_to_end(&mut content);
    read.map_err(|error| error.to_string())?;
    if content.len() as u64 > most {
        return Err(format!("it unpacks to more than {most} bytes"));
    }
    Ok(content)
}

/// How much of a stored segment is read before the first attempt at its first page.
const FIRST_ATTEMPT: usize = 128 << 10;
/// More than the largest compressed block, which is unpacked as a whole: who shows no header until then has none.
const LAST_ATTEMPT: usize = 16 << 20;

/// The header of the segment that is stored as `object`; the inner error says why it cannot be read.
///
/// Only as much is read as holds the first page.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn stored_header(
    bucket: &Bucket,
    object: &Object,
) -> Result<Result<Header, String>, StorageError> {
    let mut body = bucket.read(&object.key).await?;
    let (mut stored, mut enough) = (Vec::new(), FIRST_ATTEMPT);
    while let Some(bytes) = body.next().await? {
        stored.extend_from_slice(&bytes);
        if stored.len() >= enough {
            if let Ok(header) = header_of(&object.key, &stored) {
                return Ok(Ok(header));
            }
            if stored.len() >= LAST_ATTEMPT {
                break;
            }
            enough = (stored.len() * 2).min(LAST_ATTEMPT);
        }
    }
    Ok(header_of(&object.key, &stored))
}

fn header_of(key: &str, stored: &[u8]) -> Result<Header, String> {
    let mut page = [0; wal_header::HEADER];
    let read = unpacker(key, stored)?.read_exact(&mut page);
    read.map_err(|error| error.to_string())?;
    wal_header::parse(&page).ok_or_else(|| "it begins with no WAL page header".to_owned())
}

/// What `stored` of the object `key` holds, by its suffix.
///
/// # Errors
/// When it is damaged at its begin, or of a compression that xdb does not know.
pub(super) fn unpacker<'a>(
    key: &str,
    stored: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>, String> {
    Ok(match key.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("lz4") => Box::new(FrameDecoder::new(stored)),
        Some("zst") => Box::new(StreamingDecoder::new(stored).map_err(|e| e.to_string())?),
        Some(suffix @ ("lzma" | "br")) => return Err(format!("xdb does not read .{suffix}")),
        _ => Box::new(stored),
    })
}

/// The tar parts of `backup` and their sizes as stored.
///
/// # Errors
/// When the bucket cannot be listed.
pub(crate) async fn tar_parts(
    repository: &Repository,
    backup: &str,
) -> Result<Vec<Object>, StorageError> {
    repository
        .bucket
        .list(&repository.key(&format!("basebackups_005/{backup}/tar_partitions/")))
        .await
}

/// The paths, relative to the data directory, that `backup` says it holds, from its `files_metadata.json`.
///
/// # Errors
/// When it cannot be read; it is missing in backups taken with `WALG_WITHOUT_FILES_METADATA`.
pub(crate) async fn stored_files(
    repository: &Repository,
    backup: &str,
) -> Result<Vec<String>, RepositoryError> {
    #[derive(Deserialize)]
    struct FilesMetadata {
        #[serde(rename = "Files", default)]
        files: BTreeMap<String, serde::de::IgnoredAny>,
    }
    let json = repository
        .bucket
        .get(&repository.key(&format!("basebackups_005/{backup}/files_metadata.json")))
        .await?;
    let metadata: FilesMetadata =
        serde_json::from_slice(&json).map_err(|error| RepositoryError::Sentinel {
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
    use std::io::Write;

    use super::*;
    use crate::model::Timeline;

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
        for (key, nothing) in [
            ("a/00000002.history", &b""[..]),
            ("a/00000002.history", b"# x\n"),
            ("a/00000002.history.zst", b""),
            ("a/00000002.history.br", b""),
        ] {
            let reason = parse_stored_history(key, nothing).unwrap_err();
            assert_eq!(reason, EMPTY_HISTORY, "{key} {nothing:?}");
        }
        assert!(
            parse_stored_history("a/00000002.history.br", text)
                .unwrap_err()
                .contains("br")
        );
    }

    #[test]
    fn a_history_that_unpacks_to_very_much_is_refused() {
        let zeros = vec![b'\n'; 4 << 20];
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(&zeros).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 1 << 17, "{}", bomb.len());
        let refused = parse_stored_history("a/00000002.history.lz4", &bomb).unwrap_err();
        assert!(refused.contains("more than"), "{refused}");
        let content = decompressed("a/000000010000000000000001.lz4", &bomb);
        assert_eq!(content.map(|it| it.len()), Ok(4 << 20));
    }
}
