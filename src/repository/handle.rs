//! The one way to a repository: one client of S3 a process, made at its first use, and again after a failure.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Repository, RepositoryError, Shared, SharedError};
use crate::config::RepositorySettings;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct RepositoryHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: RepositorySettings,
    opened: Mutex<Option<Shared>>,
}

impl RepositoryHandle {
    /// Nothing is opened yet.
    pub fn new(settings: RepositorySettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            opened: Mutex::new(None),
        }))
    }

    pub fn settings(&self) -> &RepositorySettings {
        &self.0.settings
    }

    /// The repository; nothing is sent until the first call. Its location is worked out each time, because an upgrade changes
    /// `{major}`.
    ///
    /// # Errors
    /// When a placeholder's value is not known here, or no client can be made; the next call tries again.
    pub async fn get(&self) -> Result<Repository, RepositoryError> {
        Repository::beside(self.shared().await?, self.settings())
    }

    /// What xdb keeps in the repository's bucket, which can be opened where the rest of its location is not known.
    ///
    /// # Errors
    /// When the bucket's name is not known here, or no client can be made; the next call tries again.
    pub async fn shared(&self) -> Result<Shared, SharedError> {
        let mut opened = self.0.opened.lock().await;
        if let Some(shared) = &*opened {
            return Ok(shared.clone());
        }
        let shared = Shared::open(self.settings()).await?;
        Ok(opened.insert(shared).clone())
    }

    /// Lists an object that does not exist: the smallest request that the permissions for archiving allow.
    ///
    /// # Errors
    /// When the repository cannot be opened, or S3 does not answer the request.
    pub async fn probe(&self) -> Result<(), RepositoryError> {
        let repository = self.get().await?;
        let key = repository.key("wal_005/xdb-probe");
        repository.bucket.list(&key).await?;
        Ok(())
    }

    /// Has the next one who asks open it: after a failure, for credentials and addresses may have changed.
    pub async fn close(&self) {
        *self.0.opened.lock().await = None;
    }
}
