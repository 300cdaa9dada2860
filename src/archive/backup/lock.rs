//! One base backup at a time, on this node and in the cluster, and what a killed one left in the bucket.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::config::Node;
use crate::postgres::{self, PostgresError};
use crate::process;
use crate::repository::{
    LockError, NodeWorkLock, Program, Repository, RepositoryError, Work, WorkLock, WorkLockError,
};
use crate::storage::UnfinishedUpload;

/// How long a question to PostgreSQL may take.
pub(in crate::archive) const ANSWER: Duration = Duration::from_secs(10);
/// How long a program that was killed may take to go.
const GONE: Duration = Duration::from_secs(3);
const WORK: Work = Work {
    name: "base-backup",
    file: "backup-push.lock",
    other: "another base backup is being pushed from this node",
    hint: "wait for its end; a prune keeps base backups waiting, too",
};
/// The mark of a lock under which nothing was begun that could be left unfinished.
const NOTHING_BEGUN: &str = "locked";

/// The right to push a base backup. The node's mark is the push that holds it, as [`Begun`], or [`NOTHING_BEGUN`].
pub(in crate::archive) async fn take(
    repository: &Repository,
    node: &Node,
) -> Result<WorkLock, WorkLockError> {
    let mut lock = NodeWorkLock::take(&node.state_directory, WORK)?;
    let is_marked = !lock.mark()?.trim().is_empty();
    // What an interrupted push began is still to be given up.
    let mark = (!is_marked).then_some(NOTHING_BEGUN);
    WorkLock::take(lock, (&repository.shared, &node.hostname), mark).await
}

/// Gives up what a push that was interrupted left unfinished in the bucket; nothing where none was.
///
/// # Errors
/// When the bucket cannot be asked; the next push tries again.
pub async fn clean_up_push(repository: &Repository, node: &Node) -> Result<(), RepositoryError> {
    let mut lock = NodeWorkLock::take(&node.state_directory, WORK)?;
    if lock.mark()?.trim().is_empty() {
        return Ok(());
    }
    let taken = lock.lock_cluster(&repository.shared, &node.hostname).await;
    let mut cluster = match taken {
        // Another node pushes by now, and what is unfinished may be its own: the mark stays for the next push here.
        Err(LockError::Held { .. }) => return Ok(()),
        taken => taken.map_err(WorkLockError::from)?,
    };
    // There may be more uploads than the lock outlives without a refresh.
    let given_up = cluster.during(give_up_marked(&mut lock, repository)).await;
    let given_up = given_up.map_err(RepositoryError::from).flatten();
    if given_up.is_ok() {
        lock.clear()?;
    }
    cluster.release().await;
    given_up
}

/// Gives up what a push that was stopped began, and nothing where none was; the cluster's lock is held.
///
/// What else is under way in the repository may be a push by hand.
pub(in crate::archive) async fn give_up_marked(
    lock: &mut NodeWorkLock,
    repository: &Repository,
) -> Result<(), RepositoryError> {
    if let Some(begun) = Begun::parse(lock.mark()?.trim()) {
        give_up(repository, &begun).await?;
        lock.set_mark(NOTHING_BEGUN)?;
    }
    Ok(())
}

/// What tells a push of xdb from one by hand: `2026-11-21T01:00:00Z 000000010000000000000007`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) struct Begun {
    pub(in crate::archive) since: Timestamp,
    /// The WAL segment that was written then: the backup begins in a later one. `None` where it is not known.
    segment: Option<String>,
}

impl Begun {
    /// Before anything of it is begun.
    pub(in crate::archive) fn now(segment: Option<String>) -> Self {
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
pub(in crate::archive) async fn give_up(
    repository: &Repository,
    begun: &Begun,
) -> Result<(), RepositoryError> {
    if let Some(process) = push_by_hand().await {
        return Err(RepositoryError::Refused {
            reason: format!(
                "process {process} pushes a base backup that xdb did not start, and what an earlier push left cannot be told from its uploads"
            ),
            hint: "wait for its end; the next `xdb backup push` or `xdb prune` then cleans up"
                .to_owned(),
        });
    }
    let (ended, aborted) = tokio::join!(
        end_sessions(repository, begun),
        abort_uploads(repository, begun)
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

async fn end_sessions(repository: &Repository, begun: &Begun) -> Result<(), RepositoryError> {
    // Without a program, none began anything.
    let Ok((program, _)) = repository.program.find() else {
        return Ok(());
    };
    let connection = match postgres::connect(&(&repository.program.postgres).into(), ANSWER).await {
        // A server that is down holds no session.
        Err(PostgresError::Connect { error, .. }) if error.as_db_error().is_none() => return Ok(()),
        connection => connection?,
    };
    let name = program.session_name(begun.since);
    postgres::end_backup_sessions(&connection, &name, begun.since).await?;
    Ok(())
}

/// Of xdb's own only one push runs at a time, and that one is gone.
async fn abort_uploads(repository: &Repository, begun: &Begun) -> Result<(), RepositoryError> {
    let prefix = repository.key("basebackups_005/");
    for upload in repository.bucket.unfinished_uploads(&prefix).await? {
        if begun.may_own(&upload) {
            repository.bucket.abort_upload(&upload).await?;
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
