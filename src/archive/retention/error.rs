//! Why nothing was pruned, or not all.

use std::time::Duration;

use crate::archive::backup::BackupError;
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::repository::{LockError, RepositoryError, SharedError, WorkLockError};
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// What an interrupted base backup left could not be given up.
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    #[error(transparent)]
    Lock(#[from] WorkLockError),
    #[error("retention.window_days is not set: nothing is deleted")]
    NoRetention,
    #[error("{program} would delete {what}")]
    Disagrees { program: String, what: String },
    #[error("{program} {verb} failed: {reason}")]
    Failed {
        program: String,
        verb: &'static str,
        reason: String,
    },
    #[error("not done after {} s", after.as_secs())]
    TooSlow { after: Duration },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shared(#[from] SharedError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<LockError> for RetentionError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.into())
    }
}

/// What this room tells apart itself it has under the same name.
impl From<RepositoryError> for RetentionError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Refused { reason, hint } => Self::Refused { reason, hint },
            RepositoryError::Lock(error) => error.into(),
            error => Self::Repository(error),
        }
    }
}

impl RetentionError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Lock(lock) => lock.is_busy(),
            Self::Backup(error) => error.is_busy(),
            _ => false,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Backup(error) => return error.hint(),
            Self::Repository(error) => return Some(error.hint()),
            Self::Refused { hint, .. } => return Some(hint.clone()),
            Self::NoRetention => {
                "set how many days it must be possible to go back; `xdb prune --dry-run` then shows what it would delete"
            }
            Self::Disagrees { .. } => {
                "its version or the repository is not as xdb expects: compare `xdb prune --dry-run` with the program's own `delete` without --confirm"
            }
            Self::Lock(error) => return Some(error.hint()),
            Self::Failed { reason, .. } if reason.contains("idle-session timeout") => {
                "TLS hides the login of walrus from xdb, so the settings of its role count: ALTER ROLE … SET idle_session_timeout = 0 for postgres.user, or set archive.program to wal-g"
            }
            Self::Failed { .. } => {
                "the program's own words are above or in the reason; it can be run by hand"
            }
            Self::TooSlow { .. } | Self::Process(ProcessError::Deadline { .. }) => {
                "S3 may be slow or away; the deadlines are archive.push_timeout, fetch_timeout and backup_timeout"
            }
            Self::Storage(error) => return Some(error.hint()),
            Self::Shared(error) => return Some(error.hint()),
            Self::Postgres(error) => return Some(error.hint()),
            Self::Process(_) => {
                "check archive.program, postgres.bin_directory, and who may execute them"
            }
        };
        Some(hint.to_owned())
    }
}
