//! What keeps a restore test from being run, as against what it finds.

use std::path::PathBuf;
use std::time::Duration;

use super::Conclusion;
use crate::archive::ArchiveError;
use crate::dump::DumpError;
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The restore was done or tried, and it shows that the backup is bad.
    #[error("{0}")]
    Bad(String),
    #[error("refused: {reason}")]
    Refused { reason: String, hint: String },
    #[error("another restore test is running in {}", directory.display())]
    Busy { directory: PathBuf },
    #[error("no backup {name} in {repository}")]
    NoSuchBackup { name: String, repository: String },
    #[error("{repository} holds no finished backup")]
    NoBackup { repository: String },
    #[error("no dump set {set} in {repository}")]
    NoSuchSet { set: String, repository: String },
    #[error("{repository} holds no finished dump")]
    NoDump { repository: String },
    #[error("{set} has no manifest: it is being written, or never finished")]
    UnfinishedSet { set: String },
    #[error("{} has {free} free, the restore needs {needed}", directory.display())]
    NoSpace {
        directory: PathBuf,
        free: bytesize::ByteSize,
        needed: bytesize::ByteSize,
    },
    #[error("the scratch disk became full while {doing}")]
    DiskFull { doing: &'static str },
    #[error("what is restored is of PostgreSQL {wanted}, the programs in {} are of {found}", bin_directory.display())]
    WrongMajor {
        wanted: u32,
        found: String,
        bin_directory: PathBuf,
    },
    #[error("{0}")]
    History(String),
    #[error("the scratch server could not be run: {0}")]
    Server(String),
    #[error("not done after {} s", after.as_secs())]
    Deadline { after: Duration },
    #[error("S3 was lost while {doing}: {words}")]
    StorageLost { doing: &'static str, words: String },
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> Self {
        Self::Archive(error.into())
    }
}

impl RestoreError {
    /// What a test that ended so says.
    pub(super) fn conclusion(&self) -> Conclusion {
        match self {
            Self::Bad(_) => Conclusion::Failed,
            Self::Refused { .. } | Self::Busy { .. } => Conclusion::Refused,
            _ => Conclusion::NotRun,
        }
    }

    /// There is nothing to test yet, or another test is running: it says nothing, and can be asked again.
    pub(super) fn is_not_now(&self) -> bool {
        matches!(
            self,
            Self::NoBackup { .. } | Self::NoDump { .. } | Self::Busy { .. }
        )
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Bad(_) => {
                "do not count on this backup: take a new one with `xdb backup push`, then test that"
            }
            Self::Refused { hint, .. } => return Some(hint.clone()),
            Self::Busy { .. } => "wait for its end; two would compete for the disk",
            Self::NoSuchBackup { .. } | Self::NoBackup { .. } => {
                "see what is there with `xdb backup list`"
            }
            Self::NoSuchSet { .. } | Self::NoDump { .. } | Self::UnfinishedSet { .. } => {
                "see what is there with `xdb dump list`"
            }
            Self::NoSpace { .. } | Self::DiskFull { .. } => {
                "make room, or set restore_test.directory to a larger disk"
            }
            Self::WrongMajor { .. } => "install that major version and set postgres.bin_directory",
            Self::History(_) => {
                "xdb reads histories that are uncompressed, lz4 or zstd: set archive.compression to one of them"
            }
            Self::Server(_) => {
                "nothing was judged: the last lines of the scratch server's log are above"
            }
            Self::Deadline { .. } => {
                "set restore_test.timeout higher, or find out what was slow from the steps"
            }
            Self::StorageLost { .. } => "nothing was judged: test again once S3 answers",
            Self::File { .. } => "restore_test.directory must belong to the user that runs xdb",
            Self::Archive(error) => return error.hint(),
            Self::Dump(error) => return Some(error.hint()),
            Self::Postgres(error) => return Some(error.hint()),
            Self::Process(_) => "check postgres.bin_directory and archive.program",
        };
        Some(hint.to_owned())
    }
}
