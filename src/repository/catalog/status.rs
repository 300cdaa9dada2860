//! What a backup is worth: one judgement for every verb, from its sentinel, its parts, its chain, its WAL and its newest
//! restore test. Pure.

use super::{Backup, Catalog};

/// What a backup is worth, and why it is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupStatus {
    pub state: State,
    /// `None` for a complete one.
    pub reason: Option<String>,
}

/// In a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    Complete,
    /// It never finished: it has no sentinel.
    Incomplete,
    /// The bucket lacks what a restore needs.
    Unusable,
    /// Its newest restore test, or that of a backup that it builds on, failed.
    Disproved,
    /// Another node was promoted before it finished.
    Left,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Unusable => "unusable",
            Self::Disproved => "disproved",
            Self::Left => "left",
        }
    }
}

impl Catalog {
    /// Judges `backup`.
    pub fn status(&self, backup: &Backup) -> BackupStatus {
        let unfinished = backup.sentinel.is_none() && backup.damage.is_none();
        let states = [
            (
                State::Unusable,
                self.why_unusable(backup)
                    .or_else(|| self.why_doubtful(backup)),
            ),
            (State::Disproved, self.why_disproved(backup)),
            (State::Left, self.why_superseded(backup)),
        ];
        let found = states
            .into_iter()
            .find_map(|(state, reason)| Some((state, reason?)));
        let (state, reason) = found.map_or((State::Complete, None), |(state, reason)| {
            let state = if unfinished { State::Incomplete } else { state };
            (state, Some(reason))
        });
        BackupStatus { state, reason }
    }

    pub fn is_complete(&self, backup: &Backup) -> bool {
        self.status(backup).state == State::Complete
    }

    /// Why a restore test speaks against `backup`, or against what it builds on, with none that passed since.
    pub(super) fn why_disproved(&self, backup: &Backup) -> Option<String> {
        let own = backup.tests.newest.as_ref();
        if let Some(failed) = own.filter(|own| own.disproves()) {
            return failed.failure();
        }
        // A test that passed has restored all of the chain.
        let passed_at = own.filter(|own| own.passed).map(|own| own.at);
        let chain = self.chain(backup).unwrap_or_default();
        chain.into_iter().find_map(|parent| {
            let test = parent.tests.newest.as_ref();
            let failed = test.filter(|test| test.disproves() && Some(test.at) > passed_at)?;
            Some(format!(
                "it builds on {}: {}",
                parent.name,
                failed.failure()?
            ))
        })
    }

    /// The backup that a restore begins with: the newest complete one; one that a promotion left where there is no other.
    pub fn newest_good(&self) -> Option<&Backup> {
        let judged = self.backups.iter().filter_map(|backup| {
            let state = self.status(backup).state;
            let good = matches!(state, State::Complete | State::Left);
            good.then_some((state == State::Complete, backup))
        });
        let newest = judged.max_by_key(|(complete, backup)| (*complete, backup.finished_at));
        newest.map(|(_, backup)| backup)
    }

    /// The same; where none is good, the one that finished last, to say why it is not.
    pub fn newest_to_judge(&self) -> Option<&Backup> {
        self.newest_good().or_else(|| self.newest())
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
