//! Why nothing was pruned, or not all.

use std::time::Duration;

use crate::repository::{RepositoryError, TOO_SLOW};

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("retention.window_days is not set: nothing is deleted")]
    NoRetention,
    #[error("{program} would delete {what}")]
    Disagrees { program: String, what: String },
    #[error("not done after {} s", after.as_secs())]
    TooSlow { after: Duration },
}

/// Whatever is one of the repository's errors, or becomes one.
impl<E> From<E> for RetentionError
where
    RepositoryError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Repository(error.into())
    }
}

impl RetentionError {
    /// Another run of the same work is active, here or on another node: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Repository(error) if error.is_busy())
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Repository(error) => return error.hint(),
            Self::NoRetention => {
                "set how many days it must be possible to go back; `xdb prune --dry-run` then shows what it would delete"
            }
            Self::Disagrees { .. } => {
                "its version or the repository is not as xdb expects: compare `xdb prune --dry-run` with the program's own `delete` without --confirm"
            }
            Self::TooSlow { .. } => TOO_SLOW,
        };
        hint.to_owned()
    }
}
