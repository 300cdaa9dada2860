//! What a dump restore test found, as people and programs read it.

use serde::Serialize;

use crate::dump::LeftOut;
use crate::model::{Verdict, Verification};
use crate::restore::report::judge_verifications;
use crate::restore::server::Network;
use crate::restore::{Conclusion, RestoreError, Step};

/// A dump restore test's result; the JSON of `xdb dump test --json`.
#[derive(Debug, Clone, Serialize)]
pub struct DumpReport {
    pub passed: bool,
    pub set: Option<String>,
    pub system_identifier: Option<u64>,
    /// Of the whole test.
    pub secs: f64,
    /// What the set takes in the bucket.
    pub bytes: Option<u64>,
    pub steps: Vec<Step>,
    /// `set`, `globals`, then `database: NAME` for each.
    pub verifications: Vec<Verification>,
    /// What the set does not hold, by its manifest: none of it was tested.
    pub left_out: Vec<LeftOut>,
    /// What was not restored, and is no fault of the dump.
    pub notes: Vec<String>,
    /// What the restored databases could reach.
    pub network: Network,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// There is no set yet, or another test is running.
    #[serde(skip)]
    pub not_now: bool,
    #[serde(skip)]
    pub hint: Option<String>,
    #[serde(skip)]
    pub conclusion: Conclusion,
}

impl Default for DumpReport {
    fn default() -> Self {
        Self {
            passed: false,
            set: None,
            system_identifier: None,
            secs: 0.0,
            bytes: None,
            steps: Vec::new(),
            verifications: Vec::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
            network: Network::here(),
            reason: None,
            not_now: false,
            hint: None,
            conclusion: Conclusion::NotRun,
        }
    }
}

impl DumpReport {
    /// Of a test that could not begin.
    pub fn not_begun(error: RestoreError) -> Self {
        Self::default().conclude(Err(error))
    }

    pub(super) fn looked(&mut self, at: impl Into<String>, verdict: Verdict) {
        self.verifications.push(Verification::new(at, verdict));
    }

    /// Concludes from the outcome of the work and from the verifications.
    pub(super) fn conclude(mut self, outcome: Result<(), RestoreError>) -> Self {
        let bad = judge_verifications(&self.verifications, &[]);
        let seen = bad.map(|bad| {
            let critical = matches!(bad.verdict, Verdict::Critical(_));
            let reason = bad.verdict.reason().unwrap_or_default();
            (critical, format!("{}: {reason}", bad.name))
        });
        let (conclusion, reason, hint) = match (seen, outcome) {
            // Damage that was found counts, however the test ended.
            (Some((true, seen)), _) => (Conclusion::Failed, seen, Some(BAD.to_owned())),
            (_, Err(error)) => {
                self.not_now = error.is_not_now();
                let words = crate::log::chain(&error);
                (error.conclusion(), words, error.hint())
            }
            (Some((false, seen)), Ok(())) => (Conclusion::NotRun, seen, Some(UNKNOWN.to_owned())),
            (None, Ok(())) => {
                (self.passed, self.conclusion) = (true, Conclusion::Passed);
                return self;
            }
        };
        self.conclusion = conclusion;
        (self.reason, self.hint) = (Some(reason), hint);
        self
    }
}

const BAD: &str =
    "do not count on this dump: make a new one with `xdb dump push`, then `xdb dump test`";
const UNKNOWN: &str = "the dump was not judged: give this node what the reason names, or test the dump on a node that has it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_bad_stays_bad_and_a_lost_s3_passes_nothing() {
        let lost = || RestoreError::StorageLost {
            doing: "a dump was read",
            words: "timed out".to_owned(),
        };
        let critical = || Verdict::Critical("cut".to_owned());
        let unknown = || Verdict::Unknown("no postgis".to_owned());
        for (verdicts, outcome, conclusion, reason) in [
            (vec![Verdict::Ok], Ok(()), Conclusion::Passed, ""),
            (
                vec![Verdict::Ok, critical()],
                Ok(()),
                Conclusion::Failed,
                "database: b: cut",
            ),
            (
                vec![critical()],
                Err(lost()),
                Conclusion::Failed,
                "database: a: cut",
            ),
            (
                vec![Verdict::Ok],
                Err(lost()),
                Conclusion::NotRun,
                "S3 was lost while a dump was read: timed out",
            ),
            (
                vec![unknown(), Verdict::Ok],
                Ok(()),
                Conclusion::NotRun,
                "database: a: no postgis",
            ),
            (
                vec![unknown(), critical()],
                Ok(()),
                Conclusion::Failed,
                "database: b: cut",
            ),
        ] {
            let mut report = DumpReport::default();
            for (name, verdict) in ["database: a", "database: b"].into_iter().zip(verdicts) {
                report.looked(name, verdict);
            }
            let report = report.conclude(outcome);
            assert_eq!(
                (report.conclusion, report.reason.as_deref().unwrap_or("")),
                (conclusion, reason)
            );
            assert_eq!(report.passed, conclusion == Conclusion::Passed);
            assert_eq!(report.hint.is_some(), !report.passed);
        }
    }
}
