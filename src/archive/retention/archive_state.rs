//! What a plan is made from: the repository, wholly read, and what xdb and people noted about it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::repository::catalog::{Backup, Catalog};

/// A repository and what is known of it, at one moment.
#[derive(Debug, Clone)]
pub struct ArchiveState {
    /// Of the cluster that this node runs (`pg_controldata`).
    pub system_identifier: u64,
    /// With the end of what retention has deleted before.
    pub catalog: Catalog,
    /// What stands under each backup's name, by that name.
    pub folders: BTreeMap<String, Folder>,
    /// Backups that are marked permanent, wherever.
    pub marks: BTreeMap<String, Mark>,
    /// Backups that xdb recorded to mark itself, whether they carry a mark or not.
    pub keepers: BTreeSet<String>,
    /// Backups whose deletion a stopped run had begun: they may lack parts.
    pub deleting: BTreeSet<String>,
    /// Backups that a restore test passed.
    pub proven: BTreeSet<String>,
}

/// The objects of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Relative to `basebackups_005/`, the sentinel among them.
    pub objects: BTreeSet<String>,
    /// As stored.
    pub bytes: u64,
    /// When the last of them came into the bucket, by S3's clock.
    pub newest: Timestamp,
}

/// Where a permanent backup is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Where the configured program looks: its deletions spare the backup, and the WAL from its start to its finish.
    Spared,
    /// Where only the other program looks.
    Elsewhere,
    /// Its `metadata.json`, where wal-g marks, is gone.
    Unknown,
}

impl ArchiveState {
    pub(super) fn is_spared(&self, backup: &str) -> bool {
        self.marks.get(backup) == Some(&Mark::Spared)
    }

    /// Whether the mark that `backup` carries is xdb's own.
    pub(super) fn is_own_mark(&self, backup: &str) -> bool {
        self.keepers.contains(backup) && self.marks.contains_key(backup)
    }

    pub(super) fn bytes(&self, backup: &Backup) -> u64 {
        self.folders.get(&backup.name).map_or(0, |it| it.bytes)
    }
}
