//! What runs by schedule. A job checks or works once and returns its outcome; it knows no clock and no alert.
//!
//! A job is one file here (name, schedule, role, run, clean-up) and one line in [`JOBS`]. Beside it: its settings `schedule.x` and
//! `heartbeat.x` in `config/keys.rs`, its detail in `model/job_detail.rs`, `runbooks/x.md`, and its name in `BUILT_IN` of `checks/load.rs`;
//! tests fail where a URL or a runbook is forgotten.

pub(crate) mod base_backup;
pub(crate) mod checks;
pub(crate) mod dump;
pub(crate) mod dump_prune;
pub(crate) mod dump_test;
pub(crate) mod prune;
pub(crate) mod restore_test;

use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::checks::{LiveDefinitions, Sampler};
use crate::cluster::{Knowledge, View, speaks_for_cluster};
use crate::config::{Config, Loaded, RestoreTest, Schedule};
use crate::dump::{DumpError, Dumps};
use crate::model::{Finding, JobDetail, Outcome, Scope, Verdict};
use crate::repository::{RepositoryError, RepositoryHandle, WorkLockError};
use crate::restore::Conclusion;

/// The jobs, in the order they are listed. After an interruption they are cleaned up from the last to the first: a prune holds
/// the base backup's lock, too.
pub(crate) static JOBS: [&Job; 7] = [
    &base_backup::JOB,
    &dump::JOB,
    &restore_test::JOB,
    &dump_test::JOB,
    &prune::JOB,
    &dump_prune::JOB,
    &checks::JOB,
];

/// What is particular to one job.
#[derive(Debug)]
pub(crate) struct Job {
    pub name: &'static str,
    schedule: fn(&Schedule) -> &str,
    role: fn(&RestoreTest) -> Where,
    /// Done once for the whole cluster, by the node whose role it is; its runs are kept in the history.
    pub is_cluster_wide: bool,
    /// The sections of the configuration that it must not run without.
    needs: &'static [&'static str],
    occupies: Option<Occupied>,
    work: for<'a> fn(&'a Tools) -> LocalBoxFuture<'a, JobRun>,
    /// `None` where a run that is dropped leaves nothing behind.
    pub clean_up: Option<CleanUp>,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Primary,
    Replica,
    Everywhere,
}

impl Where {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Everywhere => "both",
        }
    }
}

/// What only one job at a time may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupied {
    /// Dumps and the tests would compete for it.
    ReplicaDisk,
    /// No base backup is taken while others are deleted.
    BaseBackups,
}

/// What is to be done after an interrupted run.
#[derive(Debug)]
pub(crate) struct CleanUp {
    pub run: for<'a> fn(
        &'a Config,
        &'a RepositoryHandle,
    ) -> LocalBoxFuture<'a, Result<(), CleanUpError>>,
    /// What may be left where it fails, and what becomes of that.
    pub may_be_left: &'static str,
    pub later: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanUpError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Dump(#[from] DumpError),
}

impl CleanUpError {
    /// The job's lock on this node cannot be used at all, or the configuration is wrong, so a retry fails, too.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Repository(
                RepositoryError::Lock(WorkLockError::File { .. }) | RepositoryError::Placeholder(_)
            ) | Self::Dump(DumpError::Lock(WorkLockError::File { .. }) | DumpError::Placeholder(_))
        )
    }
}

/// What the jobs use.
#[derive(Debug)]
pub(crate) struct Tools {
    pub loaded: Loaded,
    pub repository: RepositoryHandle,
    pub definitions: LiveDefinitions,
    pub sampler: Sampler,
    /// The daemon makes the vital checks outside of the job, and more often.
    pub watches_vital: bool,
    /// What the node knows of itself.
    pub view: watch::Receiver<View>,
    /// What it knows of the others.
    pub known: watch::Receiver<Knowledge>,
}

impl Tools {
    /// PgBouncer is known to live, or was not looked at yet.
    pub(crate) fn pgbouncer_lives(&self) -> bool {
        let view = self.view.borrow();
        view.pgbouncer.as_ref().is_none_or(|state| state.lives())
    }

    /// Whether this node judges what is about the whole cluster.
    fn speaks_for_cluster(&self, now: Timestamp) -> bool {
        let peers = &self.known.borrow().peers;
        speaks_for_cluster(self.hostname(), &self.view.borrow(), peers, now)
    }

    pub(crate) fn hostname(&self) -> &str {
        &self.loaded.config.node.hostname
    }
}

/// One run of a job.
#[derive(Debug)]
pub(crate) struct JobRun {
    pub outcome: Outcome,
    /// How long each finding must last to be worth an alert, in the order of the findings.
    pub holds: Vec<Duration>,
    /// It did its work, whatever it found.
    pub succeeded: bool,
    /// What it needs is not there yet (no backup to test), or another run of it is active: no outcome, and no alert.
    pub not_now: bool,
    /// What the job wants to be found again.
    pub detail: Option<JobDetail>,
}

impl Job {
    /// The job of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        JOBS.into_iter().find(|job| job.name == name)
    }

    /// Its schedule as configured.
    pub(crate) fn schedule<'a>(&self, settings: &'a Schedule) -> &'a str {
        (self.schedule)(settings)
    }

    pub(crate) fn runs_on(&self, settings: &RestoreTest) -> Where {
        (self.role)(settings)
    }

    /// Whether `other` may run meanwhile.
    pub(crate) fn tolerates(&self, other: &Self) -> bool {
        self.name != other.name && (self.occupies.is_none() || self.occupies != other.occupies)
    }

    /// Runs it once, unless what is configured for it is wrong.
    pub(crate) async fn run(&self, tools: &Tools) -> JobRun {
        let Some(fault) = tools.loaded.config.faults.of_any(self.needs) else {
            // Boxed: together the jobs are too large for a thread's stack.
            return (self.work)(tools).await;
        };
        let reason = format!("not run, the configuration is wrong: {fault}");
        self.unknown(tools.hostname(), Timestamp::now(), Duration::ZERO, reason)
    }

    /// A run that could not look.
    pub(crate) fn unknown(
        &self,
        hostname: &str,
        started_at: Timestamp,
        elapsed: Duration,
        reason: String,
    ) -> JobRun {
        let result = JobResult::of(self, hostname, Verdict::Unknown(reason), None);
        result.finish(self, started_at, elapsed)
    }

    /// The one finding of a job, about the node that runs it.
    fn finding(&self, hostname: &str, verdict: Verdict) -> Finding {
        let scope = Scope::Node(hostname.to_owned());
        let mut finding = Finding::new(self.name, scope, "", verdict);
        finding.runbook = Some(format!("runbooks/{}.md", self.name));
        finding
    }
}

/// When a run began, by both clocks.
struct Stopwatch {
    started_at: Timestamp,
    began: Instant,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            started_at: Timestamp::now(),
            began: Instant::now(),
        }
    }

    fn finish(self, job: &Job, result: JobResult) -> JobRun {
        result.finish(job, self.started_at, self.began.elapsed())
    }
}

/// What a job's own file hands back.
struct JobResult {
    findings: Vec<(Finding, Duration)>,
    succeeded: bool,
    not_now: bool,
    detail: Option<JobDetail>,
}

impl JobResult {
    fn of(job: &Job, hostname: &str, verdict: Verdict, detail: Option<JobDetail>) -> Self {
        let succeeded = verdict == Verdict::Ok;
        let findings = vec![(job.finding(hostname, verdict), Duration::ZERO)];
        Self {
            findings,
            succeeded,
            not_now: false,
            detail,
        }
    }

    fn finish(self, job: &Job, started_at: Timestamp, elapsed: Duration) -> JobRun {
        let (findings, holds) = self.findings.into_iter().unzip();
        JobRun {
            outcome: Outcome {
                job: job.name.to_owned(),
                target: String::new(),
                started_at,
                elapsed,
                findings,
            },
            holds,
            succeeded: self.succeeded,
            not_now: self.not_now,
            detail: self.detail,
        }
    }

    /// A test that could not run is tried again soon: only when that helps nothing somebody must look.
    fn hold_unknown(&mut self) {
        /// How long a test must be unable to run to be worth an alert.
        const COULD_NOT_RUN: Duration = Duration::from_secs(600);
        for (finding, hold) in &mut self.findings {
            if matches!(finding.verdict, Verdict::Unknown(_)) {
                *hold = COULD_NOT_RUN;
            }
        }
    }
}

async fn dumps(config: &Config, repository: &RepositoryHandle) -> Result<Dumps, DumpError> {
    Dumps::beside(repository, &config.dump, &config.node).await
}

/// The verdict of a test.
fn judge_test(conclusion: Conclusion, reason: Option<&str>) -> Verdict {
    let reason = reason.unwrap_or_default().to_owned();
    match conclusion {
        Conclusion::Passed => Verdict::Ok,
        Conclusion::Failed => Verdict::Critical(reason),
        // To restore all of it again soon would show no more.
        Conclusion::Incomplete => Verdict::Warning(format!("not fully verified: {reason}")),
        Conclusion::Refused | Conclusion::NotRun => Verdict::Unknown(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_runs_beside_itself_and_the_heavy_three_not_beside_each_other() {
        for job in JOBS {
            assert!(!job.tolerates(job), "{job:?}");
        }
        let heavy = [&dump::JOB, &restore_test::JOB, &dump_test::JOB];
        for job in heavy {
            assert!(heavy.iter().all(|other| !job.tolerates(other)), "{job:?}");
        }
        assert!(!prune::JOB.tolerates(&base_backup::JOB));
        assert!(checks::JOB.tolerates(&dump::JOB) && base_backup::JOB.tolerates(&checks::JOB));
    }

    #[test]
    fn every_job_has_its_runbook() {
        for job in JOBS.into_iter().filter(|job| job.is_cluster_wide) {
            let path = format!("{}/runbooks/{}.md", env!("CARGO_MANIFEST_DIR"), job.name);
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for part in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
                assert!(text.contains(part), "{path}: {part}");
            }
        }
    }
}
