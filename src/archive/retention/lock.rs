//! One prune at a time, on this node and in the cluster, and none beside a base backup.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::archive::push_lock::{PushLock, clean_up_push};
use crate::config::Config;
use crate::process::MarkedLock;
use crate::storage::{Bucket, ClusterLock, LockError, Repository, Shared};

/// What is locked, as the bucket and messages call it.
const WORK: &str = "prune";

/// The right to prune. The node's mark says that the locks in the bucket are to be given up.
pub(super) struct PruneLock {
    node: NodeLock,
    cluster: ClusterLock,
    push: PushLock,
}

impl PruneLock {
    /// Takes it, and gives up what a base backup that was stopped left unfinished.
    pub(super) async fn take(
        config: &Config,
        bucket: &Bucket,
        repository: &Repository,
    ) -> Result<Self, ArchiveError> {
        let mut node = NodeLock::take(config)?;
        node.set("pruning")?;
        let mut cluster = match take_cluster(config).await {
            Ok(cluster) => cluster,
            Err(error) => {
                node.clear()?;
                return Err(error.into());
            }
        };
        let mut push = match PushLock::take(config).await {
            Ok(push) => push,
            Err(error) => {
                cluster.release().await;
                node.clear()?;
                return Err(error);
            }
        };
        let work = push.node.give_up_marked(config, bucket, repository);
        let aborted = cluster.during(push.cluster.during(work)).await.flatten();
        let aborted = aborted.map_err(ArchiveError::from).flatten();
        let lock = Self {
            node,
            cluster,
            push,
        };
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
        let Self { cluster, push, .. } = self;
        cluster.during(push.cluster.during(work)).await?
    }

    pub(super) async fn release(mut self) -> Result<(), ArchiveError> {
        self.push.node.clear()?;
        self.release_cluster().await
    }

    /// Leaves the mark of base backups: there are uploads that are not given up yet.
    async fn release_cluster(mut self) -> Result<(), ArchiveError> {
        self.push.release().await;
        self.cluster.release().await;
        self.node.clear()
    }
}

/// Gives up the locks of a prune that was interrupted; nothing where none was.
///
/// # Errors
/// When the bucket cannot be asked; the locks expire then.
pub async fn clean_up_prune(config: &Config) -> Result<(), ArchiveError> {
    let mut node = NodeLock::take(config)?;
    if !node.is_set()? {
        return Ok(());
    }
    match take_cluster(config).await {
        // Another node's by now.
        Err(LockError::Held { .. }) => {}
        taken => taken?.release().await,
    }
    clean_up_push(config).await?;
    node.clear()
}

async fn take_cluster(config: &Config) -> Result<ClusterLock, LockError> {
    let shared = Shared::open(config).await?;
    ClusterLock::take(&shared, WORK, &config.node.hostname).await
}

struct NodeLock {
    path: PathBuf,
    lock: MarkedLock,
}

impl NodeLock {
    fn take(config: &Config) -> Result<Self, ArchiveError> {
        let path = config.node.state_directory.join("prune.lock");
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { path, lock }),
            Ok(None) => Err(ArchiveError::PruneBusy),
            Err(source) => Err(ArchiveError::Lock { path, source }),
        }
    }

    fn is_set(&mut self) -> Result<bool, ArchiveError> {
        let mark = self.lock.mark().map_err(|source| self.failed(source))?;
        Ok(!mark.is_empty())
    }

    fn set(&mut self, mark: &str) -> Result<(), ArchiveError> {
        let set = self.lock.set_mark(mark);
        set.map_err(|source| self.failed(source))
    }

    fn clear(&mut self) -> Result<(), ArchiveError> {
        self.lock.clear().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> ArchiveError {
        ArchiveError::Lock {
            path: self.path.clone(),
            source,
        }
    }
}
