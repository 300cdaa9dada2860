//! Why a backup is kept: the window, the number of full backups, the keepers, and what is never deleted.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::wal::position;
use super::{ArchiveState, Mark};
use crate::config::Retention;
use crate::repository::catalog::{Backup, State};

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
pub(super) struct Rules<'a> {
    state: &'a ArchiveState,
    policy: Retention,
    now: Timestamp,
    /// Backups that may stand in for an older one, oldest first.
    good: Vec<&'a Backup>,
    /// The last full backup of a period, for those whose turn it is; with the period.
    keepers: BTreeMap<&'a str, String>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(state: &'a ArchiveState, policy: Retention, now: Timestamp) -> Self {
        let good = good(state);
        let keepers = keepers(&good, policy);
        Self {
            state,
            policy,
            now,
            good,
            keepers,
        }
    }

    /// The backup that finished last of those that can be restored.
    pub(super) fn newest(&self) -> Option<&'a Backup> {
        self.good.last().copied()
    }

    /// An old primary that came back may have finished a later one, of a history that was left.
    fn newest_of_newest_timeline(&self) -> Option<&'a Backup> {
        self.good
            .iter()
            .copied()
            .max_by_key(|backup| (backup.timeline, backup.finished_at))
    }

    /// By backup, not by test: testing an old one once more proves no less of a newer one.
    fn newest_proven(&self) -> Option<&'a Backup> {
        let proven = &self.state.proven;
        let mut newest_first = self.good.iter().rev().copied();
        newest_first.find(|backup| proven.contains(&backup.name))
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
            let period = self.keepers.get(name)?;
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
        // What followed a backup below the end of what was deleted is gone: it is no part of any window.
        let recovers = !is_pruned(self.state, backup);
        let why = |reason: String| {
            Some(Why {
                recovers,
                ..Why::recovers(reason)
            })
        };
        if self.newest().is_some_and(|newest| newest.name == name) {
            return why("the newest complete backup".to_owned());
        }
        if self
            .newest_of_newest_timeline()
            .is_some_and(|newest| newest.name == name)
        {
            return why("the newest complete backup of the newest timeline".to_owned());
        }
        if self
            .newest_proven()
            .is_some_and(|proven| proven.name == name)
        {
            return why("the newest that a restore test proved".to_owned());
        }
        let finished = backup.finished_at?;
        let days = self.policy.window_days.unwrap_or_default();
        if recovers && self.window_begin().is_none_or(|begin| finished >= begin) {
            return why(format!("within the window of {days} days"));
        }
        if self.base().is_some_and(|base| base.name == name) {
            return why(format!("the window of {days} days begins after it"));
        }
        let fulls = self.policy.fulls;
        let oldest = self.oldest_full()?;
        if recovers && finished >= oldest.finished_at? {
            let is_full = sentinel_is_full(backup);
            return why(match is_full {
                true => format!("one of the newest {fulls} full backups"),
                false => format!("not older than the newest {fulls} full backups"),
            });
        }
        None
    }

    fn may_be_at_work(&self, name: &str) -> bool {
        let folder = self.state.folders.get(name);
        !self.state.deleting.contains(name)
            && folder.is_none_or(|folder| self.now.duration_since(folder.newest) < AT_WORK)
    }

    /// `None` where it lies before all time.
    fn window_begin(&self) -> Option<Timestamp> {
        let days = i64::from(self.policy.window_days.unwrap_or_default());
        self.now
            .checked_sub(SignedDuration::from_hours(24 * days))
            .ok()
    }

    fn recoverable(&self) -> impl DoubleEndedIterator<Item = &'a Backup> {
        let state = self.state;
        self.good
            .iter()
            .copied()
            .filter(move |backup| !is_pruned(state, backup))
    }

    /// The newest backup from before the window: without it, the window's first moments could not be recovered to.
    fn base(&self) -> Option<&'a Backup> {
        let begin = self.window_begin()?;
        self.recoverable()
            .rfind(|backup| backup.finished_at.is_some_and(|at| at < begin))
    }

    fn oldest_full(&self) -> Option<&'a Backup> {
        let fulls = self.policy.fulls as usize;
        self.recoverable()
            .rev()
            .filter(|backup| sentinel_is_full(backup))
            .take(fulls)
            .last()
    }
}

/// The backups that may stand in for an older one, oldest first.
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
    good.sort_by_key(|backup| backup.finished_at);
    good
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

/// The last full backup of each of the newest days, weeks, months and years that have one.
fn keepers<'a>(good: &[&'a Backup], policy: Retention) -> BTreeMap<&'a str, String> {
    type Period = fn(Date) -> String;
    let periods: [(u32, Period); 4] = [
        (policy.yearly, |date| {
            date.strftime("the year %Y").to_string()
        }),
        (policy.monthly, |date| {
            date.strftime("the month %Y-%m").to_string()
        }),
        (policy.weekly, |date| {
            date.strftime("the week %G-W%V").to_string()
        }),
        (policy.daily, |date| date.strftime("the day %F").to_string()),
    ];
    let mut keepers = BTreeMap::new();
    for (count, period) in periods {
        let mut periods: Vec<String> = Vec::new();
        for backup in good.iter().rev().filter(|backup| sentinel_is_full(backup)) {
            let Some(finished) = backup.finished_at else {
                continue;
            };
            let period = period(finished.to_zoned(TimeZone::UTC).date());
            if periods.contains(&period) {
                continue;
            }
            if periods.len() >= count as usize {
                break;
            }
            // The longest period is named: it keeps the backup for longest.
            keepers
                .entry(backup.name.as_str())
                .or_insert_with(|| period.clone());
            periods.push(period);
        }
    }
    keepers
}
