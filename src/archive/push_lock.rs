//! One base backup at a time, on this node and in the cluster, and what a killed one left in the bucket.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{ArchiveError, Program};
use crate::config::Config;
use crate::postgres::{self, PostgresError};
use crate::process::{self, MarkedLock};
use crate::storage::{Bucket, ClusterLock, LockError, Repository, Shared, UnfinishedUpload};

/// How long a question to PostgreSQL may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// How long a program that was killed may take to go.
const GONE: Duration = Duration::from_secs(3);
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
    let mut cluster = match take_cluster(config).await {
        // Another node pushes by now, and what is unfinished may be its own: the mark stays for the next push here.
        Err(LockError::Held { .. }) => return Ok(()),
        taken => taken?,
    };
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    // There may be more uploads than the lock outlives without a refresh.
    let work = node.give_up_marked(config, &bucket, &repository);
    let given_up = cluster.during(work).await;
    let given_up = given_up.map_err(ArchiveError::from).flatten();
    if given_up.is_ok() {
        node.clear()?;
    }
    PushLock { node, cluster }.release().await;
    given_up
}

/// The node's lock; its mark is the push that holds it, as [`Begun`], or [`NOTHING_BEGUN`].
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

    /// The push that was stopped before its end; `None` where none was.
    fn begun(&mut self) -> Result<Option<Begun>, ArchiveError> {
        Ok(Begun::parse(&self.read()?))
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
        if let Some(begun) = self.begun()? {
            give_up(config, bucket, repository, &begun).await?;
            self.set(NOTHING_BEGUN)?;
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, begun: &Begun) -> Result<(), ArchiveError> {
        self.set(&begun.to_string())
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

/// What tells a push of xdb from one by hand: `2026-11-21T01:00:00Z 000000010000000000000007`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) since: Timestamp,
    /// The WAL segment that was written then: the backup begins in a later one. `None` where it is not known.
    segment: Option<String>,
}

impl Begun {
    /// Before anything of it is begun.
    pub(super) fn now(segment: Option<String>) -> Self {
        let since = Timestamp::now();
        Self { since, segment }
    }

    fn parse(mark: &str) -> Option<Self> {
        let (since, segment) = match mark.split_once(' ') {
            Some((since, segment)) => (since, Some(segment.to_owned())),
            None => (mark, None),
        };
        let since = since.parse().ok()?;
        Some(Self { since, segment })
    }

    /// Whether the upload may be of this push: not one of a backup that began before.
    fn may_own(&self, upload: &UnfinishedUpload) -> bool {
        // S3's clock may be behind ours.
        let since = self.since.checked_sub(SignedDuration::from_mins(5));
        if upload.initiated < since.unwrap_or(self.since) {
            return false;
        }
        let named = upload.key.split_once("basebackups_005/base_");
        let began_in = named.and_then(|(_, name)| name.get(..24));
        match (began_in, &self.segment) {
            (Some(began_in), Some(segment)) => began_in >= segment.as_str(),
            _ => true,
        }
    }
}

impl fmt::Display for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.since)?;
        match &self.segment {
            Some(segment) => write!(f, " {segment}"),
            None => Ok(()),
        }
    }
}

/// Gives up what a push left that is gone: its session on the server, its uploads in the bucket.
///
/// A push by hand is left alone: neither its uploads nor walrus's sessions can be told from those of xdb's own.
///
/// # Errors
/// While a push by hand runs here; when the server or the bucket cannot be asked.
pub(super) async fn give_up(
    config: &Config,
    bucket: &Bucket,
    repository: &Repository,
    begun: &Begun,
) -> Result<(), ArchiveError> {
    if let Some(process) = push_by_hand().await {
        return Err(ArchiveError::Refused {
            reason: format!(
                "process {process} pushes a base backup that xdb did not start, and what an earlier push left cannot be told from its uploads"
            ),
            hint: "wait for its end; the next `xdb backup push` or `xdb prune` then cleans up"
                .to_owned(),
        });
    }
    let (ended, aborted) = tokio::join!(
        end_sessions(config, begun),
        abort_uploads(bucket, repository, begun)
    );
    ended.and(aborted)
}

/// A process that pushes a base backup; the caller's own program was killed, and may take a moment to go.
async fn push_by_hand() -> Option<i32> {
    let give_up = Instant::now() + GONE;
    loop {
        let pushes = process::running(|path| Program::of(path).is_some(), "backup-push");
        let found = pushes.into_iter().next();
        if found.is_none() || Instant::now() > give_up {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn end_sessions(config: &Config, begun: &Begun) -> Result<(), ArchiveError> {
    // Without a program, none began anything.
    let Ok((program, _)) = Program::find(config) else {
        return Ok(());
    };
    let connection = match postgres::connect(&(&config.postgres).into(), ANSWER).await {
        // A server that is down holds no session.
        Err(PostgresError::Connect { error, .. }) if error.as_db_error().is_none() => return Ok(()),
        connection => connection?,
    };
    let name = program.session_name(begun.since);
    postgres::end_backup_sessions(&connection, &name, begun.since).await?;
    Ok(())
}

/// Of xdb's own only one push runs at a time, and that one is gone.
async fn abort_uploads(
    bucket: &Bucket,
    repository: &Repository,
    begun: &Begun,
) -> Result<(), ArchiveError> {
    let prefix = repository.key("basebackups_005/");
    for upload in bucket.unfinished_uploads(&prefix).await? {
        if begun.may_own(&upload) {
            bucket.abort_upload(&upload).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_of_a_push_only_where_its_backup_began_later() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mark = "2026-11-21T01:00:00Z 000000020000000100000007";
        let begun = Begun::parse(mark).unwrap();
        assert_eq!(begun.to_string(), mark);
        let own = |begun: &Begun, name: &str, initiated: &str| {
            begun.may_own(&UnfinishedUpload {
                key: format!("main/pg17/basebackups_005/{name}/tar_partitions/part_001.tar.lz4"),
                upload_id: "1".to_owned(),
                initiated: at(initiated),
            })
        };
        let later = "2026-11-21T01:00:09Z";
        for (name, initiated, expected) in [
            ("base_000000020000000100000008", later, true),
            ("base_000000020000000100000007", later, true),
            (
                "base_000000020000000100000008_D_000000020000000100000001",
                later,
                true,
            ),
            (
                "base_000000020000000100000008",
                "2026-11-21T00:57:00Z",
                true,
            ),
            (
                "base_000000020000000100000008",
                "2026-11-21T00:54:00Z",
                false,
            ),
            ("base_000000020000000100000006", later, false),
            ("base_0000000100000009000000FF", later, false),
        ] {
            assert_eq!(own(&begun, name, initiated), expected, "{name} {initiated}");
        }
        // As a release before this one marked it.
        let old = Begun::parse("2026-11-21T01:00:00Z").unwrap();
        assert!(own(&old, "base_000000020000000100000006", later));
        assert_eq!(Begun::parse(NOTHING_BEGUN), None);
        assert_eq!(Begun::parse(""), None);
    }
}
