//! What the daemon does by schedule. A job looks or works once and says what it came to; it knows no clock and no alert.

mod backups;
mod checks;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::checks::{Definition, Sampler};
use crate::cluster::Knowledge;
use crate::config::{Config, Loaded};
use crate::model::{Finding, Outcome, Scope, Verdict};

/// The jobs, in the order they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    BaseBackup,
    Dump,
    RestoreTest,
    Checks,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Primary,
    Replica,
    Everywhere,
}

/// What the jobs use.
#[derive(Debug)]
pub struct Tools {
    pub loaded: Loaded,
    pub definitions: Vec<Definition>,
    pub sampler: Sampler,
    pub known: watch::Receiver<Knowledge>,
}

/// One run of a job.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    /// How long each finding must last to be worth an alert, in the order of the findings.
    pub holds: Vec<Duration>,
    /// It did its work, whatever it found.
    pub succeeded: bool,
    /// What it needs is not there yet (no backup to test): no outcome, and no alert.
    pub lacked_prerequisite: bool,
    /// What the job wants to be found again.
    pub detail: serde_json::Value,
}

impl Job {
    pub const ALL: [Self; 4] = [
        Self::BaseBackup,
        Self::Dump,
        Self::RestoreTest,
        Self::Checks,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BaseBackup => "base-backup",
            Self::Dump => "dump",
            Self::RestoreTest => "restore-test",
            Self::Checks => "checks",
        }
    }

    /// Its schedule as configured.
    pub fn schedule(self, config: &Config) -> &str {
        match self {
            Self::BaseBackup => &config.schedule.base_backup,
            Self::Dump => &config.schedule.dump,
            Self::RestoreTest => &config.schedule.restore_test,
            Self::Checks => &config.schedule.checks,
        }
    }

    pub fn runs_on(self) -> Where {
        match self {
            Self::BaseBackup => Where::Primary,
            Self::Dump | Self::RestoreTest => Where::Replica,
            Self::Checks => Where::Everywhere,
        }
    }

    /// Whether `other` may run meanwhile: dumps and restore tests would compete for the replica's disk.
    pub fn tolerates(self, other: Self) -> bool {
        let heavy = |job| matches!(job, Self::Dump | Self::RestoreTest);
        self != other && !(heavy(self) && heavy(other))
    }

    /// Runs it once.
    pub async fn run(self, tools: &Tools) -> Ran {
        let (started_at, began) = (Timestamp::now(), Instant::now());
        let worked = match self {
            Self::BaseBackup => backups::base_backup(&tools.loaded.config).await,
            Self::Dump => backups::dump(&tools.loaded.config).await,
            Self::RestoreTest => backups::restore_test(&tools.loaded).await,
            Self::Checks => checks::run(tools).await,
        };
        let (findings, holds) = worked.findings.into_iter().unzip();
        Ran {
            outcome: Outcome {
                job: self.name().to_owned(),
                target: String::new(),
                started_at,
                elapsed: began.elapsed(),
                findings,
            },
            holds,
            succeeded: worked.succeeded,
            lacked_prerequisite: worked.lacked_prerequisite,
            detail: worked.detail,
        }
    }

    /// The one finding of a job, about the node that runs it.
    pub fn finding(self, config: &Config, verdict: Verdict) -> Finding {
        let scope = Scope::Node(config.node.hostname.clone());
        let mut finding = Finding::new(self.name(), scope, "", verdict);
        finding.runbook = Some(format!("runbooks/{}.md", self.name()));
        finding
    }
}

/// What a job's own file hands back.
struct Worked {
    findings: Vec<(Finding, Duration)>,
    succeeded: bool,
    lacked_prerequisite: bool,
    detail: serde_json::Value,
}

impl Worked {
    fn of(job: Job, config: &Config, verdict: Verdict, detail: serde_json::Value) -> Self {
        let succeeded = verdict == Verdict::Ok;
        let findings = vec![(job.finding(config, verdict), Duration::ZERO)];
        Self {
            findings,
            succeeded,
            lacked_prerequisite: false,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_runs_beside_itself_and_the_heavy_two_not_beside_each_other() {
        for job in Job::ALL {
            assert!(!job.tolerates(job), "{job:?}");
        }
        assert!(!Job::Dump.tolerates(Job::RestoreTest) && !Job::RestoreTest.tolerates(Job::Dump));
        assert!(Job::Checks.tolerates(Job::Dump) && Job::BaseBackup.tolerates(Job::Checks));
    }

    #[test]
    fn every_job_has_its_runbook() {
        for job in Job::ALL.into_iter().filter(|job| *job != Job::Checks) {
            let path = format!("{}/runbooks/{}.md", env!("CARGO_MANIFEST_DIR"), job.name());
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for part in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
                assert!(text.contains(part), "{path}: {part}");
            }
        }
    }
}
