//! The repository of a process that runs for long: one client of S3, made at its first use, and again after a failure.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Repository, RepositoryError, Shared, SharedError};
use crate::config::Config;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct RepositoryHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    opened: Mutex<Option<Shared>>,
}

impl RepositoryHandle {
    /// Nothing is opened yet.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            config: config.clone(),
            opened: Mutex::new(None),
        }))
    }

    /// The repository. Its location is worked out each time, because an upgrade changes `{major}`.
    ///
    /// # Errors
    /// As [`Repository::open`]; the next call tries again.
    pub async fn get(&self) -> Result<Repository, RepositoryError> {
        Repository::beside(self.shared().await?, &self.0.config)
    }

    /// What xdb keeps in the repository's bucket, which can be opened where the rest of its location is not known.
    ///
    /// # Errors
    /// As [`Shared::open`]; the next call tries again.
    pub async fn shared(&self) -> Result<Shared, SharedError> {
        let mut opened = self.0.opened.lock().await;
        if let Some(shared) = &*opened {
            return Ok(shared.clone());
        }
        let shared = Shared::open(&self.0.config).await?;
        Ok(opened.insert(shared).clone())
    }

    /// Has the next one who asks open it: after a failure, for credentials and addresses may have changed.
    pub async fn close(&self) {
        *self.0.opened.lock().await = None;
    }
}
