//! Why the archiver does not run.

use std::path::PathBuf;

use crate::process::ProcessError;
use crate::repository::RepositoryError;

#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiverError {
    #[error("cannot listen on {}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}
