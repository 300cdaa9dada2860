//! What a repository in S3 is opened with: the rooms that open one take this and not the whole configuration.

use super::{Archive, Cluster, Config, Faults, Postgres, S3};

/// The sections that say where in S3 a cluster's data lies, how S3 is reached, and which program writes there.
#[derive(Debug, Clone)]
pub struct RepositorySettings {
    pub archive: Archive,
    pub s3: S3,
    /// Its name and its account fill the templates.
    pub cluster: Cluster,
    /// The server that is archived there; its major version fills the templates.
    pub postgres: Postgres,
    /// What is wrong in those sections keeps the repository closed.
    pub faults: Faults,
}

impl Config {
    /// A copy of what a repository is opened with.
    pub fn repository_settings(&self) -> RepositorySettings {
        RepositorySettings {
            archive: self.archive.clone(),
            s3: self.s3.clone(),
            cluster: self.cluster.clone(),
            postgres: self.postgres.clone(),
            faults: self.faults.clone(),
        }
    }
}
