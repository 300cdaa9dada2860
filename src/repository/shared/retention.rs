//! What retention did on purpose, in one repository: `keepers/{archive}-{backup}.json` and `pruned/{archive}.json`.
//!
//! `{archive}` is the system identifier and a digest of the repository: of what another one holds these say nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Shared, SharedError};
use crate::storage::Location;

/// A cluster, by its system identifier, and where it is archived.
pub(crate) type ArchiveOf<'a> = (u64, &'a Location);

/// A backup that xdb, and no person, marked permanent; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    v: u32,
    pub system_identifier: u64,
    /// Where it is, as `s3://bucket/prefix`.
    pub repository: String,
    pub backup: String,
    /// Host name of the node.
    pub by: String,
    pub at: Timestamp,
    pub why: String,
}

impl Keeper {
    pub fn new(
        (system_identifier, repository): ArchiveOf<'_>,
        backup: &str,
        by: &str,
        at: Timestamp,
        why: &str,
    ) -> Self {
        Self {
            v: 1,
            system_identifier,
            repository: repository.to_string(),
            backup: backup.to_owned(),
            by: by.to_owned(),
            at,
            why: why.to_owned(),
        }
    }

    /// Of its object, below `xdb/{cluster}/`.
    pub fn path(&self) -> String {
        keeper_path(
            &archive_key(self.system_identifier, &self.repository),
            &self.backup,
        )
    }

    fn is_of(&self, (system_identifier, repository): ArchiveOf<'_>) -> bool {
        self.system_identifier == system_identifier && self.repository == repository.to_string()
    }
}

/// How far retention has deleted; the object's JSON.
///
/// Written before anything is deleted: what is missing below it is no loss, and what is listed is not to be counted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    v: u32,
    pub system_identifier: u64,
    /// Where was deleted, as `s3://bucket/prefix`.
    pub repository: String,
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
        (system_identifier, repository): ArchiveOf<'_>,
        before: Option<String>,
        deleting: BTreeSet<String>,
        by: &str,
        at: Timestamp,
    ) -> Self {
        Self {
            v: 1,
            system_identifier,
            repository: repository.to_string(),
            before,
            deleting,
            by: by.to_owned(),
            at,
        }
    }

    fn path(&self) -> String {
        pruned_path(&archive_key(self.system_identifier, &self.repository))
    }

    fn is_of(&self, (system_identifier, repository): ArchiveOf<'_>) -> bool {
        self.system_identifier == system_identifier && self.repository == repository.to_string()
    }
}

/// `7710554067872419855-3f1c09ab24d7e655`: a repository's own name has slashes, and may be long.
fn archive_key(system_identifier: u64, repository: &str) -> String {
    let digest = Sha256::digest(repository);
    format!("{system_identifier}-{}", hex::encode(&digest[..8]))
}

fn key_of((system_identifier, repository): ArchiveOf<'_>) -> String {
    archive_key(system_identifier, &repository.to_string())
}

fn keeper_path(archive: &str, backup: &str) -> String {
    format!("keepers/{archive}-{backup}.json")
}

fn pruned_path(archive: &str) -> String {
    format!("pruned/{archive}.json")
}

impl Shared {
    /// The keepers of this cluster in this repository.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or one of them cannot be read.
    pub async fn keepers(&self, of: ArchiveOf<'_>) -> Result<Vec<Keeper>, SharedError> {
        let prefix = self.key(&format!("keepers/{}-", key_of(of)));
        let mut keepers = Vec::new();
        for object in self.bucket.list(&prefix).await? {
            let content = self.bucket.get(&object.key).await?;
            let keeper: Keeper = serde_json::from_slice(&content)
                .map_err(|error| self.damaged(&object.key, &error))?;
            if keeper.is_of(of) {
                keepers.push(keeper);
            }
        }
        Ok(keepers)
    }

    /// Records `keeper`, before it is marked: a mark without its record would be taken for a person's.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_keeper(&self, keeper: &Keeper) -> Result<(), SharedError> {
        let content = serde_json::to_vec(keeper).expect("plain values");
        Ok(self.bucket.put(&self.key(&keeper.path()), content).await?)
    }

    /// Forgets that xdb marked `backup`, after it is unmarked.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn drop_keeper(&self, of: ArchiveOf<'_>, backup: &str) -> Result<(), SharedError> {
        let key = self.key(&keeper_path(&key_of(of), backup));
        Ok(self.bucket.delete(&key).await?)
    }

    /// How far retention has deleted; `None` where it never did.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn pruned(&self, of: ArchiveOf<'_>) -> Result<Option<Pruned>, SharedError> {
        let key = self.key(&pruned_path(&key_of(of)));
        let Some((content, _)) = self.bucket.get_tagged(&key).await? else {
            return Ok(None);
        };
        let pruned: Pruned =
            serde_json::from_slice(&content).map_err(|error| self.damaged(&key, &error))?;
        Ok(Some(pruned).filter(|pruned| pruned.is_of(of)))
    }

    /// Keeps `pruned` in place of what was there; the caller holds the lock for it.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_pruned(&self, pruned: &Pruned) -> Result<(), SharedError> {
        let content = serde_json::to_vec(pruned).expect("plain values");
        Ok(self.bucket.put(&self.key(&pruned.path()), content).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(bucket: &str, prefix: &str) -> Location {
        Location {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn records_are_of_one_cluster_in_one_repository() {
        let here = repository("b", "main/pg17");
        let keeper = Keeper::new((7, &here), "base_1", "db1", Timestamp::UNIX_EPOCH, "why");
        let pruned = Pruned::new((7, &here), None, BTreeSet::new(), "db1", keeper.at);
        for (what, of, ours) in [
            ("the same", (7, &repository("b", "main/pg17")), true),
            ("another prefix", (7, &repository("b", "moved/pg17")), false),
            ("another bucket", (7, &repository("c", "main/pg17")), false),
            ("another cluster", (8, &here), false),
        ] {
            assert_eq!(keeper.is_of(of), ours, "{what}");
            assert_eq!(pruned.is_of(of), ours, "{what}");
            let archive = key_of(of);
            assert_eq!(
                keeper_path(&archive, "base_1") == keeper.path(),
                ours,
                "{what}"
            );
            assert_eq!(pruned_path(&archive) == pruned.path(), ours, "{what}");
        }
    }

    #[test]
    fn records_are_written_where_and_as_other_versions_read_them() {
        let here = repository("b", "a");
        let of = (u64::MAX, &here);
        let keeper = Keeper::new(of, "base_1", "db1", Timestamp::UNIX_EPOCH, "why");
        assert_eq!(
            keeper.path(),
            "keepers/18446744073709551615-a2a55eccb0aa85cb-base_1.json"
        );
        assert_eq!(
            serde_json::to_string(&keeper).unwrap(),
            r#"{"v":1,"system_identifier":18446744073709551615,"repository":"s3://b/a","backup":"base_1","by":"db1","at":"1970-01-01T00:00:00Z","why":"why"}"#
        );
        let deleting = ["base_1".to_owned()].into();
        let pruned = Pruned::new(of, None, deleting, "db1", keeper.at);
        assert_eq!(
            pruned.path(),
            "pruned/18446744073709551615-a2a55eccb0aa85cb.json"
        );
        let json = r#"{"v":1,"system_identifier":18446744073709551615,"repository":"s3://b/a","before":null,"deleting":["base_1"],"by":"db1","at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(serde_json::to_string(&pruned).unwrap(), json);
        assert_eq!(serde_json::from_str::<Pruned>(json).unwrap(), pruned);
    }
}
