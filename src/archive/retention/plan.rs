//! What is kept and what goes, with its reason. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::ArchiveState;
use super::rules::{FULLS, RetentionPlanRules, Why, why_not_counted};
use super::wal::{WalPlan, plan_wal, position};
use crate::config::Retention;
use crate::model::WalSegment;
use crate::repository::catalog::Backup;
use crate::repository::older_than_all;

/// What is done with one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Keep,
    /// Kept, and marked permanent by xdb.
    Mark,
    Delete,
    /// xdb's own mark is taken away first.
    UnmarkAndDelete,
}

impl Action {
    pub fn keeps(self) -> bool {
        matches!(self, Self::Keep | Self::Mark)
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Mark => "mark permanent",
            Self::Delete => "delete",
            Self::UnmarkAndDelete => "unmark, delete",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupPlan {
    pub name: String,
    pub action: Action,
    pub reason: String,
    /// As stored.
    pub bytes: u64,
}

/// All that stands in a repository, decided; histories are always kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunePlan {
    pub backups: Vec<BackupPlan>,
    pub wal: Vec<WalPlan>,
    /// The full backup before which all is deleted that is not spared, and the segment that it starts in.
    #[serde(skip)]
    pub before: Option<(String, WalSegment)>,
}

impl PrunePlan {
    /// Stored bytes that are deleted, and that are kept.
    pub fn bytes(&self) -> (u64, u64) {
        let backups = self.backups.iter().map(|it| (it.action.keeps(), it.bytes));
        let all = backups.chain(self.wal.iter().map(|it| (it.keep, it.bytes)));
        all.fold((0, 0), |(deleted, kept), (keeps, bytes)| match keeps {
            true => (deleted, kept + bytes),
            false => (deleted + bytes, kept),
        })
    }

    pub fn deleted(&self) -> impl Iterator<Item = &BackupPlan> {
        self.backups.iter().filter(|it| !it.action.keeps())
    }

    pub fn deletes_nothing(&self) -> bool {
        self.deleted().next().is_none() && self.wal.iter().all(|it| it.keep)
    }
}

/// Plans what `policy` keeps of `state` at `now`.
///
/// # Errors
/// Why nothing may be deleted at all.
pub fn plan_retention(
    state: &ArchiveState,
    policy: Retention,
    now: Timestamp,
) -> Result<PrunePlan, String> {
    if let Some(reason) = why_not(state) {
        return Err(reason);
    }
    let rules = RetentionPlanRules::new(state, policy, now);
    let backups = &state.catalog.backups;
    let mut kept: BTreeMap<&str, Why> = BTreeMap::new();
    if rules.newest().is_none() {
        return Ok(keep_all(state));
    }
    for backup in backups {
        let why = rules.why_kept(backup);
        kept.extend(why.map(|why| (backup.name.as_str(), why)));
    }
    keep_chains(state, &mut kept);
    let before = kept_from(state, &kept);
    let decide = |backup: &Backup| {
        let (name, why) = (&backup.name, kept.get(backup.name.as_str()));
        let action = match why {
            Some(why) if why.keeper && !state.is_spared(name) => Action::Mark,
            Some(_) => Action::Keep,
            None if state.is_own_mark(name) => Action::UnmarkAndDelete,
            None => Action::Delete,
        };
        BackupPlan {
            name: name.clone(),
            action,
            reason: match why {
                Some(why) => why.reason.clone(),
                None => why_deleted(state, backup, policy),
            },
            bytes: state.bytes(backup),
        }
    };
    let decided: Vec<BackupPlan> = backups.iter().map(decide).collect();
    let spared: BTreeSet<&str> = decided
        .iter()
        .filter(|it| it.action == Action::Mark || it.action.keeps() && state.is_spared(&it.name))
        .map(|it| it.name.as_str())
        .collect();
    Ok(PrunePlan {
        wal: plan_wal(&state.catalog, before.as_ref(), &spared),
        before: before.map(|(backup, start)| (backup.name.clone(), start)),
        backups: decided,
    })
}

/// Where no backup counts, any of them and any WAL may be the last that is of use.
fn keep_all(state: &ArchiveState) -> PrunePlan {
    let keep = |backup: &Backup| {
        let nothing = "no backup can be restored, so nothing is deleted";
        let bad = why_not_counted(state, backup);
        BackupPlan {
            name: backup.name.clone(),
            action: Action::Keep,
            reason: bad.map_or_else(|| nothing.to_owned(), |bad| format!("{bad}; {nothing}")),
            bytes: state.bytes(backup),
        }
    };
    PrunePlan {
        backups: state.catalog.backups.iter().map(keep).collect(),
        wal: plan_wal(&state.catalog, None, &BTreeSet::new()),
        before: None,
    }
}

/// Why nothing may be deleted at all: what was read is not whole, or not this cluster's alone.
fn why_not(state: &ArchiveState) -> Option<String> {
    for backup in &state.catalog.backups {
        if let Some(damage) = &backup.damage {
            return Some(format!(
                "the sentinel of {} is damaged: {damage}",
                backup.name
            ));
        }
        let of = backup.sentinel.as_ref().and_then(|it| it.system_identifier);
        if let Some(of) = of.filter(|of| *of != state.system_identifier) {
            return Some(format!(
                "{} is of another cluster: its system identifier is {of}, this node's {}",
                backup.name, state.system_identifier
            ));
        }
    }
    // The programs reckon by the segment in its name which WAL is older, and would delete what it needs itself.
    let size = state.catalog.wal.size;
    let misnamed = |backup: &&Backup| !backup.is_named_after(size);
    if let Some(backup) = state.catalog.backups.iter().find(misnamed) {
        return Some(format!(
            "the name of {} does not fit its start LSN with WAL segments of {} MiB: it was taken with another segment size",
            backup.name,
            size.mebibytes()
        ));
    }
    if let Some(reason) = state.catalog.wal.foreign.values().next() {
        return Some(reason.clone());
    }
    let mut histories = state.catalog.wal.histories.iter();
    histories.find_map(|(timeline, history)| {
        let reason = history.as_ref().err()?;
        Some(format!(
            "the history of timeline {timeline} cannot be read: {reason}"
        ))
    })
}

/// What a kept backup builds on is kept, as far as it is there.
fn keep_chains<'a>(state: &'a ArchiveState, kept: &mut BTreeMap<&'a str, Why>) {
    let catalog = &state.catalog;
    let finished: Vec<(&str, bool)> = kept
        .iter()
        .map(|(name, why)| (*name, why.recovers))
        .collect();
    for (name, recovers) in finished {
        let mut child = catalog.backup(name);
        // As long as there are parents, and no longer than there are backups: a chain may be damaged.
        for _ in 0..catalog.backups.len() {
            let delta = child.and_then(|child| child.sentinel.as_ref()?.delta.as_ref());
            let parent = delta.and_then(|delta| catalog.backup(&delta.from));
            let Some(parent) = parent else { break };
            kept.entry(&parent.name)
                .or_insert_with(|| Why::of_chain(name, recovers));
            child = Some(parent);
        }
    }
}

/// The newest full backup that nothing lies before which must be kept, but for what the program spares.
fn kept_from<'a>(
    state: &'a ArchiveState,
    kept: &BTreeMap<&str, Why>,
) -> Option<(&'a Backup, WalSegment)> {
    let size = state.catalog.wal.size;
    let bounds = state.catalog.backups.iter().filter(|backup| {
        kept.get(backup.name.as_str())
            .is_some_and(|why| why.recovers || !(why.keeper || state.is_spared(&backup.name)))
    });
    let oldest = bounds.filter_map(|backup| position(backup, size)).min()?;
    let fulls = state.catalog.backups.iter().filter(|backup| {
        let sentinel = backup.sentinel.as_ref();
        sentinel.is_some_and(|sentinel| sentinel.delta.is_none())
    });
    fulls
        .filter_map(|full| Some((full, position(full, size)?)))
        .filter(|(_, start)| *start <= oldest)
        .max_by_key(|(_, start)| *start)
}

fn why_deleted(state: &ArchiveState, backup: &Backup, policy: Retention) -> String {
    if state.deleting.contains(&backup.name) {
        return "its deletion was begun, and stopped".to_owned();
    }
    if backup.sentinel.is_none() {
        return "unfinished for more than a day".to_owned();
    }
    let older = older_than_all(policy, FULLS);
    match why_not_counted(state, backup) {
        Some(reason) => format!("{older}; {reason}"),
        None => older,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
