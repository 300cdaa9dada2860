//! One base backup a node at a time, and what a killed one left in the bucket.

use std::path::PathBuf;

use jiff::Timestamp;

use super::ArchiveError;
use crate::config::Config;
use crate::process::MarkedLock;
use crate::storage::{Bucket, Repository};

/// The node's lock for pushing base backups; its mark is when the push that holds it began.
pub(super) struct PushLock {
    path: PathBuf,
    lock: MarkedLock,
    pub(super) since: Timestamp,
}

impl PushLock {
    pub(super) fn take(config: &Config) -> Result<Self, ArchiveError> {
        let path = config.node.state_directory.join("backup-push.lock");
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self {
                path,
                lock,
                since: Timestamp::now(),
            }),
            Ok(None) => Err(ArchiveError::Refused {
                reason: "another base backup is being pushed from this node".to_owned(),
                hint: "wait for its end".to_owned(),
            }),
            Err(source) => Err(ArchiveError::Lock { path, source }),
        }
    }

    /// Gives up the uploads of the last holder, if it was stopped before its end.
    pub(super) async fn clean_up(
        &mut self,
        bucket: &Bucket,
        repository: &Repository,
    ) -> Result<(), ArchiveError> {
        let mark = self.lock.mark().map_err(|source| self.failed(source))?;
        if let Ok(since) = mark.trim().parse() {
            abort_uploads(bucket, repository, since).await?;
            self.clear()?;
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, since: Timestamp) -> Result<(), ArchiveError> {
        self.since = since;
        let marked = self.lock.set_mark(&since.to_string());
        marked.map_err(|source| self.failed(source))
    }

    pub(super) fn clear(&mut self) -> Result<(), ArchiveError> {
        self.lock.clear().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> ArchiveError {
        ArchiveError::Lock {
            path: self.path.clone(),
            source,
        }
    }
}

/// Gives up the uploads of base backups begun since `since`: only one push runs at a time, so they are nobody's.
pub(super) async fn abort_uploads(
    bucket: &Bucket,
    repository: &Repository,
    since: Timestamp,
) -> Result<(), ArchiveError> {
    // S3's clock may be behind ours.
    let since = since
        .checked_sub(jiff::SignedDuration::from_mins(5))
        .unwrap_or(since);
    for upload in bucket
        .unfinished_uploads(&repository.key("basebackups_005/"))
        .await?
    {
        if upload.initiated >= since {
            bucket.abort_upload(&upload).await?;
        }
    }
    Ok(())
}
