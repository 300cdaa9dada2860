//! Why a check could not be defined, or could not look.

use std::path::PathBuf;

use crate::pgbouncer::PgBouncerError;
use crate::postgres::PostgresError;
use crate::process::ProcessError;
use crate::storage::SharedError;
use crate::store::StoreError;

/// A check's file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{file} is not TOML: {message}")]
    Toml { file: String, message: String },
    #[error("{file}: {message}")]
    Wrong { file: String, message: String },
}

/// A check could not look.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    PgBouncer(#[from] PgBouncerError),
    #[error(transparent)]
    Shared(#[from] SharedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the query gives no column \"value\"")]
    NoValue,
    #[error("the check did not end within {secs} s")]
    Deadline { secs: u64 },
}
