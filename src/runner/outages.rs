//! Whether the services beside this node answered last, and which findings are but symptoms of one that does not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::model::{Finding, Verdict};

/// Checks that only show the symptoms of an S3 that is away.
const SYMPTOMS: [&str; 3] = ["archiver", "archive-backlog-age", "wal-volume"];

/// What the last attempt to use a service led to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Attempt {
    /// This process has not tried yet: nothing is judged by it.
    #[default]
    Missing,
    Answered,
    /// Since when, and why.
    Failed(Timestamp, String),
}

/// A service that may not answer.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Attempt>);

impl Outage {
    /// Notes the result of the last attempt; returns whether an outage began or ended with it.
    pub(crate) fn noted(&self, failure: Option<String>, now: Timestamp) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was = match &*last {
            Attempt::Failed(since, _) => Some(*since),
            Attempt::Missing | Attempt::Answered => None,
        };
        let changed = was.is_some() != failure.is_some();
        *last = failure.map_or(Attempt::Answered, |reason| {
            Attempt::Failed(was.unwrap_or(now), reason)
        });
        changed
    }

    pub(crate) fn last(&self) -> Attempt {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// Why it does not answer; `None` while it does, and before it was asked.
    pub(super) fn reason(&self) -> Option<String> {
        match self.last() {
            Attempt::Failed(_, reason) => Some(reason),
            Attempt::Missing | Attempt::Answered => None,
        }
    }
}

/// The services beside this node.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    pub s3: Outage,
    pub redis: Outage,
    pub receivers: ReceiverOutages,
}

/// The receivers of alerts beside Redis, and heartbeat URLs, by name; each is there once it was tried.
#[derive(Debug, Default)]
pub(crate) struct ReceiverOutages(Mutex<BTreeMap<String, ReceiverOutage>>);

#[derive(Debug, Default)]
struct ReceiverOutage {
    outage: Outage,
    left_out: Option<LeftOut>,
}

/// The last event that a receiver will never get.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LeftOut {
    pub at: Timestamp,
    /// Which one, and why.
    pub event: String,
}

impl ReceiverOutages {
    /// As [`Outage::noted`].
    pub(crate) fn noted(&self, name: &str, failure: Option<String>, now: Timestamp) -> bool {
        let mut all = self.all();
        let of = all.entry(name.to_owned()).or_default();
        of.outage.noted(failure, now)
    }

    /// Notes that `event` was left out.
    pub(crate) fn left_out(&self, name: &str, event: String, now: Timestamp) {
        let mut all = self.all();
        let of = all.entry(name.to_owned()).or_default();
        of.left_out = Some(LeftOut { at: now, event });
    }

    pub(crate) fn last(&self) -> Vec<(String, Attempt, Option<LeftOut>)> {
        let last = |(name, of): (&String, &ReceiverOutage)| {
            (name.clone(), of.outage.last(), of.left_out.clone())
        };
        self.all().iter().map(last).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ReceiverOutage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the cause to what is only its symptom.
pub(super) fn name_cause(findings: &mut [Finding], s3: Option<&str>) {
    let Some(cause) = s3 else { return };
    let symptoms = findings
        .iter_mut()
        .filter(|finding| SYMPTOMS.contains(&finding.check.as_str()));
    for finding in symptoms {
        let verdict = &mut finding.verdict;
        if let Verdict::Warning(reason) | Verdict::Critical(reason) | Verdict::Unknown(reason) =
            verdict
        {
            *reason = format!("{reason}; cause: {cause}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scope;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_outage_keeps_its_beginning_and_follows_its_reason() {
        let outage = Outage::default();
        assert_eq!((outage.last(), outage.reason()), (Attempt::Missing, None));
        assert!(!outage.noted(None, at(1)));
        assert!(outage.noted(Some("refused".to_owned()), at(2)));
        assert!(!outage.noted(Some("no answer".to_owned()), at(3)));
        assert_eq!(
            outage.last(),
            Attempt::Failed(at(2), "no answer".to_owned())
        );
        assert!(outage.noted(None, at(4)));
        assert_eq!((outage.last(), outage.reason()), (Attempt::Answered, None));
    }

    #[test]
    fn the_cause_is_added_to_its_symptoms_alone() {
        let finding = |check: &str, verdict| Finding::new(check, Scope::Cluster, "", verdict);
        let bad = || Verdict::Critical("5 files wait".to_owned());
        let mut findings = [
            finding("archiver", bad()),
            finding("replication-lag", bad()),
            finding("archive-backlog-age", Verdict::Ok),
        ];
        name_cause(&mut findings, None);
        assert_eq!(findings[0].verdict, bad());
        name_cause(&mut findings, Some("S3 does not answer"));
        let reasons = findings.each_ref().map(|finding| finding.verdict.reason());
        let named = Some("5 files wait; cause: S3 does not answer");
        assert_eq!(reasons, [named, Some("5 files wait"), None]);
    }
}
