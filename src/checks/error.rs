//! Why a check could not be defined, or could not be made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::pgbouncer::PgBouncerError;
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::repository::{RepositoryError, SharedError};
use crate::store::StoreError;

/// A check's file is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{} cannot define a check: xdb raises the alert of this name itself", path.display())]
    Reserved { path: PathBuf },
    #[error("{file} is not TOML: {message}")]
    Toml {
        file: String,
        line: usize,
        message: String,
    },
    #[error("{file}: {message}")]
    Wrong {
        file: String,
        /// `None` where a key is missing.
        line: Option<usize>,
        message: String,
    },
}

impl DefinitionError {
    /// The file that is wrong.
    pub(crate) fn file(&self) -> String {
        match self {
            Self::Read { path, .. } | Self::Reserved { path } => path.display().to_string(),
            Self::Toml { file, .. } | Self::Wrong { file, .. } => file.clone(),
        }
    }

    /// The file is that of the check `name`.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        Path::new(&self.file()).file_stem() == Some(OsStr::new(name))
    }

    /// As "/etc/xdb/checks/own.toml:3: kind is \"sequel\", expected …".
    pub(crate) fn with_line(&self) -> String {
        match self {
            Self::Read { path, error } => format!("cannot read {}: {error}", path.display()),
            Self::Toml {
                file,
                line,
                message,
            } => format!("{file}:{line}: not TOML: {message}"),
            Self::Wrong {
                file,
                line: Some(line),
                message,
            } => format!("{file}:{line}: {message}"),
            Self::Wrong { .. } | Self::Reserved { .. } => self.to_string(),
        }
    }

    /// What the operator can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "the file must be readable by the user that runs xdb (postgres)",
            Self::Reserved { .. } => "give the file another name",
            Self::Toml { .. } | Self::Wrong { .. } => {
                "the files in checks/ of the package are examples; until it is mended the check of this name is the packaged one, or none"
            }
        }
    }
}

/// A check could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SampleError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    PgBouncer(#[from] PgBouncerError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Shared(#[from] SharedError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the query gives no column \"value\"")]
    NoValue,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the check has no query for PostgreSQL {major}")]
    NoQuery { major: u32 },
    #[error("SHOW {show} has no column {column}; it has {columns}")]
    NoColumn {
        show: String,
        column: String,
        columns: String,
    },
    /// What the server could not be asked for a check before, in the same run.
    #[error("{0}")]
    Before(String),
    #[error("the query gives more than {most} rows")]
    TooManyRows { most: usize },
    #[error("{0}")]
    Haproxy(String),
    #[error("the check did not end within {secs} s")]
    Deadline { secs: u64 },
}
