//! Why a backup is kept: the window, the number of full backups, the keepers, and what is never deleted.

use jiff::{SignedDuration, Timestamp};

use super::wal::position;
use super::{ArchiveState, Mark};
use crate::config::Retention;
use crate::repository::catalog::{Backup, State};
use crate::repository::{RetentionItem, RetentionRules};

/// What the newest N of the policy are called.
pub(super) const FULLS: &str = "full backups";

/// An unfinished backup may be at work for so long.
const AT_WORK: SignedDuration = SignedDuration::from_hours(24);

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: String,
    /// It can be recovered further than to its own end, so the WAL from its start on is kept, too.
    pub(super) recovers: bool,
    /// It is to be marked permanent by xdb.
    pub(super) keeper: bool,
}

impl Why {
    fn recovers(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            recovers: true,
            keeper: false,
        }
    }

    /// The backup `child`, which is kept, builds on it.
    pub(super) fn of_chain(child: &str, recovers: bool) -> Self {
        Self {
            recovers,
            ..Self::recovers(format!("{child} builds on it"))
        }
    }

    fn alone(reason: impl Into<String>) -> Self {
        Self {
            recovers: false,
            ..Self::recovers(reason)
        }
    }
}

/// The rules, and what of the repository they go by.
pub(super) struct RetentionPlanRules<'a> {
    state: &'a ArchiveState,
    now: Timestamp,
    /// Backups that may stand in for an older one.
    good: Vec<&'a Backup>,
    by_age: RetentionRules<'a>,
}

impl<'a> RetentionPlanRules<'a> {
    pub(super) fn new(state: &'a ArchiveState, policy: Retention, now: Timestamp) -> Self {
        let good = good(state);
        let counted = good.iter().map(|backup| counted(state, backup)).collect();
        Self {
            state,
            now,
            good,
            by_age: RetentionRules::new(counted, policy, now),
        }
    }

    /// The backup that finished last of those that can be restored.
    pub(super) fn newest(&self) -> Option<&'a str> {
        self.by_age.newest()
    }

    /// An old primary that came back may have finished a later one, of a history that was left.
    fn newest_of_newest_timeline(&self) -> Option<&'a Backup> {
        self.good
            .iter()
            .copied()
            .max_by_key(|backup| (backup.timeline, backup.finished_at))
    }

    /// The first rule that keeps `backup`; `None` where none does. Chains are the plan's.
    pub(super) fn why_kept(&self, backup: &Backup) -> Option<Why> {
        let name = backup.name.as_str();
        let permanent = self.state.marks.contains_key(name);
        let Some(sentinel) = &backup.sentinel else {
            return self
                .may_be_at_work(name)
                .then(|| Why::recovers("unfinished, and younger than a day: it may be at work"));
        };
        // Half of it may be gone; a mark keeps what is left.
        let lost_its_mark = self.state.marks.get(name) == Some(&Mark::Unknown);
        if self.state.deleting.contains(name) && (!permanent || lost_its_mark) {
            return None;
        }
        if sentinel.system_identifier.is_none() {
            return Some(Why::recovers("it does not say of which cluster it is"));
        }
        let why = self.why_recoverable(backup).or_else(|| {
            if permanent && !self.state.is_own_mark(name) {
                let reason = match self.state.marks.get(name) {
                    Some(Mark::Unknown) => {
                        "its metadata.json is missing, so a permanent mark is not ruled out"
                    }
                    _ => "marked permanent by a person",
                };
                return Some(Why::alone(reason));
            }
            let period = self.by_age.keeper_of(name)?;
            Some(Why {
                keeper: true,
                ..Why::alone(format!(
                    "the last full backup of {period}, to its own end only"
                ))
            })
        });
        why.map(|why| match why_not_counted(self.state, backup) {
            Some(bad) => Why {
                reason: format!("{bad}; {}", why.reason),
                ..why
            },
            None => why,
        })
    }

    fn why_recoverable(&self, backup: &Backup) -> Option<Why> {
        let name = backup.name.as_str();
        let one = counted(self.state, backup);
        let why = |reason: String| {
            Some(Why {
                recovers: one.recovers,
                ..Why::recovers(reason)
            })
        };
        if self.newest() == Some(name) {
            return why("the newest complete backup".to_owned());
        }
        if self
            .newest_of_newest_timeline()
            .is_some_and(|newest| newest.name == name)
        {
            return why("the newest complete backup of the newest timeline".to_owned());
        }
        if self.by_age.newest_proven() == Some(name) {
            return why("the newest that a restore test proved".to_owned());
        }
        let rule = self.by_age.age_rule(&one)?;
        why(self.by_age.words(rule, FULLS))
    }

    fn may_be_at_work(&self, name: &str) -> bool {
        let folder = self.state.folders.get(name);
        !self.state.deleting.contains(name)
            && folder.is_none_or(|folder| self.now.duration_since(folder.newest) < AT_WORK)
    }
}

/// The backups that may stand in for an older one.
///
/// A backup that a promotion left does not lead to the newest timeline, however new it is. It counts only where no backup does,
/// as in a restore; otherwise it is kept by its age.
fn good(state: &ArchiveState) -> Vec<&Backup> {
    let backups = state.catalog.backups.iter();
    let stay = backups.filter(|backup| !state.deleting.contains(&backup.name));
    let of = |wanted| {
        let is_of = move |backup: &&Backup| state.catalog.status(backup).state == wanted;
        stay.clone().filter(is_of).collect::<Vec<_>>()
    };
    let mut good = of(State::Complete);
    if good.is_empty() {
        good = of(State::Left);
    }
    good.retain(|backup| why_not_counted(state, backup).is_none());
    good
}

fn counted<'a>(state: &ArchiveState, backup: &'a Backup) -> RetentionItem<'a> {
    RetentionItem {
        name: &backup.name,
        at: backup.finished_at,
        is_full: sentinel_is_full(backup),
        recovers: !is_pruned(state, backup),
        is_proven: state.proven.contains(&backup.name),
    }
}

/// Why no other backup may be deleted for the sake of `backup`.
pub(super) fn why_not_counted(state: &ArchiveState, backup: &Backup) -> Option<String> {
    let status = state.catalog.status(backup);
    match status.state {
        // A restore test that failed for whatever reason has not shown that it replaces another.
        State::Complete | State::Left => backup.tests.newest.as_ref()?.failure(),
        state => Some(format!(
            "{}: {}",
            state.word(),
            status.reason.unwrap_or_default()
        )),
    }
    .map(|reason| format!("does not count ({reason})"))
}

/// Retention has deleted the WAL that followed it.
fn is_pruned(state: &ArchiveState, backup: &Backup) -> bool {
    let wal = &state.catalog.wal;
    position(backup, wal.size).is_some_and(|start| wal.is_pruned(start))
}

fn sentinel_is_full(backup: &Backup) -> bool {
    backup
        .sentinel
        .as_ref()
        .is_some_and(|sentinel| sentinel.delta.is_none())
}
