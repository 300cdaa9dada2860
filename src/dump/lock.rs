//! One dump at a time, on this node and in the cluster, and what a dump that was stopped leaves behind.

use std::path::PathBuf;

use super::set::MANIFEST;
use super::{DumpError, SetName};
use crate::config::Config;
use crate::process::MarkedLock;
use crate::storage::{Bucket, Cause, ClusterLock, LockError, Repository, Shared, StorageError};

/// What is locked, as the bucket and messages call it.
const WORK: &str = "dump";

/// The node's lock for dumps; its mark is the set that the holder began.
pub(super) struct DumpLock {
    path: PathBuf,
    lock: MarkedLock,
}

impl DumpLock {
    pub(super) fn take(config: &Config) -> Result<Self, DumpError> {
        let path = config.node.state_directory.join("dump-push.lock");
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { path, lock }),
            Ok(None) => Err(DumpError::Busy),
            Err(source) => Err(DumpError::Lock { path, source }),
        }
    }

    /// Removes what the last holder began, if it was stopped before its end; a set with a manifest is whole and stays.
    pub(super) async fn clean_up(&mut self, config: &Config) -> Result<(), DumpError> {
        let mark = self.lock.mark().map_err(|source| self.failed(source))?;
        if let Some((bucket, folder)) = parse_mark(&mark) {
            let bucket = Bucket::open(&config.s3, bucket).await?;
            if !is_complete(&bucket, folder).await? {
                discard(&bucket, folder).await?;
            }
            // This node made the set, whichever node dumps now.
            match take_cluster(config).await {
                Err(LockError::Held { .. }) => {}
                left => left?.release().await,
            }
        }
        self.clear()
    }

    /// Marks the set before the cluster's lock is taken: by the mark both are given up after a signal.
    pub(super) async fn begin(
        &mut self,
        config: &Config,
        repository: &Repository,
        set: &SetName,
    ) -> Result<ClusterLock, DumpError> {
        let marked = self.lock.set_mark(&mark(repository, set));
        marked.map_err(|source| self.failed(source))?;
        match take_cluster(config).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                self.clear()?;
                Err(error.into())
            }
        }
    }

    pub(super) fn clear(&mut self) -> Result<(), DumpError> {
        self.lock.clear().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> DumpError {
        DumpError::Lock {
            path: self.path.clone(),
            source,
        }
    }
}

/// Removes the objects that an interrupted push left in the bucket.
///
/// # Errors
/// When the bucket cannot be asked; the next push tries again.
pub async fn clean_up(config: &Config) -> Result<(), DumpError> {
    DumpLock::take(config)?.clean_up(config).await
}

async fn take_cluster(config: &Config) -> Result<ClusterLock, LockError> {
    let shared = Shared::open(config).await?;
    ClusterLock::take(&shared, WORK, &config.node.hostname).await
}

fn mark(repository: &Repository, set: &SetName) -> String {
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
        let repository = Repository {
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
