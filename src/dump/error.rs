//! Errors of dumps.

use std::time::Duration;

use bytesize::ByteSize;

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
    #[error("retention.window_days is not set: no dump is deleted")]
    NoRetention,
    #[error("refused: {reason}")]
    Clock { reason: String },
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
    #[error(
        "cannot lock the table {} of database {:?} against changes of its shape{}",
        locked.table,
        locked.database,
        held(&locked.holders)
    )]
    TableLock {
        locked: Box<LockedTable>,
        #[source]
        source: PostgresError,
    },
    #[error(
        "cannot lock the tables of {what} against changes of their shape{}",
        held(holders)
    )]
    TableLocks { what: String, holders: String },
    #[error(
        "recovery conflicts ended the dump of database {database:?} on this standby {conflicts} times, and it cannot be dumped from the primary: {why}"
    )]
    Conflicts {
        database: String,
        conflicts: u32,
        why: String,
        /// The last one.
        source: Box<DumpError>,
    },
    #[error(
        "the dump was cancelled: the standby has {behind} of WAL to replay, more than {limit} (dump.max_lag_mib)"
    )]
    StandbyBehind { behind: ByteSize, limit: ByteSize },
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

#[derive(Debug)]
pub(crate) struct LockedTable {
    pub database: String,
    pub table: String,
    /// The sessions that are in the way; empty where none was seen.
    pub holders: String,
}

fn held(holders: &str) -> String {
    if holders.is_empty() {
        String::new()
    } else {
        format!(": {holders}")
    }
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
            Self::NoRetention => {
                "set for how many days backups and dumps are kept; `xdb dump prune --dry-run` then shows what it would delete"
            }
            Self::Clock { .. } => {
                "set this node's clock (`timedatectl`, chrony); nothing was deleted"
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
                "end that session (pg_terminate_backend) or wait for its end; a dump tries again until dump.timeout, and waits for dump.lock_timeout each time"
            }
            Self::Conflicts { .. } => {
                "set hot_standby_feedback = on or a longer max_standby_streaming_delay on this standby, or let the role of postgres.user log in to the primary from here"
            }
            Self::StandbyBehind { .. } => {
                "a dump's snapshot can hold the replay up: see max_standby_streaming_delay; the next dump begins again"
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
