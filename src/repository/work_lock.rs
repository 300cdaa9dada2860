//! One run of a work at a time: a file that is locked on this node, whose mark outlives a holder that is killed, and an object
//! in the bucket for the cluster.

use std::path::{Path, PathBuf};

use super::{ClusterLock, LockError, Shared};
use crate::process::MarkedLock;

/// A kind of work that runs once at a time.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// As the bucket and messages call it.
    pub name: &'static str,
    /// The file in the state directory.
    pub file: &'static str,
    /// Says that another run holds it: the reason after "refused: ".
    pub other: &'static str,
    /// What to do then.
    pub hint: &'static str,
}

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WorkLockError {
    #[error("refused: {}", _0.other)]
    Busy(Work),
    #[error("cannot use the lock {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Cluster(#[from] LockError),
}

impl WorkLockError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Cluster(LockError::Held { .. }))
    }

    /// The same, or S3 cannot do what a cluster-wide lock needs.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Busy(_) => true,
            Self::File { .. } => false,
            Self::Cluster(error) => error.is_busy() || error.is_refusal(),
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Busy(work) => work.hint.to_owned(),
            Self::File { .. } => {
                "node.state_directory belongs to the user that runs xdb".to_owned()
            }
            Self::Cluster(error) => error.hint(),
        }
    }
}

/// This node's lock; its mark says what its holder began.
#[derive(Debug)]
pub(crate) struct NodeWorkLock {
    work: Work,
    path: PathBuf,
    lock: MarkedLock,
}

impl NodeWorkLock {
    /// # Errors
    /// [`WorkLockError::Busy`] while another process of this node holds it.
    pub(crate) fn take(state_directory: &Path, work: Work) -> Result<Self, WorkLockError> {
        let path = state_directory.join(work.file);
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { work, path, lock }),
            Ok(None) => Err(WorkLockError::Busy(work)),
            Err(source) => Err(WorkLockError::File { path, source }),
        }
    }

    /// The cluster's lock alone.
    ///
    /// # Errors
    /// [`LockError::Held`] while another node has it; otherwise when the bucket cannot be asked or written.
    pub(crate) async fn lock_cluster(
        &self,
        shared: &Shared,
        hostname: &str,
    ) -> Result<ClusterLock, LockError> {
        ClusterLock::take(shared, self.work.name, hostname).await
    }

    /// The mark as it was set; empty where there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn mark(&mut self) -> Result<String, WorkLockError> {
        self.lock.mark().map_err(|source| self.failed(source))
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set_mark(&mut self, mark: &str) -> Result<(), WorkLockError> {
        let set = self.lock.set_mark(mark);
        set.map_err(|source| self.failed(source))
    }

    /// Says that nothing is left to clean up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn clear(&mut self) -> Result<(), WorkLockError> {
        self.lock.clear().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> WorkLockError {
        WorkLockError::File {
            path: self.path.clone(),
            source,
        }
    }
}

/// The right to do a work: on this node, and in the cluster.
#[derive(Debug)]
pub(crate) struct WorkLock {
    pub node: NodeWorkLock,
    pub cluster: ClusterLock,
}

impl WorkLock {
    /// Marks this node's lock, then takes the cluster's in the name of `hostname`: by the mark both are found and given up
    /// after a signal. Without a `mark` that of the last holder stays.
    ///
    /// # Errors
    /// [`WorkLockError::Cluster`] while another node has it, or when the bucket cannot be asked or written; the mark is gone
    /// then.
    pub(crate) async fn take(
        mut node: NodeWorkLock,
        (shared, hostname): (&Shared, &str),
        mark: Option<&str>,
    ) -> Result<Self, WorkLockError> {
        if let Some(mark) = mark {
            node.set_mark(mark)?;
        }
        match node.lock_cluster(shared, hostname).await {
            Ok(cluster) => Ok(Self { node, cluster }),
            Err(error) => {
                if mark.is_some() {
                    node.clear()?;
                }
                Err(error.into())
            }
        }
    }
}
