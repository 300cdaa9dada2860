//! Why there is no base backup.

use std::path::PathBuf;

use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::repository::{LockError, RepositoryError, SharedError, WorkLockError};
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    #[error(transparent)]
    Lock(#[from] WorkLockError),
    #[error("cannot read {}", path.display())]
    DataDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} {verb} failed: {reason}")]
    Failed {
        program: String,
        verb: &'static str,
        reason: String,
    },
    #[error("archiving began to fail during the backup, which waits for its WAL")]
    ArchivingBroke,
    #[error("the backup does not count: {reason}")]
    Overtaken { reason: String },
    #[error("{program} ended well, but {reason}")]
    NotThere { program: String, reason: String },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shared(#[from] SharedError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<LockError> for BackupError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.into())
    }
}

/// What this room tells apart itself it has under the same name.
impl From<RepositoryError> for BackupError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Refused { reason, hint } => Self::Refused { reason, hint },
            RepositoryError::Lock(error) => error.into(),
            error => Self::Repository(error),
        }
    }
}

impl BackupError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Repository(error) => return Some(error.hint()),
            Self::Refused { hint, .. } => return Some(hint.clone()),
            Self::Lock(error) => return Some(error.hint()),
            Self::DataDirectory { .. } => {
                "postgres.data_directory must be that of this node's server, and readable: run it as postgres"
            }
            Self::Failed { reason, .. } if reason.contains("idle-session timeout") => {
                "TLS hides the login of walrus from xdb, so the settings of its role count: ALTER ROLE … SET idle_session_timeout = 0 for postgres.user, or set archive.program to wal-g"
            }
            Self::Failed { .. } => {
                "the program's own words are above or in the reason; it can be run by hand"
            }
            Self::ArchivingBroke => {
                "see PostgreSQL's log for what `xdb wal-push` said, mend that, then push again"
            }
            Self::Overtaken { .. } => {
                "`xdb backup push` on the node that is the primary now takes a full one"
            }
            Self::NotThere { .. } => {
                "see PostgreSQL's log for archive_command, and `xdb backup list`"
            }
            Self::Process(ProcessError::Deadline { .. }) => {
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
