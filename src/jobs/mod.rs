//! What the daemon does by schedule. A job checks or works once and returns its outcome; it knows no clock and no alert.

mod backups;
mod checks;
mod prune;

pub use backups::{base_backup, dump, dump_test, restore_test};
pub use prune::prune;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::checks::{Definition, Sampler};
use crate::cluster::{Knowledge, View, speaks_for_cluster};
use crate::config::{Config, Loaded};
use crate::model::{Finding, Outcome, Scope, Verdict};
use crate::repository::RepositoryHandle;

/// The jobs, in the order they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    BaseBackup,
    Dump,
    RestoreTest,
    DumpTest,
    Prune,
    Checks,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Primary,
    Replica,
    Everywhere,
}

impl Where {
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Everywhere => "both",
        }
    }
}

/// What the jobs use.
#[derive(Debug)]
pub struct Tools {
    pub loaded: Loaded,
    pub repository: RepositoryHandle,
    pub definitions: Vec<Definition>,
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
    pub fn pgbouncer_lives(&self) -> bool {
        let view = self.view.borrow();
        view.pgbouncer.as_ref().is_none_or(|state| state.lives())
    }

    /// Whether this node judges what is about the whole cluster.
    fn speaks_for_cluster(&self, now: Timestamp) -> bool {
        let hostname = &self.loaded.config.node.hostname;
        let peers = &self.known.borrow().peers;
        speaks_for_cluster(hostname, &self.view.borrow(), peers, now)
    }
}

/// One run of a job.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    /// How long each finding must last to be worth an alert, in the order of the findings.
    pub holds: Vec<Duration>,
    /// It did its work, whatever it found.
    pub succeeded: bool,
    /// What it needs is not there yet (no backup to test), or another run of it is active: no outcome, and no alert.
    pub not_now: bool,
    /// What the job wants to be found again.
    pub detail: Value,
}

impl Job {
    pub const ALL: [Self; 6] = [
        Self::BaseBackup,
        Self::Dump,
        Self::RestoreTest,
        Self::DumpTest,
        Self::Prune,
        Self::Checks,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BaseBackup => "base-backup",
            Self::Dump => "dump",
            Self::RestoreTest => "restore-test",
            Self::DumpTest => "dump-test",
            Self::Prune => "prune",
            Self::Checks => "checks",
        }
    }

    /// Its schedule as configured.
    pub fn schedule(self, config: &Config) -> &str {
        match self {
            Self::BaseBackup => &config.schedule.base_backup,
            Self::Dump => &config.schedule.dump,
            Self::RestoreTest => &config.schedule.restore_test,
            Self::DumpTest => &config.schedule.dump_test,
            Self::Prune => &config.schedule.prune,
            Self::Checks => &config.schedule.checks,
        }
    }

    pub fn runs_on(self, config: &Config) -> Where {
        match self {
            Self::BaseBackup | Self::Prune => Where::Primary,
            Self::RestoreTest if config.restore_test.on_primary => Where::Primary,
            Self::Dump | Self::RestoreTest | Self::DumpTest => Where::Replica,
            Self::Checks => Where::Everywhere,
        }
    }

    /// The job of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.name() == name)
    }

    /// Done once for the whole cluster, by the node whose role it is.
    pub fn is_cluster_wide(self) -> bool {
        self != Self::Checks
    }

    /// What of a run's detail the other nodes are told.
    pub fn summary(self, detail: &Value) -> Value {
        let keys: &[&str] = match self {
            Self::BaseBackup => &["backup", "compressed_bytes", "system_identifier"],
            Self::Dump => &["set", "bytes", "system_identifier"],
            Self::RestoreTest => &[
                "backup",
                "recovered_to",
                "rto_secs",
                "rpo_secs",
                "steps",
                "system_identifier",
            ],
            Self::DumpTest => &["set", "bytes", "secs", "system_identifier"],
            Self::Prune => &["deleted", "deleted_bytes", "system_identifier"],
            Self::Checks => &[],
        };
        let pairs = keys
            .iter()
            .map(|key| ((*key).to_owned(), detail[key].clone()));
        Value::Object(pairs.collect())
    }

    /// Whether `other` may run meanwhile: dumps and the tests would compete for the replica's disk, and base backups are not
    /// taken while others are deleted.
    pub fn tolerates(self, other: Self) -> bool {
        let heavy = |job| matches!(job, Self::Dump | Self::RestoreTest | Self::DumpTest);
        let writes = |job| matches!(job, Self::BaseBackup | Self::Prune);
        self != other && !(heavy(self) && heavy(other)) && !(writes(self) && writes(other))
    }

    /// The sections of the configuration that it must not run without.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::BaseBackup => &["s3", "archive", "cluster"],
            Self::Dump => &["s3", "dump", "cluster"],
            Self::RestoreTest => &["s3", "archive", "restore_test", "cluster"],
            Self::DumpTest => &["s3", "dump", "restore_test", "cluster"],
            Self::Prune => &["s3", "archive", "retention", "cluster"],
            Self::Checks => &[],
        }
    }

    /// Runs it once, unless what is configured for it is wrong.
    pub async fn run(self, tools: &Tools) -> Ran {
        let config = &tools.loaded.config;
        if let Some(fault) = config.faults.of_any(self.needs()) {
            let verdict = Verdict::Unknown(format!("not run, the configuration is wrong: {fault}"));
            let worked = Worked {
                succeeded: false,
                ..Worked::of(self, config, verdict, Value::Null)
            };
            return Stopwatch::start().ran(self, worked);
        }
        let repository = &tools.repository;
        match self {
            // Boxed: together they are too large for a thread's stack.
            Self::BaseBackup => Box::pin(base_backup(config, repository, false)).await.1,
            Self::Dump => Box::pin(dump(config, repository)).await.1,
            Self::RestoreTest => {
                let mut silent = |_: &_| {};
                let test = restore_test(&tools.loaded, repository, &mut silent);
                Box::pin(test).await.1
            }
            Self::DumpTest => {
                let mut silent = |_: &_| {};
                let test = dump_test(config, repository, &mut silent);
                Box::pin(test).await.1
            }
            Self::Prune => Box::pin(prune(config, repository)).await.1,
            Self::Checks => {
                let watch = Stopwatch::start();
                watch.ran(self, checks::run(tools).await)
            }
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

    fn ran(self, job: Job, worked: Worked) -> Ran {
        let (findings, holds) = worked.findings.into_iter().unzip();
        Ran {
            outcome: Outcome {
                job: job.name().to_owned(),
                target: String::new(),
                started_at: self.started_at,
                elapsed: self.began.elapsed(),
                findings,
            },
            holds,
            succeeded: worked.succeeded,
            not_now: worked.not_now,
            detail: worked.detail,
        }
    }
}

/// What a job's own file hands back.
struct Worked {
    findings: Vec<(Finding, Duration)>,
    succeeded: bool,
    not_now: bool,
    detail: Value,
}

impl Worked {
    fn of(job: Job, config: &Config, verdict: Verdict, detail: Value) -> Self {
        let succeeded = verdict == Verdict::Ok;
        let findings = vec![(job.finding(config, verdict), Duration::ZERO)];
        Self {
            findings,
            succeeded,
            not_now: false,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_runs_beside_itself_and_the_heavy_three_not_beside_each_other() {
        for job in Job::ALL {
            assert!(!job.tolerates(job), "{job:?}");
        }
        let heavy = [Job::Dump, Job::RestoreTest, Job::DumpTest];
        for job in heavy {
            assert!(heavy.iter().all(|other| !job.tolerates(*other)), "{job:?}");
        }
        assert!(!Job::Prune.tolerates(Job::BaseBackup));
        assert!(Job::Checks.tolerates(Job::Dump) && Job::BaseBackup.tolerates(Job::Checks));
    }

    #[test]
    fn other_nodes_are_told_the_result_and_not_the_whole_report() {
        let report = serde_json::json!({ "backup": "base_1", "rto_secs": 1.5, "rpo_secs": null, "steps": [1, 2], "verifications": [3], "system_identifier": 7 });
        assert_eq!(
            Job::RestoreTest.summary(&report),
            serde_json::json!({ "backup": "base_1", "recovered_to": null, "rto_secs": 1.5, "rpo_secs": null, "steps": [1, 2], "system_identifier": 7 })
        );
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
