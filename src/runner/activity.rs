//! What this process's runs are at and what they found last, for the metrics and the page. Kept in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::jobs::Job;
use crate::model::{AlertKey, Finding, Verdict};

#[derive(Debug, Default)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<&'static str, Timestamp>,
    /// Runs that ended, by job and by the word of their verdict.
    ended: BTreeMap<(&'static str, &'static str), u64>,
    /// By who judged them, and when.
    findings: BTreeMap<AlertKey, (&'static str, Finding, Timestamp)>,
}

impl State {
    fn take_in(&mut self, judge: &'static str, findings: &[Finding], now: Timestamp) {
        for finding in findings {
            let key = AlertKey::of(finding);
            self.findings.insert(key, (judge, finding.clone(), now));
        }
    }
}

impl Activity {
    pub(crate) fn began(&self, job: &'static Job, now: Timestamp) {
        self.lock().running.insert(job.name, now);
    }

    /// It does not run any more, whatever came of it.
    pub(crate) fn ended(&self, job: &'static Job) {
        self.lock().running.remove(job.name);
    }

    pub(super) fn count(&self, job: &'static Job, verdict: &Verdict) {
        let mut state = self.lock();
        *state.ended.entry((job.name, verdict.word())).or_default() += 1;
    }

    /// Takes in all findings of one look by `judge`: what it found before and not now is over.
    pub(crate) fn found_all(&self, judge: &'static str, findings: &[Finding], now: Timestamp) {
        let mut state = self.lock();
        state.findings.retain(|_, (by, ..)| *by != judge);
        state.take_in(judge, findings, now);
    }

    /// Takes in some findings of `judge`; the others stand.
    pub(crate) fn found(&self, judge: &'static str, findings: &[Finding], now: Timestamp) {
        self.lock().take_in(judge, findings, now);
    }

    /// When `judge` last found anything.
    pub(crate) fn last_found(&self, judge: &str) -> Option<Timestamp> {
        let state = self.lock();
        let own = state.findings.values().filter(|(by, ..)| *by == judge);
        own.map(|(.., at)| *at).max()
    }

    /// Since when `job` runs; `None` while it does not.
    pub(crate) fn running_since(&self, job: &Job) -> Option<Timestamp> {
        self.lock().running.get(job.name).copied()
    }

    /// How many runs of `job` ended in the verdict of this word.
    pub(crate) fn ended_with(&self, job: &Job, verdict: &str) -> u64 {
        let state = self.lock();
        let mut ended = state.ended.iter();
        let found = ended.find(|((name, word), _)| *name == job.name && *word == verdict);
        found.map_or(0, |(_, count)| *count)
    }

    /// The last finding of each check on each object, and when it was judged.
    pub(crate) fn findings(&self) -> Vec<(Finding, Timestamp)> {
        let state = self.lock();
        let findings = state.findings.values();
        findings
            .map(|(_, finding, at)| (finding.clone(), *at))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JOBS;
    use crate::model::Scope;

    #[test]
    fn a_whole_look_replaces_what_its_judge_found_before_and_nothing_else() {
        let finding = |check: &str| Finding::new(check, Scope::Cluster, "", Verdict::Ok);
        let activity = Activity::default();
        let now = Timestamp::UNIX_EPOCH;
        activity.found_all("checks", &[finding("a"), finding("b")], now);
        activity.found("vital", &[finding("c")], now);
        activity.found_all("checks", &[finding("b")], now);
        let found = activity.findings();
        let checks: Vec<_> = found.iter().map(|(one, _)| one.check.as_str()).collect();
        assert_eq!(checks, ["b", "c"]);
        assert_eq!(activity.last_found("checks"), Some(now));
        assert_eq!(activity.last_found("dump"), None);
    }

    #[test]
    fn runs_are_counted_by_what_came_of_them() {
        let (activity, job) = (Activity::default(), JOBS[0]);
        activity.began(job, Timestamp::UNIX_EPOCH);
        assert_eq!(activity.running_since(job), Some(Timestamp::UNIX_EPOCH));
        activity.ended(job);
        activity.count(job, &Verdict::Ok);
        assert_eq!(activity.running_since(job), None);
        assert_eq!(
            (
                activity.ended_with(job, "ok"),
                activity.ended_with(job, "critical")
            ),
            (1, 0)
        );
    }
}
