//! `base-backup`, `dump` and their tests: what their verbs do, as one finding each.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Job, Ran, Stopwatch, Worked};
use crate::archive::{self, ArchiveError, PushedBackup};
use crate::config::{Config, Loaded};
use crate::dump::{self, DumpError, DumpSet, Dumps};
use crate::log;
use crate::model::{Finding, Scope, Verdict};
use crate::repository::RepositoryHandle;
use crate::restore::dump::{DumpReport, DumpSetup};
use crate::restore::{self, Conclusion, Options, Report, Setup, Step};

/// Pushes a base backup; gives what the push gave, too.
pub async fn base_backup(
    config: &Config,
    repository: &RepositoryHandle,
    full: bool,
) -> (Result<PushedBackup, ArchiveError>, Ran) {
    let watch = Stopwatch::start();
    let pushed = async { archive::push(&repository.get().await?, &config.node, full).await };
    let pushed = pushed.await;
    let worked = match &pushed {
        Ok(pushed) => {
            let job = Job::BaseBackup.name();
            tracing::info!(
                job,
                kind = pushed.kind,
                uncompressed_bytes = pushed.uncompressed_bytes,
                compressed_bytes = pushed.compressed_bytes,
                bytes_per_sec = pushed.bytes_per_sec,
                "{pushed}"
            );
            let mut detail = json!(pushed);
            detail["system_identifier"] = json!(pushed.system_identifier);
            Worked::of(Job::BaseBackup, config, Verdict::Ok, detail)
        }
        Err(error) => {
            let verdict = Verdict::Unknown(log::chain(error));
            Worked {
                not_now: error.is_busy(),
                ..Worked::of(Job::BaseBackup, config, verdict, Value::Null)
            }
        }
    };
    (pushed, watch.ran(Job::BaseBackup, worked))
}

/// Dumps every database; gives what the dump gave, too.
pub async fn dump(
    config: &Config,
    repository: &RepositoryHandle,
) -> (Result<DumpSet, DumpError>, Ran) {
    let watch = Stopwatch::start();
    let dumped = async { dump::push(&dumps(config, repository).await?, &[]).await };
    let dumped = dumped.await;
    let worked = match &dumped {
        Ok(set) => {
            let detail = json!({
                "set": set.set,
                "bytes": set.bytes(),
                "system_identifier": set.system_identifier,
            });
            Worked::of(Job::Dump, config, Verdict::Ok, detail)
        }
        Err(error) => {
            let reason = log::chain(error);
            // The program's own bad end is a verdict on the database, all else is a look that failed.
            let verdict = match error {
                DumpError::Failed { .. } => Verdict::Critical(reason),
                _ => Verdict::Unknown(reason),
            };
            Worked {
                not_now: error.is_busy(),
                ..Worked::of(Job::Dump, config, verdict, Value::Null)
            }
        }
    };
    (dumped, watch.ran(Job::Dump, worked))
}

async fn dumps(config: &Config, repository: &RepositoryHandle) -> Result<Dumps, DumpError> {
    Dumps::beside(repository.get().await?.shared, config)
}

/// How long a test must be unable to run to be worth an alert.
const COULD_NOT_RUN: Duration = Duration::from_secs(600);

impl Worked {
    /// One that could not run is tried again soon: only when that helps nothing somebody must look.
    fn hold_unknown(&mut self) {
        for (finding, hold) in &mut self.findings {
            if matches!(finding.verdict, Verdict::Unknown(_)) {
                *hold = COULD_NOT_RUN;
            }
        }
    }
}

/// What was measured, against what is wanted; nothing where nothing is wanted, or the restore was held back.
///
/// A test that did not pass leaves a warning of an earlier one as it stands, and raises none.
fn objectives(report: &Report, config: &Config) -> Vec<(Finding, Duration)> {
    let throttled = report.conditions.is_none_or(|at| at.throttled);
    // A restore that not all could be looked at in took as long.
    let came_back = matches!(
        report.conclusion,
        Conclusion::Passed | Conclusion::Incomplete
    );
    let rto = report.rto_secs.filter(|_| came_back && !throttled);
    let wanted = &config.restore_test;
    [
        ("rto", rto, wanted.rto_objective),
        ("rpo", report.rpo_secs, wanted.rpo_objective),
    ]
    .into_iter()
    .filter_map(|(object, measured, objective)| {
        let objective = objective?.as_secs_f64();
        let scope = Scope::Node(config.node.hostname.clone());
        let Some(measured) = measured else {
            let verdict = Verdict::Unknown("the last restore test did not pass".to_owned());
            let unknown = Finding::new("restore-objective", scope, object, verdict);
            return (!came_back).then_some((unknown, Duration::MAX));
        };
        let verdict = if measured > objective {
            let name = object.to_uppercase();
            Verdict::Warning(format!(
                "the {name} is {measured:.1} s, over its objective of {objective:.0} s"
            ))
        } else {
            Verdict::Ok
        };
        let mut finding = Finding::new("restore-objective", scope, object, verdict);
        finding.value = Some(measured);
        finding.threshold = Some(objective);
        finding.runbook = Some("runbooks/restore-objective.md".to_owned());
        Some((finding, Duration::ZERO))
    })
    .collect()
}

/// Tests the newest backup of the configured repository; gives the report, too.
pub async fn restore_test(
    loaded: &Loaded,
    repository: &RepositoryHandle,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> (Report, Ran) {
    let watch = Stopwatch::start();
    let report = match repository.get().await {
        Ok(repository) => {
            let setup = Setup::new(loaded, repository);
            restore::prove(&setup, &Options::default(), progress).await
        }
        Err(error) => Report::not_begun(error.into()),
    };
    let verdict = verdict(report.conclusion, report.reason.as_deref());
    let detail = serde_json::to_value(&report).unwrap_or_default();
    let mut worked = Worked {
        not_now: report.not_now,
        ..Worked::of(Job::RestoreTest, &loaded.config, verdict, detail)
    };
    // It was made: how long ago one was is no second alert.
    worked.succeeded |= report.conclusion == Conclusion::Incomplete;
    worked.hold_unknown();
    worked.findings.extend(objectives(&report, &loaded.config));
    (report, watch.ran(Job::RestoreTest, worked))
}

/// Restores the newest dump set; gives the report, too.
pub async fn dump_test(
    config: &Config,
    repository: &RepositoryHandle,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> (DumpReport, Ran) {
    let watch = Stopwatch::start();
    let report = match dumps(config, repository).await {
        Ok(dumps) => {
            let settings = config.restore_test.clone();
            restore::dump::run(&DumpSetup { dumps, settings }, None, progress).await
        }
        Err(error) => DumpReport::not_begun(error.into()),
    };
    let verdict = verdict(report.conclusion, report.reason.as_deref());
    let detail = serde_json::to_value(&report).unwrap_or_default();
    let mut worked = Worked {
        not_now: report.not_now,
        ..Worked::of(Job::DumpTest, config, verdict, detail)
    };
    worked.hold_unknown();
    (report, watch.ran(Job::DumpTest, worked))
}

fn verdict(conclusion: Conclusion, reason: Option<&str>) -> Verdict {
    let reason = reason.unwrap_or_default().to_owned();
    match conclusion {
        Conclusion::Passed => Verdict::Ok,
        Conclusion::Failed => Verdict::Critical(reason),
        // To restore all of it again soon would show no more.
        Conclusion::Incomplete => Verdict::Warning(format!("not fully looked at: {reason}")),
        Conclusion::Refused | Conclusion::NotRun => Verdict::Unknown(reason),
    }
}
