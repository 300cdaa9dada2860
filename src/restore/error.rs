//! Errors of a restore: it could not be done, or it proved that the backup is bad.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use crate::dump::DumpError;
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::repository::RepositoryError;
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The restore was done or tried, and it shows that the backup is bad.
    #[error("{0}")]
    Bad(String),
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    /// The archive does not lead to where the restore is to stop.
    #[error("{reason}")]
    Unreachable { reason: String, hint: String },
    #[error("another restore is running in {}", directory.display())]
    Busy { directory: PathBuf },
    #[error("no backup {name} in {repository}")]
    NoSuchBackup { name: String, repository: String },
    #[error("{repository} holds no finished backup")]
    NoBackup { repository: String },
    #[error("no dump set {set} in {repository}")]
    NoSuchSet { set: String, repository: String },
    #[error("{repository} holds no finished dump of every database")]
    NoDump { repository: String },
    #[error("{set} has no manifest: it is being written, or never finished")]
    UnfinishedSet { set: String },
    #[error("{} has {free} free, the restore needs {needed}", directory.display())]
    NoSpace {
        directory: PathBuf,
        free: bytesize::ByteSize,
        needed: bytesize::ByteSize,
        /// Directories of earlier tests that take room there.
        kept: Vec<PathBuf>,
    },
    #[error("the scratch disk became full while {doing}")]
    DiskFull { doing: &'static str },
    /// A dump could not be restored, which says nothing of the dump.
    #[error("{reason}")]
    NotRestored { reason: String, hint: String },
    #[error("what is restored is of PostgreSQL {wanted}, the programs in {} are of {found}", bin_directory.display())]
    WrongMajor {
        wanted: u32,
        found: String,
        bin_directory: PathBuf,
    },
    /// The live server beside it needs what the test would take.
    #[error("{0}")]
    LiveServerFirst(String),
    /// The kernel killed the test's processes for want of memory.
    #[error("it ran out of the {limit} of memory that a restore test may take here")]
    NoMemory { limit: bytesize::ByteSize },
    #[error("{0}")]
    History(String),
    #[error("the scratch server could not be run: {0}")]
    Server(String),
    /// It recovered, and every login is refused.
    #[error("the restored server refuses the login: {reason}")]
    LoginRefused { reason: String },
    /// A restore failed after the recovery, and the cluster is kept.
    #[error("{reason}; the recovered cluster is kept in {}", directory.display())]
    Kept {
        reason: String,
        directory: PathBuf,
        hint: String,
    },
    #[error("not done after {} s", after.as_secs())]
    Deadline { after: Duration },
    /// A restore for good reached its limit, which no setting changes.
    #[error("not done after {} days", after.as_secs() / 86_400)]
    TimedOut { after: Duration },
    #[error("{program} cannot fetch {name}, {judgement}: {message}")]
    Fetch {
        program: String,
        name: String,
        /// What xdb knows of the backup itself.
        judgement: &'static str,
        message: String,
    },
    #[error("S3 was lost while {doing}: {message}")]
    StorageLost {
        doing: &'static str,
        message: String,
    },
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// A hint for an operation that failed on a file or directory.
fn file_hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: make room, or name a larger one: restore_test.directory, or --target-dir of `xdb restore`"
        }
        ErrorKind::PermissionDenied => {
            "restore_test.directory, or --target-dir of `xdb restore`, must belong to the user that runs xdb"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "the volume is read-only: the kernel remounts it so after a disk error, see its log (dmesg)"
        }
        _ => "see the kernel's log (dmesg) for errors of the disk",
    }
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> Self {
        Self::Repository(error.into())
    }
}

impl RestoreError {
    /// Whether a restore for good was refused before it began: for safety, or because something that it needs is missing.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Busy { .. }
                | Self::NoSpace { .. }
                | Self::WrongMajor { .. }
        )
    }

    /// Whether there is nothing to test yet, or another test is running: the test can be run later.
    pub(crate) fn is_not_now(&self) -> bool {
        matches!(
            self,
            Self::NoBackup { .. } | Self::NoDump { .. } | Self::Busy { .. }
        )
    }

    /// What the operator can do.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Bad(_) => {
                "do not count on this backup: take a new one with `xdb backup push`, then test that"
            }
            Self::Refused { hint, .. }
            | Self::NotRestored { hint, .. }
            | Self::Unreachable { hint, .. }
            | Self::Kept { hint, .. } => {
                return Some(hint.clone());
            }
            Self::LoginRefused { .. } => {
                "postgres.user must be a superuser that may log in to at least one database of the backed up cluster; see ALTER ROLE … LOGIN, ALTER ROLE … RESET ALL and ALTER DATABASE … ALLOW_CONNECTIONS"
            }
            Self::Busy { .. } => "wait until it has ended; two restores would compete for the disk",
            Self::NoSuchBackup { .. } | Self::NoBackup { .. } => {
                "see what is there with `xdb backup list`"
            }
            Self::NoSpace { kept, .. } if !kept.is_empty() => {
                let kept: Vec<_> = kept.iter().map(|path| path.to_string_lossy()).collect();
                return Some(format!(
                    "earlier tests were kept there, and take room: {}; remove those that are no longer needed, or name a larger disk",
                    kept.join(" ")
                ));
            }
            Self::NoSuchSet { .. } | Self::NoDump { .. } | Self::UnfinishedSet { .. } => {
                "see what is there with `xdb dump list`"
            }
            Self::NoSpace { .. } | Self::DiskFull { .. } => {
                "make room, or name a larger disk: restore_test.directory, or --target-dir of `xdb restore`"
            }
            Self::WrongMajor { .. } => "install that major version and set postgres.bin_directory",
            Self::LiveServerFirst(_) => {
                "xdb retries the test automatically: the live server of this node has priority"
            }
            Self::NoMemory { .. } => {
                "nothing was judged: a test may take a quarter of this machine's memory; `WALG_DOWNLOAD_CONCURRENCY` below [archive.settings] says how much is fetched at once"
            }
            Self::History(_) => {
                "xdb reads histories that are uncompressed, lz4 or zstd: set archive.compression to one of them"
            }
            Self::Server(_) => {
                "nothing was judged: the last lines of the scratch server's log are above"
            }
            Self::Deadline { .. } => {
                "set restore_test.timeout higher, or find out what was slow from the steps"
            }
            Self::TimedOut { .. } => {
                "a disk or the network may hang: see the kernel's log (dmesg), then run `xdb restore` again"
            }
            Self::Fetch { .. } => {
                "the backup was not judged: try again, or run the program's backup-fetch by hand"
            }
            Self::StorageLost { .. } => "nothing was judged: try again once S3 answers",
            Self::File { source, .. } => file_hint(source.kind()),
            Self::Repository(error) => return Some(error.hint()),
            Self::Dump(error) => return Some(error.hint()),
            Self::Postgres(error) => return Some(error.hint()),
            Self::Process(_) => "check postgres.bin_directory and archive.program",
        };
        Some(hint.to_owned())
    }
}
