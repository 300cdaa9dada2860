//! What retention did on purpose: `keepers/{system identifier}-{backup}.json` and `pruned/{system identifier}.json`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Shared, SharedError};

/// A backup that xdb, and no person, marked permanent; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    v: u32,
    pub system_identifier: u64,
    pub backup: String,
    /// Host name of the node.
    pub by: String,
    pub at: Timestamp,
    pub why: String,
}

impl Keeper {
    pub fn new(system_identifier: u64, backup: &str, by: &str, at: Timestamp, why: &str) -> Self {
        Self {
            v: 1,
            system_identifier,
            backup: backup.to_owned(),
            by: by.to_owned(),
            at,
            why: why.to_owned(),
        }
    }
}

/// How far retention has deleted; the object's JSON.
///
/// Written before anything is deleted: what is missing below it is no loss, and what is listed is not to be counted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    v: u32,
    pub system_identifier: u64,
    /// The first WAL segment that was left alone, by timeline and position; `None` where no WAL was deleted.
    pub before: Option<String>,
    /// Backups whose deletion was begun and may not have come to its end.
    pub deleting: BTreeSet<String>,
    /// Host name of the node.
    pub by: String,
    pub at: Timestamp,
}

impl Pruned {
    pub fn new(
        system_identifier: u64,
        before: Option<String>,
        deleting: BTreeSet<String>,
        by: &str,
        at: Timestamp,
    ) -> Self {
        Self {
            v: 1,
            system_identifier,
            before,
            deleting,
            by: by.to_owned(),
            at,
        }
    }
}

impl Shared {
    /// The keepers of the cluster with this system identifier.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or one of them cannot be read.
    pub async fn keepers(&self, system_identifier: u64) -> Result<Vec<Keeper>, SharedError> {
        let prefix = self.key(&format!("keepers/{system_identifier}-"));
        let mut keepers = Vec::new();
        for object in self.bucket.list(&prefix).await? {
            let content = self.bucket.get(&object.key).await?;
            let keeper = serde_json::from_slice(&content);
            keepers.push(keeper.map_err(|error| self.damaged(&object.key, &error))?);
        }
        Ok(keepers)
    }

    /// Records `keeper`, before it is marked: a mark without its record would be taken for a person's.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_keeper(&self, keeper: &Keeper) -> Result<(), SharedError> {
        let key = self.keeper_key(keeper.system_identifier, &keeper.backup);
        let content = serde_json::to_vec(keeper).expect("plain values");
        Ok(self.bucket.put(&key, content).await?)
    }

    /// Forgets that xdb marked `backup`, after it is unmarked.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn drop_keeper(
        &self,
        system_identifier: u64,
        backup: &str,
    ) -> Result<(), SharedError> {
        let key = self.keeper_key(system_identifier, backup);
        Ok(self.bucket.delete(&key).await?)
    }

    /// How far retention has deleted; `None` where it never did.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn pruned(&self, system_identifier: u64) -> Result<Option<Pruned>, SharedError> {
        let key = self.pruned_key(system_identifier);
        let Some((content, _)) = self.bucket.get_tagged(&key).await? else {
            return Ok(None);
        };
        let pruned = serde_json::from_slice(&content);
        pruned.map(Some).map_err(|error| self.damaged(&key, &error))
    }

    /// Keeps `pruned` in place of what was there; the caller holds the lock for it.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_pruned(&self, pruned: &Pruned) -> Result<(), SharedError> {
        let key = self.pruned_key(pruned.system_identifier);
        let content = serde_json::to_vec(pruned).expect("plain values");
        Ok(self.bucket.put(&key, content).await?)
    }

    fn keeper_key(&self, system_identifier: u64, backup: &str) -> String {
        self.key(&format!("keepers/{system_identifier}-{backup}.json"))
    }

    fn pruned_key(&self, system_identifier: u64) -> String {
        self.key(&format!("pruned/{system_identifier}.json"))
    }
}
