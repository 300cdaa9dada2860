//! The base backups of a repository, by one listing and the sentinels that are not known yet.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::snapshot::{AT_ONCE, Seen, tag_of};
use super::{Backup, Sentinel};
use crate::storage::{Bucket, Cause, Object, Repository, StorageError};

const SENTINEL: &str = "_backup_stop_sentinel.json";

/// Lists the backups, oldest first; a sentinel is read where `seen` does not know it, and `known` does not hold it.
pub(super) async fn read(
    bucket: &Bucket,
    repository: &Repository,
    known: &[Backup],
    seen: &mut Seen,
) -> Result<Vec<Backup>, StorageError> {
    let listed = list(bucket, repository).await?;
    let reads = listed.into_iter().filter_map(|(name, object)| {
        let timeline = Backup::timeline_of(&name)?;
        let Some(object) = object else {
            return Some(Reading::Known(Backup {
                name,
                timeline,
                sentinel: None,
                damage: None,
                finished_at: None,
            }));
        };
        let is_new = seen.insert(name.clone(), tag_of(&object)) != Some(tag_of(&object));
        let known = known.iter().find(|backup| backup.name == name);
        let known = known.filter(|backup| !is_new && backup.finished_at.is_some());
        Some(known.map_or(Reading::New(name, object), |known| {
            Reading::Known(known.clone())
        }))
    });
    let reads = reads.map(|reading| async move {
        match reading {
            Reading::Known(backup) => Ok(Some(backup)),
            Reading::New(name, object) => read_one(bucket, name, &object).await,
        }
    });
    // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
    let reads: Vec<_> = reads.map(Box::pin).collect();
    let read: Vec<Option<Backup>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

enum Reading {
    Known(Backup),
    New(String, Object),
}

/// The backups' folders and their sentinels, by name.
async fn list(
    bucket: &Bucket,
    repository: &Repository,
) -> Result<BTreeMap<String, Option<Object>>, StorageError> {
    let prefix = repository.key("basebackups_005/");
    let (folders, objects) = bucket.list_level(&prefix).await?;
    let folders = folders.iter().filter_map(|key| key.strip_prefix(&prefix));
    let mut backups: BTreeMap<String, Option<Object>> =
        folders.map(|name| (name.to_owned(), None)).collect();
    for object in objects {
        let name = object.key.strip_prefix(&prefix);
        let name = name.and_then(|name| name.strip_suffix(SENTINEL));
        if let Some(name) = name.map(str::to_owned) {
            backups.insert(name, Some(object));
        }
    }
    Ok(backups)
}

/// `None` when retention took it away since the listing.
async fn read_one(
    bucket: &Bucket,
    name: String,
    object: &Object,
) -> Result<Option<Backup>, StorageError> {
    let Some(timeline) = Backup::timeline_of(&name) else {
        return Ok(None);
    };
    let json = match bucket.get(&object.key).await {
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => return Ok(None),
        json => json?,
    };
    let (sentinel, damage) = match Sentinel::parse(&json) {
        Ok(sentinel) => (Some(sentinel), None),
        Err(reason) => (None, Some(reason)),
    };
    let finished_at = sentinel.as_ref().and_then(|sentinel| sentinel.finished_at);
    Ok(Some(Backup {
        name,
        timeline,
        sentinel,
        damage,
        finished_at: Some(finished_at.unwrap_or(object.last_modified)),
    }))
}
