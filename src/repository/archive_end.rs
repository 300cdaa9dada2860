//! How far the archive reaches, by one short listing of the bucket between two full ones.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::catalog::{archived_segment, least_stored};
use super::{Repository, RepositoryError};
use crate::model::{SegmentSize, WalSegment};

/// The last segment of an unbroken row that begins with `first`, at most `most` of them, and when it was stored; `None`
/// where `first` is not stored.
///
/// # Errors
/// When the bucket cannot be listed.
pub(crate) async fn last_in_a_row(
    repository: &Repository,
    first: WalSegment,
    most: u64,
    size: SegmentSize,
) -> Result<Option<(WalSegment, Timestamp)>, RepositoryError> {
    let prefix = repository.key("wal_005/");
    // All that belongs to a segment begins with its name, so this sorts directly before it.
    let before = first.number.checked_sub(1).map(|number| {
        let timeline = first.timeline;
        format!("{prefix}{}/", WalSegment { timeline, number }.name(size))
    });
    let (mut next, mut last) = (first, None);
    let each = |object: crate::storage::Object| {
        let name = object.key.strip_prefix(&prefix).unwrap_or_default();
        let is_whole = object.size >= least_stored(name, size.bytes());
        match archived_segment(name, size).filter(|_| is_whole) {
            Some(found) if found == next => {
                last = Some((found, object.last_modified));
                next.number += 1;
                if next.number - first.number >= most {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }
            Some(found) if found > next => ControlFlow::Break(()),
            // A backup's history, a partial segment, or the segment that was just seen in another compression.
            _ => ControlFlow::Continue(()),
        }
    };
    repository.bucket.list_each(&prefix, before, each).await?;
    Ok(last)
}
