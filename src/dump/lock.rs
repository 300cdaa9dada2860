//! One dump or prune of dumps at a time, on this node and in the cluster, and what one that was stopped leaves behind.

use super::set::MANIFEST;
use super::{DumpError, Dumps, SetName};
use crate::repository::{LockError, NodeWorkLock, Work, WorkLock};
use crate::storage::{Bucket, Cause, Location, StorageError};

const WORK: Work = Work {
    name: "dump",
    file: "dump-push.lock",
    other: "another dump is being pushed from this node, or dumps are being pruned",
    hint: "wait for its end",
};

/// Takes this node's lock, and removes what the last holder began, if it was stopped before its end.
///
/// # Errors
/// While another dump is being pushed from this node, and when the bucket cannot be asked.
pub(super) async fn take(dumps: &Dumps) -> Result<NodeWorkLock, DumpError> {
    let mut lock = NodeWorkLock::take(&dumps.node.state_directory, WORK)?;
    let mark = lock.mark()?;
    if let Some((bucket, folder)) = parse_mark(&mark) {
        let bucket = dumps.bucket.beside(bucket);
        // A set with a manifest is whole and stays.
        if !is_complete(&bucket, folder).await? {
            discard(&bucket, folder).await?;
        }
    }
    if !mark.is_empty() {
        // This node made the set, or pruned, whichever node dumps now.
        let (shared, hostname) = (&dumps.shared, &dumps.node.hostname);
        match lock.lock_cluster(shared, hostname).await {
            Err(LockError::Held { .. }) => {}
            left => left?.release().await,
        }
    }
    lock.clear()?;
    Ok(lock)
}

/// Marks the set before the cluster's lock is taken: by the mark both are given up after a signal.
pub(super) async fn begin(
    lock: NodeWorkLock,
    dumps: &Dumps,
    set: &SetName,
) -> Result<WorkLock, DumpError> {
    let mark = mark(&dumps.location, set);
    let by = (&dumps.shared, dumps.node.hostname.as_str());
    Ok(WorkLock::take(lock, by, Some(&mark)).await?)
}

/// Removes the objects that an interrupted push left in the bucket.
///
/// # Errors
/// When the bucket cannot be asked; the next push tries again.
pub(crate) async fn clean_up(dumps: &Dumps) -> Result<(), DumpError> {
    take(dumps).await.map(drop)
}

fn mark(repository: &Location, set: &SetName) -> String {
    format!("{}/{}\n", repository.bucket, set.folder(repository))
}

/// Bucket and folder of a mark. A mark that was cut names more than one set's folder: it counts for nothing.
fn parse_mark(mark: &str) -> Option<(&str, &str)> {
    let (bucket, folder) = mark.strip_suffix('\n')?.split_once('/')?;
    let set = folder.strip_suffix('/')?.rsplit('/').next()?;
    SetName::parse(set).map(|_| (bucket, folder))
}

async fn is_complete(bucket: &Bucket, folder: &str) -> Result<bool, StorageError> {
    let manifest = format!("{folder}{MANIFEST}");
    match bucket.list(&manifest).await {
        Ok(objects) => Ok(objects.iter().any(|object| object.key == manifest)),
        Err(error) if error.cause() == Some(&Cause::NoSuchBucket) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes everything in a set's folder, the manifest first: what is left at any moment is no backup.
///
/// # Errors
/// When the bucket refuses or does not answer; in one that is not there, nothing was left.
pub(super) async fn discard(bucket: &Bucket, folder: &str) -> Result<(), StorageError> {
    let manifest = format!("{folder}{MANIFEST}");
    match bucket.delete(&manifest).await {
        Err(error) if error.cause() == Some(&Cause::NoSuchBucket) => return Ok(()),
        deleted => deleted?,
    }
    abort_uploads(bucket, folder).await?;
    for object in bucket.list(folder).await? {
        bucket.delete(&object.key).await?;
    }
    // A request that was on its way when its sender stopped may have arrived meanwhile.
    abort_uploads(bucket, folder).await
}

async fn abort_uploads(bucket: &Bucket, folder: &str) -> Result<(), StorageError> {
    for upload in bucket.unfinished_uploads(folder).await? {
        bucket.abort_upload(&upload).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_one_sets_folder_or_nothing() {
        let repository = Location {
            bucket: "b".to_owned(),
            prefix: "dumps/main".to_owned(),
        };
        let set = SetName::new("2026-05-13T10:14:29.123Z".parse().unwrap(), "db2");
        let mark = mark(&repository, &set);
        assert_eq!(
            parse_mark(&mark),
            Some(("b", "dumps/main/20260513T101429.123Z-db2/"))
        );
        for length in 0..mark.len() {
            assert_eq!(parse_mark(&mark[..length]), None, "{}", &mark[..length]);
        }
        for other in ["b/\n", "b/dumps/\n", "b/dumps/main\n", "\n"] {
            assert_eq!(parse_mark(other), None, "{other}");
        }
    }
}
