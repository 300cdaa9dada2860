//! One base backup a node at a time, and what a killed one left in the bucket.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::{ArchiveError, Repository};
use crate::config::Config;
use crate::storage::Bucket;

/// The node's lock for pushing base backups; its content is when the push that holds it began.
pub(super) struct PushLock {
    path: PathBuf,
    file: File,
    pub(super) since: Timestamp,
}

impl PushLock {
    pub(super) fn take(config: &Config) -> Result<Self, ArchiveError> {
        let path = config.node.state_directory.join("backup-push.lock");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = opened.map_err(|source| ArchiveError::Lock {
            path: path.clone(),
            source,
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path,
                file,
                since: Timestamp::now(),
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ArchiveError::Refused {
                reason: "another base backup is being pushed from this node".to_owned(),
                hint: "wait for its end".to_owned(),
            }),
            Err(error) => Err(ArchiveError::Lock {
                path,
                source: error.into(),
            }),
        }
    }

    /// Gives up the uploads of the last holder, if it was stopped before its end.
    pub(super) async fn clean_up(
        &mut self,
        bucket: &Bucket,
        repository: &Repository,
    ) -> Result<(), ArchiveError> {
        let mut text = String::new();
        self.file
            .read_to_string(&mut text)
            .map_err(|source| self.failed(source))?;
        if let Ok(since) = text.trim().parse() {
            abort_uploads(bucket, repository, since).await?;
            self.clear()?;
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, since: Timestamp) -> Result<(), ArchiveError> {
        self.clear()?;
        self.since = since;
        self.file
            .write_all(since.to_string().as_bytes())
            .map_err(|source| self.failed(source))
    }

    pub(super) fn clear(&mut self) -> Result<(), ArchiveError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| self.failed(source))
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
