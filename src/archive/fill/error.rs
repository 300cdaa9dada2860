//! Why the archive was not filled.

use crate::archive::wal::WalError;
use crate::process::ProcessError;
use crate::repository::{RepositoryError, SharedError, WorkLockError};
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shared(#[from] SharedError),
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    #[error(transparent)]
    Lock(#[from] WorkLockError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl FillError {
    /// Another run is active on this node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Repository(error) => return Some(error.hint()),
            Self::Wal(error) => return error.hint(),
            Self::Storage(error) => return Some(error.hint()),
            Self::Shared(error) => return Some(error.hint()),
            Self::Refused { hint, .. } => return Some(hint.clone()),
            Self::Lock(error) => return Some(error.hint()),
            Self::Process(ProcessError::Deadline { .. }) => {
                "S3 may be slow or away; the deadlines are archive.push_timeout, fetch_timeout and backup_timeout"
            }
            Self::Process(_) => {
                "check archive.program, postgres.bin_directory, and who may execute them"
            }
        };
        Some(hint.to_owned())
    }
}
