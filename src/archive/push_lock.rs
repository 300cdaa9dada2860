//! One base backup at a time, on this node and in the cluster, and what a killed one left in the bucket.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::{ArchiveError, Program};
use crate::config::Config;
use crate::postgres::{self, PostgresError};
use crate::process::MarkedLock;
use crate::storage::{Bucket, ClusterLock, LockError, Repository, Shared};

/// How long a question to PostgreSQL may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// What is locked, as the bucket and messages call it.
const WORK: &str = "base-backup";
/// The mark of a lock under which nothing was begun that could be left unfinished.
const NOTHING_BEGUN: &str = "locked";

/// The right to push a base backup.
pub(super) struct PushLock {
    pub(super) node: NodeLock,
    pub(super) cluster: ClusterLock,
}

impl PushLock {
    pub(super) async fn take(config: &Config) -> Result<Self, ArchiveError> {
        let mut node = NodeLock::take(config)?;
        let unmarked = node.read()?.is_empty();
        if unmarked {
            // Before the cluster's lock: by the mark it is found and given up after a signal.
            node.set(NOTHING_BEGUN)?;
        }
        match take_cluster(config).await {
            Ok(cluster) => Ok(Self { node, cluster }),
            Err(error) => {
                if unmarked {
                    node.clear()?;
                }
                Err(error.into())
            }
        }
    }

    pub(super) async fn release(self) {
        self.cluster.release().await;
    }
}

async fn take_cluster(config: &Config) -> Result<ClusterLock, LockError> {
    let shared = Shared::open(config).await?;
    ClusterLock::take(&shared, WORK, &config.node.hostname).await
}

/// Gives up what a push that was interrupted left unfinished in the bucket; nothing where none was.
///
/// # Errors
/// When the bucket cannot be asked; the next push tries again.
pub async fn clean_up_push(config: &Config) -> Result<(), ArchiveError> {
    let mut node = NodeLock::take(config)?;
    if node.read()?.is_empty() {
        return Ok(());
    }
    let cluster = match take_cluster(config).await {
        // Another node pushes by now, and what is unfinished may be its own: the mark stays for the next push here.
        Err(LockError::Held { .. }) => return Ok(()),
        taken => taken?,
    };
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let given_up = node.give_up_marked(config, &bucket, &repository).await;
    if given_up.is_ok() {
        node.clear()?;
    }
    PushLock { node, cluster }.release().await;
    given_up
}

/// The node's lock; its mark is when the push that holds it began, or [`NOTHING_BEGUN`].
pub(super) struct NodeLock {
    path: PathBuf,
    lock: MarkedLock,
}

impl NodeLock {
    fn take(config: &Config) -> Result<Self, ArchiveError> {
        let path = config.node.state_directory.join("backup-push.lock");
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { path, lock }),
            Ok(None) => Err(ArchiveError::Busy),
            Err(source) => Err(ArchiveError::Lock { path, source }),
        }
    }

    /// The mark; empty where there is none.
    fn read(&mut self) -> Result<String, ArchiveError> {
        let mark = self.lock.mark().map_err(|source| self.failed(source))?;
        Ok(mark.trim().to_owned())
    }

    fn set(&mut self, mark: &str) -> Result<(), ArchiveError> {
        let set = self.lock.set_mark(mark);
        set.map_err(|source| self.failed(source))
    }

    /// When the push began that was stopped before its end; `None` where none was.
    fn since(&mut self) -> Result<Option<Timestamp>, ArchiveError> {
        Ok(self.read()?.parse().ok())
    }

    /// Gives up what a push that was stopped began, and nothing where none was; the cluster's lock is held.
    ///
    /// What else is under way in the repository may be a push by hand.
    pub(super) async fn give_up_marked(
        &mut self,
        config: &Config,
        bucket: &Bucket,
        repository: &Repository,
    ) -> Result<(), ArchiveError> {
        if let Some(since) = self.since()? {
            give_up(config, bucket, repository, since).await?;
            self.set(NOTHING_BEGUN)?;
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, since: Timestamp) -> Result<Timestamp, ArchiveError> {
        self.set(&since.to_string())?;
        Ok(since)
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

/// Gives up what a push that began at `since` left: its session on the server, its uploads in the bucket.
pub(super) async fn give_up(
    config: &Config,
    bucket: &Bucket,
    repository: &Repository,
    since: Timestamp,
) -> Result<(), ArchiveError> {
    let (ended, aborted) = tokio::join!(
        end_sessions(config, since),
        abort_uploads(bucket, repository, since)
    );
    ended.and(aborted)
}

async fn end_sessions(config: &Config, since: Timestamp) -> Result<(), ArchiveError> {
    // Without a program, none began anything.
    let Ok((program, _)) = Program::find(config) else {
        return Ok(());
    };
    let connection = match postgres::connect(&(&config.postgres).into(), ANSWER).await {
        // A server that is down holds no session.
        Err(PostgresError::Connect { error, .. }) if error.as_db_error().is_none() => return Ok(()),
        connection => connection?,
    };
    postgres::end_backup_sessions(&connection, &program.to_string(), since).await?;
    Ok(())
}

/// Only one push runs at a time, so the uploads of base backups begun since `since` are nobody's.
async fn abort_uploads(
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
