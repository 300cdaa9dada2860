//! The repository of a process that runs for long: opened at its first use, and again when its settings were read again.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Repository, RepositoryError};
use crate::config::Config;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct RepositoryHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What the next opening uses.
    config: Mutex<Config>,
    opened: tokio::sync::Mutex<Option<Repository>>,
}

impl RepositoryHandle {
    /// Nothing is opened yet.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            config: Mutex::new(config.clone()),
            opened: tokio::sync::Mutex::new(None),
        }))
    }

    /// The repository, opened where it was not.
    ///
    /// # Errors
    /// As [`Repository::open`]; the next call tries again.
    pub async fn get(&self) -> Result<Repository, RepositoryError> {
        let mut opened = self.0.opened.lock().await;
        if let Some(repository) = &*opened {
            return Ok(repository.clone());
        }
        let config = self.0.config.lock();
        let config = config.unwrap_or_else(PoisonError::into_inner).clone();
        let repository = Repository::open(&config).await?;
        Ok(opened.insert(repository).clone())
    }

    /// Has the next one who asks open it: after a failure, for credentials and addresses may have changed.
    pub async fn close(&self) {
        *self.0.opened.lock().await = None;
    }

    /// Opens it by `config`, for all who ask from now on.
    ///
    /// # Errors
    /// As [`Repository::open`]; what was open stays.
    pub async fn reopen(&self, config: &Config) -> Result<Repository, RepositoryError> {
        let repository = Repository::open(config).await?;
        let mut opened = self.0.opened.lock().await;
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        Ok(opened.insert(repository).clone())
    }
}
