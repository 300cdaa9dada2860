//! How large the WAL segments of a repository are: as a segment's own header says, else as the backups' names do.

use std::io::Read;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::corrupt::{Arriving, streamed};
use super::wal::archived_name;
use super::{Backup, COMPRESSIONS, unpacker};
use crate::model::{ArchiveFile, SegmentSize};
use crate::repository::Repository;
use crate::repository::segment_header::{LONG_HEADER, segment_size};
use crate::storage::{Bucket, Cause, Object, StorageError};

/// Segments that are asked: a damaged or encrypted one does not tell.
const MOST: usize = 3;

/// What told the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SizedBy {
    /// A stored segment itself.
    Header,
    /// The names of the backups beside their start LSNs.
    Names,
    /// Nothing: there is no WAL and no backup yet.
    Nothing,
}

/// Finds the size of the segments in `repository`, which holds `backups`.
///
/// # Errors
/// When the bucket cannot be read.
pub(super) async fn find(
    repository: &Repository,
    backups: &[Backup],
) -> Result<(SegmentSize, SizedBy), StorageError> {
    let newest = backups.iter().max_by_key(|backup| backup.finished_at);
    let newest = newest.and_then(|backup| Backup::segment_of(&backup.name));
    let mut segments = first_segments(repository, newest).await?;
    if segments.is_empty() && newest.is_some() {
        segments = first_segments(repository, None).await?;
    }
    for segment in segments {
        if let Some(size) = size_of(&repository.bucket, &segment).await? {
            return Ok((size, SizedBy::Header));
        }
    }
    Ok(match of_names(backups) {
        Some(size) if !backups.is_empty() => (size, SizedBy::Names),
        _ => (SegmentSize::default(), SizedBy::Nothing),
    })
}

/// The size that explains the names of `backups`.
pub(super) fn of_names(backups: &[Backup]) -> Option<SegmentSize> {
    let starts = backups.iter().filter_map(|backup| {
        let sentinel = backup.sentinel.as_ref()?;
        Some((Backup::segment_of(&backup.name)?, sentinel.start_lsn))
    });
    SegmentSize::infer(starts)
}

/// The first segments that are stored behind the name `after`.
async fn first_segments(
    repository: &Repository,
    after: Option<&str>,
) -> Result<Vec<Object>, StorageError> {
    let prefix = repository.key("wal_005/");
    let mut segments = Vec::new();
    let each = |object: Object| {
        let name = object.key.strip_prefix(&prefix);
        let kind = name.and_then(archived_name).map(|(_, kind)| kind);
        if kind == Some(ArchiveFile::Segment) {
            segments.push(object);
        }
        match segments.len() < MOST {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    let after = after.map(|after| format!("{prefix}{after}"));
    repository.bucket.list_each(&prefix, after, each).await?;
    Ok(segments)
}

/// `None` where it cannot be read, or was deleted since the listing.
async fn size_of(bucket: &Bucket, segment: &Object) -> Result<Option<SegmentSize>, StorageError> {
    let read = |key: &str, stored: Arriving| {
        let mut header = [0; LONG_HEADER];
        let read = unpacker(key, stored)?.read_exact(&mut header);
        read.map_err(|error| error.to_string())?;
        segment_size(&header).ok_or_else(|| "it begins with no header of a segment".to_owned())
    };
    let suffix = segment.key.rsplit_once('.').map(|(_, suffix)| suffix);
    if suffix.is_some_and(|suffix| !COMPRESSIONS.contains(&suffix)) {
        return Ok(None);
    }
    match streamed(bucket, &segment.key, read).await {
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
        Err(error) => Err(error),
        Ok(read) => Ok(read.ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_that_wal_g_stored_tells_its_size() {
        let stored = include_bytes!(
            "../../../tests/fixtures/walg-3.0.9/repository/wal_005/000000010000000000000004.zst"
        );
        let mut header = [0; LONG_HEADER];
        let mut content = unpacker("a.zst", &stored[..]).unwrap();
        content.read_exact(&mut header).unwrap();
        assert_eq!(segment_size(&header), Some(SegmentSize::default()));
    }
}
