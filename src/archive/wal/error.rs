//! Why a WAL file is not archived, or not restored.

use std::path::PathBuf;
use std::time::Duration;

use super::waits::Waits;
use crate::archive::role::RoleError;
use crate::config::ConfigError;
use crate::repository::{RepositoryError, TOO_SLOW};

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("{} is not a file that PostgreSQL archives", path.display())]
    NotArchivable { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Segment {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("what the archive holds of {name} is no good: {reason}")]
    Damaged { name: String, reason: String },
    #[error("the archived copy of {name} is cut: {key} has {bytes} bytes")]
    Cut {
        name: String,
        key: String,
        bytes: u64,
    },
    #[error("{name} makes a tablespace in {location:?}")]
    Tablespace { name: String, location: String },
    #[error("{name} is stored already, with other content")]
    Differs { name: String },
    #[error("{name} is stored twice, under two compressions")]
    Twice { name: String },
    #[error("not done after {} s", after.as_secs())]
    TooSlow { after: Duration },
    #[error("the daemon took {name} and did not answer")]
    Lost { name: String },
    #[error(
        "the server shuts down, and {name} is not stored yet: it is archived after the next start"
    )]
    Stopping { name: String },
    #[error("{name} is not stored: {why}; this standby keeps it")]
    Kept { name: String, why: Waits },
    #[error("{program} delivered a bad {name}: {reason}")]
    Delivered {
        program: String,
        name: String,
        reason: String,
    },
    #[error("{program} exited with 0, but {reason}")]
    NotThere { program: String, reason: String },
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Whatever is one of the repository's errors, or becomes one.
impl<E> From<E> for WalError
where
    RepositoryError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Repository(error.into())
    }
}

impl WalError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Repository(error) => return Some(error.hint()),
            Self::Role(error) => return Some(error.hint()),
            Self::NotArchivable { .. } => {
                "archive_command is 'xdb wal-push \"%p\"'; only WAL segments, their .partial and .backup files and timeline histories are archived"
            }
            Self::Segment { .. } => "wal-push runs in the data directory, where %p leads to pg_wal",
            Self::Differs { name } if name.ends_with(".history") => {
                "another server took the same timeline: move its files out of the prefix as runbooks/foreign-backup.md says, then archiving continues"
            }
            Self::Differs { .. } => {
                "two clusters may write to one prefix: compare their system identifiers, and delete nothing before you know"
            }
            Self::Damaged { .. } => {
                "nothing after it can be recovered: take a base backup with `xdb backup push` now"
            }
            Self::Cut { .. } => {
                "delete that object from the bucket: PostgreSQL then archives the file again"
            }
            Self::Tablespace { .. } => {
                "a restore does not replay it: it would write into the live tablespace"
            }
            Self::Twice { .. } => {
                "find out which of the two is right before one is removed: archive.compression was changed"
            }
            Self::Lost { .. } => {
                "PostgreSQL retries automatically; if it lasts, see the daemon's log"
            }
            Self::Stopping { .. } => "nothing is to be done: it is kept until then",
            Self::Kept { why, .. } => why.hint(),
            Self::Delivered { .. } => {
                "the file was not handed to PostgreSQL; the archived copy can be looked at by `xdb restore-test`"
            }
            Self::NotThere { .. } => {
                "see PostgreSQL's log for archive_command, and `xdb backup list`"
            }
            Self::Config(error) => return error.hint(),
            Self::TooSlow { .. } => TOO_SLOW,
            Self::Runtime(_) => "the system refuses threads or files: see ulimit and memory",
            Self::Usage(_) => "PostgreSQL replaces %p and %f itself; `xdb --help` lists the verbs",
        };
        Some(hint.to_owned())
    }
}
