//! What restores work with.

use secrecy::SecretString;

use crate::config::{Loaded, Node, Postgres, RestoreTest, SettingSource};
use crate::repository::Repository;

/// The repository, and this node's settings for restores.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub repository: Repository,
    pub settings: RestoreTest,
    pub node: Node,
    /// The repository was named by a flag: it may be another cluster's.
    pub is_other_repository: bool,
    /// All settings as variables, for the `xdb wal-fetch` of the restored server.
    pub environment: Vec<(String, SecretString)>,
}

impl Setup {
    /// That of `loaded`, whose `repository` is open.
    pub(crate) fn new(loaded: &Loaded, repository: Repository) -> Self {
        let mut keys = loaded.effective().into_iter();
        let is_other_repository = keys.any(|effective| {
            effective.key == "archive.repository"
                && matches!(effective.source, SettingSource::Flag { .. })
        });
        Self {
            repository,
            settings: loaded.config.restore_test.clone(),
            node: loaded.config.node.clone(),
            is_other_repository,
            environment: loaded.to_environment(),
        }
    }

    /// The live server of this node.
    pub(crate) fn postgres(&self) -> &Postgres {
        &self.repository.program.postgres
    }
}
