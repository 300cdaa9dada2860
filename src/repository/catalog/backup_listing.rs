//! The base backups of a repository: one listing of all that is stored of them, and the sentinels that are not known yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::object_versions::{AT_ONCE, ObjectVersions, tag_of};
use super::{Backup, Sentinel, StoredParts, Tests};
use crate::repository::Repository;
use crate::storage::{Bucket, Cause, Object, StorageError};

const SENTINEL: &str = "_backup_stop_sentinel.json";
const FILES: &str = "files_metadata.json";
/// Enough of its end to see whether the JSON ends there.
const TAIL: u64 = 32;

/// Lists the backups, oldest first; a sentinel is read where `versions` does not know it, and `known` does not hold it.
pub(super) async fn read(
    repository: &Repository,
    known: &[Backup],
    versions: &mut ObjectVersions,
) -> Result<Vec<Backup>, StorageError> {
    read_with(repository, known, (versions, true)).await
}

/// The system identifiers in the sentinels of all backups.
pub(super) async fn identifiers(repository: &Repository) -> Result<BTreeSet<u64>, StorageError> {
    let backups = read_with(repository, &[], (&mut ObjectVersions::new(), false)).await?;
    let sentinels = backups.iter().filter_map(|backup| backup.sentinel.as_ref());
    Ok(sentinels.filter_map(|it| it.system_identifier).collect())
}

/// The lists of the backups' files are looked at where `with_lists`.
async fn read_with(
    repository: &Repository,
    known: &[Backup],
    (versions, with_lists): (&mut ObjectVersions, bool),
) -> Result<Vec<Backup>, StorageError> {
    let listed = list(repository).await?;
    let reads = listed.into_iter().filter_map(|(name, listed)| {
        let timeline = Backup::timeline_of(&name)?;
        let known = known.iter().find(|backup| backup.name == name);
        let ListedBackup {
            sentinel,
            files,
            mut stored,
        } = listed;
        let Some(object) = sentinel else {
            return Some(SentinelRead::Known(Box::new(Backup {
                name,
                timeline,
                sentinel: None,
                damage: None,
                finished_at: None,
                stored: Some(stored),
                tests: Tests::default(),
            })));
        };
        let mut is_new = |name: String, object: &Object| {
            versions.insert(name, tag_of(object)) != Some(tag_of(object))
        };
        let before = known.and_then(|backup| backup.stored.as_ref());
        let files = files.filter(|files| {
            with_lists && (is_new(format!("{name}/{FILES}"), files) || before.is_none())
        });
        stored.files_metadata_cut = before.is_some_and(|it| it.files_metadata_cut);
        let is_new = is_new(name.clone(), &object);
        let known = known.filter(|backup| !is_new && backup.finished_at.is_some());
        Some(match (known, files) {
            (Some(known), None) => SentinelRead::Known(Box::new(Backup {
                stored: Some(stored),
                ..known.clone()
            })),
            (_, files) => SentinelRead::New(name, object, files, Box::new(stored)),
        })
    });
    let reads = reads.map(|reading| async move {
        match reading {
            SentinelRead::Known(backup) => Ok(Some(*backup)),
            SentinelRead::New(name, object, files, mut stored) => {
                if let Some(files) = files {
                    stored.files_metadata_cut = is_cut(&repository.bucket, &files).await?;
                }
                read_one(&repository.bucket, name, &object, *stored).await
            }
        }
    });
    // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
    let reads: Vec<_> = reads.map(Box::pin).collect();
    let read: Vec<Option<Backup>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

enum SentinelRead {
    Known(Box<Backup>),
    /// Its sentinel, and its list of files where that is to be looked at.
    New(String, Object, Option<Object>, Box<StoredParts>),
}

/// What is listed under the name of one backup.
#[derive(Default)]
struct ListedBackup {
    sentinel: Option<Object>,
    files: Option<Object>,
    stored: StoredParts,
}

/// The backups' sentinels and parts, by name.
async fn list(repository: &Repository) -> Result<BTreeMap<String, ListedBackup>, StorageError> {
    let prefix = repository.key("basebackups_005/");
    let mut backups: BTreeMap<String, ListedBackup> = BTreeMap::new();
    let each = |object: Object| {
        let path = object.key.strip_prefix(&prefix).unwrap_or_default();
        if let Some((name, path)) = path.split_once('/') {
            let listed = backups.entry(name.to_owned()).or_default();
            listed.stored.add(path, &object);
            if path == FILES {
                listed.files = Some(object);
            }
        } else if let Some(name) = path.strip_suffix(SENTINEL) {
            let name = name.to_owned();
            backups.entry(name).or_default().sentinel = Some(object);
        }
        ControlFlow::Continue(())
    };
    repository.bucket.list_each(&prefix, None, each).await?;
    Ok(backups)
}

/// Whether the list of a backup's files breaks off: wal-g restores without the rest of it, and takes the pages of a delta for
/// whole files.
///
/// It may have many megabytes, so only its end is read.
async fn is_cut(bucket: &Bucket, files: &Object) -> Result<bool, StorageError> {
    match bucket.get_end(&files.key, files.size, TAIL).await {
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(false),
        end => Ok(!ends_as_list(&end?)),
    }
}

/// Both programs close an object within an object at the end, or leave the last one null.
fn ends_as_list(end: &[u8]) -> bool {
    let end = end.trim_ascii_end();
    end.ends_with(b"}}") || end.ends_with(b"null}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_files_that_breaks_off_is_seen_by_its_end() {
        let wal_g = include_bytes!(
            "../../../tests/fixtures/walg-3.0.9/repository/basebackups_005/base_000000010000000000000003/files_metadata.json"
        );
        assert!(ends_as_list(wal_g));
        for (end, whole) in [
            (
                r#","pg_commit_ts","postgresql.auto.conf","pg_subtrans"]}}"#,
                true,
            ),
            (r#"2026-11-27T01:00:30Z","UpdatesCount":0}}}"#, true),
            (
                r#"{"Files":{},"TarFileSets":{},"DatabasesByNames":null}"#,
                true,
            ),
            ("\"TarFileSets\":{}}\n", true),
            ("", false),
            (r#""/base/1/112":{"IsIncremented":fal"#, false),
            (r#"2026-11-27T01:00:30Z","UpdatesCount":0}"#, false),
            (r#"2026-11-27T01:00:30Z","UpdatesCount":0},"#, false),
        ] {
            assert_eq!(ends_as_list(end.as_bytes()), whole, "{end}");
        }
        let ends = (1..wal_g.len()).filter(|length| ends_as_list(&wal_g[..*length]));
        assert!(ends.count() < wal_g.len() / 1000);
    }
}
