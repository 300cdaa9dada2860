//! Why there is no base backup.

use std::path::PathBuf;

use crate::repository::RepositoryError;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("cannot read {}", path.display())]
    DataDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("archiving began to fail during the backup, which waits for its WAL")]
    ArchivingBroke,
    #[error("the backup does not count: {reason}")]
    Overtaken { reason: String },
    #[error("{program} exited with 0, but {reason}")]
    NotThere { program: String, reason: String },
}

/// Whatever is one of the repository's errors, or becomes one.
impl<E> From<E> for BackupError
where
    RepositoryError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Repository(error.into())
    }
}

impl BackupError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Repository(error) if error.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Repository(error) => return error.hint(),
            Self::DataDirectory { .. } => {
                "postgres.data_directory must be that of this node's server, and readable: run it as postgres"
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
        };
        hint.to_owned()
    }
}
