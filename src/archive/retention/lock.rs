//! One prune at a time, on this node and in the cluster, and none beside a base backup.

use crate::archive::backup::{self, clean_up_push};
use crate::config::Node;
use crate::repository::{
    LockError, NodeWorkLock, Repository, RepositoryError, Work, WorkLock, WorkLockError,
};

const WORK: Work = Work {
    name: "prune",
    file: "prune.lock",
    other: "another prune runs on this node",
    hint: "wait for its end",
};
/// The mark says that the locks in the bucket are to be given up.
const MARK: &str = "pruning";

/// The right to prune.
pub(super) struct PruneLock {
    prune: WorkLock,
    push: WorkLock,
}

impl PruneLock {
    /// Takes it, and gives up what a base backup that was stopped left unfinished.
    pub(super) async fn take(
        repository: &Repository,
        node: &Node,
    ) -> Result<Self, RepositoryError> {
        let own = NodeWorkLock::take(&node.state_directory, WORK)?;
        let by = (&repository.shared, node.hostname.as_str());
        let mut prune = WorkLock::take(own, by, Some(MARK)).await?;
        let mut push = match backup::lock::take(repository, node).await {
            Ok(push) => push,
            Err(error) => {
                prune.cluster.release().await;
                prune.node.clear()?;
                return Err(error.into());
            }
        };
        let work = backup::lock::give_up_marked(&mut push.node, repository);
        let aborted = prune.cluster.during(push.cluster.during(work));
        let aborted = aborted.await.flatten();
        let aborted = match aborted {
            Ok(aborted) => aborted,
            Err(lost) => Err(lost.into()),
        };
        let lock = Self { prune, push };
        match aborted {
            Ok(()) => Ok(lock),
            Err(error) => {
                lock.release_cluster().await?;
                Err(error)
            }
        }
    }

    /// Does `work` while both locks are kept fresh; `work` is dropped when one is lost.
    pub(super) async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, LockError> {
        let Self { prune, push } = self;
        prune.cluster.during(push.cluster.during(work)).await?
    }

    pub(super) async fn release(mut self) -> Result<(), RepositoryError> {
        self.push.node.clear()?;
        self.release_cluster().await
    }

    /// Leaves the mark of base backups: there are uploads that are not given up yet.
    async fn release_cluster(mut self) -> Result<(), RepositoryError> {
        self.push.cluster.release().await;
        self.prune.cluster.release().await;
        Ok(self.prune.node.clear()?)
    }
}

/// Gives up the locks of a prune that was interrupted; nothing where none was.
///
/// # Errors
/// When the bucket cannot be asked; the locks expire then.
pub async fn clean_up_prune(repository: &Repository, node: &Node) -> Result<(), RepositoryError> {
    let mut lock = NodeWorkLock::take(&node.state_directory, WORK)?;
    if lock.mark()?.is_empty() {
        return Ok(());
    }
    match lock.lock_cluster(&repository.shared, &node.hostname).await {
        // Another node's by now.
        Err(LockError::Held { .. }) => {}
        taken => taken.map_err(WorkLockError::from)?.release().await,
    }
    clean_up_push(repository, node).await?;
    Ok(lock.clear()?)
}
