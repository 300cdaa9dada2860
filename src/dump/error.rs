//! Errors of dumps.

use std::time::Duration;

use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::repository::{LockError, RepositoryError, SharedError, WorkLockError};
use crate::storage::{StorageError, UnknownPlaceholder};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    #[error(transparent)]
    Placeholder(#[from] UnknownPlaceholder),
    #[error("there is no database {name:?} to dump")]
    NoDatabase { name: String, there: Vec<String> },
    #[error(transparent)]
    Lock(#[from] WorkLockError),
    /// The program failed: a verdict on the database, and not on S3 or the connection.
    #[error("{program} of {what} failed: {reason}")]
    Failed {
        program: &'static str,
        what: String,
        reason: String,
    },
    #[error("{version} cannot dump a server of version {server}")]
    ProgramTooOld {
        /// As the program prints it.
        version: String,
        server: u32,
    },
    #[error("cannot take a snapshot of database {database:?}")]
    Snapshot {
        database: String,
        #[source]
        source: PostgresError,
    },
    #[error("cannot lock the table {table} of database {database:?} against changes of its shape")]
    TableLock {
        database: String,
        table: String,
        #[source]
        source: PostgresError,
    },
    #[error("cannot lock the tables of {what} against changes of their shape")]
    TableLocks { what: String },
    #[error("cannot count the rows of database {database:?}")]
    Count {
        database: String,
        #[source]
        source: PostgresError,
    },
    #[error("the dump was stopped: it was not done after {} s", after.as_secs())]
    Deadline { after: Duration },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shared(SharedError),
    #[error(transparent)]
    Repository(RepositoryError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<SharedError> for DumpError {
    fn from(error: SharedError) -> Self {
        match error {
            SharedError::Placeholder(error) => Self::Placeholder(error),
            SharedError::Storage(error) => Self::Storage(error),
            error => Self::Shared(error),
        }
    }
}

impl From<RepositoryError> for DumpError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Placeholder(error) => Self::Placeholder(error),
            RepositoryError::Storage(error) => Self::Storage(error),
            error => Self::Repository(error),
        }
    }
}

impl From<LockError> for DumpError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.into())
    }
}

impl DumpError {
    /// Another dump is being pushed, from this node or another: try again later.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_busy())
    }

    /// What the operator can do.
    pub(crate) fn hint(&self) -> String {
        let hint = match self {
            Self::Placeholder(error) => return error.hint(),
            Self::NoDatabase { there, .. } => {
                return format!(
                    "empty templates and databases that allow no connections are not dumped; these are: {}",
                    there.join(", ")
                );
            }
            Self::Lock(error) => return error.hint(),
            Self::Shared(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Failed {
                program: "pg_dumpall",
                ..
            } => {
                "roles are dumped with their password hashes: postgres.user is a superuser or in pg_read_all_data"
            }
            Self::Failed { reason, .. } if reason.contains("out of shared memory") => {
                "pg_dump locks each table: raise max_locks_per_transaction on this server"
            }
            Self::Failed { .. } => {
                "the reason is pg_dump's own; nothing of this set counts, and the next dump begins again"
            }
            Self::ProgramTooOld { server, .. } => {
                return format!(
                    "set postgres.bin_directory to the programs of PostgreSQL {server}, such as /usr/lib/postgresql/{server}/bin"
                );
            }
            Self::TableLock { .. } | Self::TableLocks { .. } => {
                "pg_locks and pg_stat_activity show the session that holds the lock; dump.lock_timeout limits how long a dump waits"
            }
            Self::Snapshot { source, .. } | Self::Count { source, .. } => return source.hint(),
            Self::Deadline { .. } => {
                "S3 or PostgreSQL may be slow; dump.timeout is for all databases together"
            }
            Self::Process(_) => "postgres.bin_directory is where pg_dump and pg_dumpall are",
            Self::Storage(error) => return error.hint(),
            Self::Postgres(error) => return error.hint(),
        };
        hint.to_owned()
    }
}
