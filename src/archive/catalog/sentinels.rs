//! The base backups of a repository: one listing of all that is stored of them, and the sentinels that are not known yet.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::snapshot::{AT_ONCE, Seen, tag_of};
use super::{Backup, Sentinel, StoredParts, Tests};
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
    let reads = listed.into_iter().filter_map(|(name, listed)| {
        let timeline = Backup::timeline_of(&name)?;
        let known = known.iter().find(|backup| backup.name == name);
        let Listed { sentinel, stored } = listed;
        let Some(object) = sentinel else {
            return Some(Reading::Known(Box::new(Backup {
                name,
                timeline,
                sentinel: None,
                damage: None,
                finished_at: None,
                stored: Some(stored),
                tests: Tests::default(),
            })));
        };
        let is_new = seen.insert(name.clone(), tag_of(&object)) != Some(tag_of(&object));
        let known = known.filter(|backup| !is_new && backup.finished_at.is_some());
        Some(match known {
            Some(known) => Reading::Known(Box::new(Backup {
                stored: Some(stored),
                ..known.clone()
            })),
            None => Reading::New(name, object, stored),
        })
    });
    let reads = reads.map(|reading| async move {
        match reading {
            Reading::Known(backup) => Ok(Some(*backup)),
            Reading::New(name, object, stored) => read_one(bucket, name, &object, stored).await,
        }
    });
    // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
    let reads: Vec<_> = reads.map(Box::pin).collect();
    let read: Vec<Option<Backup>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

enum Reading {
    Known(Box<Backup>),
    New(String, Object, StoredParts),
}

/// What is listed under the name of one backup.
#[derive(Default)]
struct Listed {
    sentinel: Option<Object>,
    stored: StoredParts,
}

/// The backups' sentinels and parts, by name.
async fn list(
    bucket: &Bucket,
    repository: &Repository,
) -> Result<BTreeMap<String, Listed>, StorageError> {
    let prefix = repository.key("basebackups_005/");
    let mut backups: BTreeMap<String, Listed> = BTreeMap::new();
    let each = |object: Object| {
        let path = object.key.strip_prefix(&prefix).unwrap_or_default();
        if let Some((name, path)) = path.split_once('/') {
            let listed = backups.entry(name.to_owned()).or_default();
            listed.stored.add(path, &object);
        } else if let Some(name) = path.strip_suffix(SENTINEL) {
            let name = name.to_owned();
            backups.entry(name).or_default().sentinel = Some(object);
        }
        ControlFlow::Continue(())
    };
    bucket.list_each(&prefix, None, each).await?;
    Ok(backups)
}

/// `None` when retention took it away since the listing.
async fn read_one(
    bucket: &Bucket,
    name: String,
    object: &Object,
    stored: StoredParts,
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
        stored: Some(stored),
        tests: Tests::default(),
    }))
}
