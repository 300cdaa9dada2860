//! The outcome of one run of a job, and the record of it in the store.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Finding, JobDetail, Verdict};

/// The result of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub job: String,
    /// What the job worked on, such as a database; empty when there is but one.
    pub target: String,
    pub started_at: Timestamp,
    /// By the monotonic clock.
    pub elapsed: Duration,
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// The worst of the findings' verdicts, as [`Verdict::worst`] says.
    pub fn verdict(&self) -> Verdict {
        Verdict::worst(self.findings.iter().map(|finding| &finding.verdict))
    }

    pub fn finished_at(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed).unwrap_or(SignedDuration::MAX);
        self.started_at
            .saturating_add(elapsed)
            .unwrap_or(Timestamp::MAX)
    }
}

/// One run as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub job: String,
    pub target: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub verdict: Verdict,
    /// Whether the job did its work: a check that found something bad has.
    pub succeeded: bool,
    /// `None` where the run left nothing to be found again.
    pub detail: Option<JobDetail>,
}

impl Run {
    pub fn new(outcome: &Outcome, succeeded: bool, detail: Option<JobDetail>) -> Self {
        Self {
            job: outcome.job.clone(),
            target: outcome.target.clone(),
            started_at: outcome.started_at,
            finished_at: outcome.finished_at(),
            verdict: outcome.verdict(),
            succeeded,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::*;

    fn outcome(verdicts: &[Verdict]) -> Outcome {
        let finding =
            |verdict: &Verdict| Finding::new("lag", Scope::Cluster, "db2", verdict.clone());
        Outcome {
            job: "checks".to_owned(),
            target: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            elapsed: Duration::from_secs(3),
            findings: verdicts.iter().map(finding).collect(),
        }
    }

    #[test]
    fn the_worst_finding_is_the_verdict_and_the_first_of_equals_gives_the_reason() {
        let warning = || Verdict::Warning("w".to_owned());
        let unknown = || Verdict::Unknown("u".to_owned());
        let critical = |why: &str| Verdict::Critical(why.to_owned());
        for (verdicts, worst) in [
            (vec![], Verdict::Ok),
            (vec![Verdict::Ok, Verdict::Ok], Verdict::Ok),
            (vec![Verdict::Ok, warning()], warning()),
            (vec![unknown(), warning()], unknown()),
            (
                vec![unknown(), critical("1"), critical("2"), warning()],
                critical("1"),
            ),
        ] {
            assert_eq!(outcome(&verdicts).verdict(), worst, "{verdicts:?}");
        }
    }
}
