//! The repository as xdb reads it from the bucket: backups, WAL, timelines, and what can be recovered from them.
//!
//! - read: `read`, `backup_listing`, `sentinel`, `segment_size`, `object_versions`, `corrupt`; `kept_catalog` brings a kept listing up to date
//! - backups: `backup`, `stored_parts` and `cut` (is all of it there), `left` and `foreign`, `restore_tests`, and `status`, their one judgement
//! - WAL: `wal`, `span`, `end` (is the last segment the end), `recovery` and `window` (what a restore replays, from where to where), `verify`
//!
//! All but the first group is pure. A new fault of a backup goes into `status`, one of the archive into `verify`.

mod backup;
mod backup_listing;
mod corrupt;
mod cut;
mod end;
#[cfg(test)]
mod fixtures;
mod foreign;
mod kept_catalog;
mod left;
mod object_versions;
mod read;
mod recovery;
mod restore_tests;
mod segment_size;
mod sentinel;
mod span;
mod status;
mod stored_parts;
mod verify;
mod wal;
mod window;

pub(crate) use backup::Backup;
pub(crate) use corrupt::{
    Parts, begins_as_named, check_parts, is_read, judge_stored, read_unpacked, unpack_into,
};
pub(crate) use end::End;
pub(crate) use foreign::owners;
pub(crate) use kept_catalog::{KeptCatalog, read};
use read::unpacker;
pub(crate) use read::{HISTORY_LIMIT, parse_stored_history, stored_header};
pub(crate) use read::{decompressed, stored_files, tar_parts};
pub(crate) use recovery::{RecoveryPath, UnreadHistory, plan_recovery};
pub(crate) use restore_tests::{Tested, Tests};
pub(crate) use sentinel::{Delta, Sentinel, Tablespace};
pub(crate) use span::SegmentRange;
pub(crate) use status::{BackupStatus, State};
pub(crate) use stored_parts::StoredParts;
pub(crate) use verify::{Gap, Verified};
#[cfg(test)]
pub(crate) use wal::Stored;
pub(crate) use wal::archived_name;
pub(crate) use wal::{Wal, archived_segment, least_stored};
pub(crate) use window::Window;

use serde::{Deserialize, Serialize};

/// The suffixes of WAL-G's compressions; `none` has none.
pub(crate) const COMPRESSIONS: [&str; 4] = ["lz4", "zst", "lzma", "br"];

/// A repository at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Catalog {
    /// Oldest first, by the names that tell where they start.
    pub backups: Vec<Backup>,
    pub wal: Wal,
}

impl Catalog {
    pub fn backup(&self, name: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.name == name)
    }

    /// The backup that finished last, of those that did; one that a promotion left counts where there is no other.
    pub fn newest(&self) -> Option<&Backup> {
        // One whose sentinel is damaged counts: to pass it over would hide it.
        let finished = self
            .backups
            .iter()
            .filter(|backup| backup.finished_at.is_some());
        finished.max_by_key(|backup| (self.why_superseded(backup).is_none(), backup.finished_at))
    }

    /// `backup` and what it builds on, the full backup first.
    ///
    /// # Errors
    /// Names the parent that is not there, or not finished.
    pub fn chain<'a>(&'a self, backup: &'a Backup) -> Result<Vec<&'a Backup>, String> {
        let mut chain = vec![backup];
        while let Some(parent) = chain[chain.len() - 1]
            .sentinel
            .as_ref()
            .and_then(|s| s.delta.as_ref())
        {
            let name = &parent.from;
            match self.backup(name) {
                Some(found) if chain.iter().any(|seen| seen.name == found.name) => {
                    return Err(format!("its delta chain runs in a circle at {name}"));
                }
                Some(found) if found.sentinel.is_some() => chain.push(found),
                Some(_) => return Err(format!("its parent {name} never finished")),
                None => return Err(format!("its parent {name} is gone")),
            }
        }
        chain.reverse();
        Ok(chain)
    }

    /// Why `backup` cannot be restored, as far as listing and sentinels tell; `None` when it can.
    pub fn why_unusable(&self, backup: &Backup) -> Option<String> {
        self.why_damaged(backup)
            .or_else(|| self.why_without_wal(backup))
    }

    /// The same, apart from WAL that is missing.
    pub fn why_damaged(&self, backup: &Backup) -> Option<String> {
        self.why_unlinked(backup).or_else(|| self.why_cut(backup))
    }

    /// Why no way leads from `backup` to its end, whatever is stored of it.
    pub fn why_no_way(&self, backup: &Backup) -> Option<String> {
        self.why_unlinked(backup)
            .or_else(|| self.why_without_wal(backup))
    }

    fn why_without_wal(&self, backup: &Backup) -> Option<String> {
        let missing = self.missing_within(backup);
        missing.first().map(|span| {
            let named = span.named(self.wal.size);
            format!("WAL from its start to its finish is missing: {named}")
        })
    }

    /// What is wrong with its sentinel, or with what it builds on.
    fn why_unlinked(&self, backup: &Backup) -> Option<String> {
        if backup.sentinel.is_none() {
            return Some(match &backup.damage {
                Some(damage) => format!("its sentinel is damaged: {damage}"),
                None => "it never finished: it has no sentinel".to_owned(),
            });
        }
        match self.chain(backup) {
            Ok(chain) => chain
                .windows(2)
                .find_map(|pair| self.why_inconsistent(pair[0], pair[1])),
            Err(reason) => Some(reason),
        }
    }

    /// The segments that are missing from the start of `backup` to its finish.
    fn missing_within(&self, backup: &Backup) -> Vec<SegmentRange> {
        backup.sentinel.as_ref().map_or_else(Vec::new, |sentinel| {
            let (start, finish) = (sentinel.start_lsn, sentinel.finish_lsn);
            self.wal.missing_between(backup.timeline, start, finish)
        })
    }

    /// A delta whose parent holds pages of a history that the delta's own timeline left before (a failover in between).
    fn why_inconsistent(&self, parent: &Backup, child: &Backup) -> Option<String> {
        let finish = parent.sentinel.as_ref()?.finish_lsn;
        if parent.timeline == child.timeline {
            return None;
        }
        let history = match self.wal.histories.get(&child.timeline) {
            Some(Ok(history)) => history,
            _ => {
                return Some(format!(
                    "the history of its timeline {} cannot be read",
                    child.timeline
                ));
            }
        };
        match history.switched_from(parent.timeline) {
            Some(switch) if finish <= switch => None,
            _ => Some(format!(
                "its parent {} was taken on timeline {} after timeline {} had left it",
                parent.name, parent.timeline, child.timeline
            )),
        }
    }
}
