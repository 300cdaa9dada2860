//! Why the archive was not filled.

use crate::archive::wal::WalError;
use crate::repository::RepositoryError;

#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// Whatever is one of the repository's errors, or becomes one.
impl<E> From<E> for FillError
where
    RepositoryError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Repository(error.into())
    }
}

impl FillError {
    /// Another run is active on this node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Repository(error) if error.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository(error) => Some(error.hint()),
            Self::Wal(error) => error.hint(),
        }
    }
}
