//! The verifications of a restore, in the order in which they were made.

use crate::model::{Verdict, Verification};

#[derive(Debug, Clone, Default)]
pub(crate) struct Verifications {
    made: Vec<Verification>,
    /// Names of those that may stay unknown in a test that passes: there is nothing here to verify.
    excused: Vec<String>,
}

impl Verifications {
    pub(crate) fn add(&mut self, name: impl Into<String>, verdict: Verdict) {
        self.made.push(Verification::new(name, verdict));
    }

    /// As [`Self::add`], unless the verdict is ok.
    pub(crate) fn add_unless_ok(&mut self, name: &str, verdict: Verdict) {
        if verdict != Verdict::Ok {
            self.add(name, verdict);
        }
    }

    /// Replaces the verdict of the verification `name`, which was made before.
    pub(crate) fn revise(&mut self, name: &str, verdict: Verdict) {
        match self.made.iter_mut().find(|made| made.name == name) {
            Some(made) => made.verdict = verdict,
            None => self.add(name, verdict),
        }
    }

    pub(crate) fn excuse(&mut self, name: impl Into<String>) {
        self.excused.push(name.into());
    }

    /// The verdict of the verification `name`; `None` where it was not made.
    pub(crate) fn verdict(&self, name: &str) -> Option<&Verdict> {
        let made = self.made.iter().find(|made| made.name == name)?;
        Some(&made.verdict)
    }

    /// The first that is bad.
    pub(crate) fn critical(&self) -> Option<&Verification> {
        let is_critical = |made: &&Verification| matches!(made.verdict, Verdict::Critical(_));
        self.made.iter().find(is_critical)
    }

    /// The one that keeps a test from passing: the first that is bad, else the first that is unknown and not excused.
    pub(crate) fn decisive(&self) -> Option<&Verification> {
        let is_unknown = |made: &&Verification| {
            matches!(made.verdict, Verdict::Unknown(_)) && !self.excused.contains(&made.name)
        };
        self.critical()
            .or_else(|| self.made.iter().find(is_unknown))
    }

    pub(crate) fn into_list(self) -> Vec<Verification> {
        self.made
    }
}

/// The verification and the reason of its verdict, as one sentence.
pub(crate) fn named_reason(made: &Verification) -> String {
    let reason = made.verdict.reason().unwrap_or_default();
    format!("{}: {reason}", made.name)
}
