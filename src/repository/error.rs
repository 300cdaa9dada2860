//! What goes wrong while the repository is read.

use std::path::PathBuf;
use std::time::Duration;

use super::{LockError, SharedError, WorkLockError};
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::storage::{StorageError, UnknownPlaceholder};

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error(transparent)]
    Placeholder(#[from] UnknownPlaceholder),
    #[error("there is no WAL-G program {program}")]
    NoProgram { program: String },
    #[error("{program} is neither wal-g nor walrus")]
    UnknownProgram { program: String },
    #[error("walrus would ignore {setting}")]
    Ignored { setting: String },
    #[error("{program} {verb} failed: {reason}")]
    Failed {
        program: String,
        verb: &'static str,
        reason: String,
    },
    #[error("cannot read the sentinel of backup {backup}: {reason}")]
    Sentinel { backup: String, reason: String },
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    #[error("{name} is not handed to PostgreSQL: {reason}")]
    Unproven { name: String, reason: String },
    #[error("cannot read the control file of {}", directory.display())]
    NoControlFile { directory: PathBuf },
    #[error("cannot write to {}", directory.display())]
    State {
        directory: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("S3 does not answer within {} s", after.as_secs())]
    NoAnswer { after: Duration },
    #[error(transparent)]
    Lock(#[from] WorkLockError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shared(SharedError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<SharedError> for RepositoryError {
    fn from(error: SharedError) -> Self {
        match error {
            SharedError::Placeholder(error) => Self::Placeholder(error),
            SharedError::Storage(error) => Self::Storage(error),
            error => Self::Shared(error),
        }
    }
}

impl From<LockError> for RepositoryError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.into())
    }
}

/// What the operator can do about a work that was stopped at its deadline.
pub(crate) const TOO_SLOW: &str = "S3 may be slow or away; the deadlines are archive.push_timeout, fetch_timeout and backup_timeout";

impl RepositoryError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Placeholder(error) => return error.hint(),
            Self::NoProgram { .. } => {
                "install wal-g (or `cargo install wal-rus`), or set archive.program to its path"
            }
            Self::UnknownProgram { .. } => {
                "archive.program names a program whose file name holds wal-g or walrus"
            }
            Self::Ignored { .. } => "take the setting out, or use wal-g",
            Self::Failed { reason, .. } if reason.contains("idle-session timeout") => {
                "TLS hides the login of walrus from xdb, so the settings of its role count: ALTER ROLE … SET idle_session_timeout = 0 for postgres.user, or set archive.program to wal-g"
            }
            Self::Failed { .. } => {
                "the program's own words are above or in the reason; it can be run by hand"
            }
            Self::Sentinel { .. } => {
                "the backup's sentinel is damaged: do not count on this backup"
            }
            Self::Refused { hint, .. } => return hint.clone(),
            Self::Unproven { .. } => {
                "without it the recovery would end too early, or follow another cluster: decide whose timeline it is, then remove it \
                 with `xdb timeline forget N --set-aside` (runbooks/foreign-backup.md)"
            }
            Self::NoControlFile { .. } => {
                "postgres.data_directory must be that of this node's server, and readable: run it as postgres"
            }
            Self::State { .. } => "node.state_directory belongs to the user that runs xdb",
            Self::NoAnswer { .. } => "check s3.endpoint, the VPC endpoint and its security group",
            Self::Lock(error) => return error.hint(),
            Self::Process(ProcessError::Deadline { .. }) => TOO_SLOW,
            Self::Process(_) => {
                "check archive.program, postgres.bin_directory, and who may execute them"
            }
            Self::Storage(error) => return error.hint(),
            Self::Shared(error) => return error.hint(),
            Self::Postgres(error) => return error.hint(),
        };
        hint.to_owned()
    }
}
