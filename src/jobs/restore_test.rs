//! `restore-test`: what `xdb restore-test` does with the newest backup, as one finding and one for each objective.

use std::time::Duration;

use super::{Job, JobResult, JobRun, Occupied, Stopwatch, Where, judge_test};
use crate::config::{self, Loaded};
use crate::model::{Finding, JobDetail, Scope, TestReport, Verdict};
use crate::repository::RepositoryHandle;
use crate::restore::{self, Conclusion, Setup, Step, TestLevel, TestOptions, TestResult};

pub(crate) static JOB: Job = Job {
    name: "restore-test",
    schedule: |schedule| &schedule.restore_test,
    role: |settings| match settings.on_primary {
        true => Where::Primary,
        false => Where::Replica,
    },
    is_cluster_wide: true,
    needs: &["s3", "archive", "restore_test", "cluster"],
    occupies: Some(Occupied::ReplicaDisk),
    work: |tools| {
        Box::pin(async move { run(&tools.loaded, &tools.repository, &mut |_| {}).await.1 })
    },
    clean_up: None,
};

/// Tests the newest backup of the configured repository; gives the report, too.
pub(crate) async fn run(
    loaded: &Loaded,
    repository: &RepositoryHandle,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> (TestResult, JobRun) {
    let watch = Stopwatch::start();
    let report = match repository.get().await {
        Ok(repository) => {
            let setup = Setup::new(loaded, repository);
            restore::prove(&setup, &TestOptions::default(), progress).await
        }
        Err(error) => {
            let level = TestLevel::named(&loaded.config.restore_test.level);
            TestResult::not_begun(level, error.into())
        }
    };
    let verdict = judge_test(report.conclusion, report.reason.as_deref());
    let detail = JobDetail::RestoreTest(Box::new(TestReport::of(&report)));
    let hostname = &loaded.config.node.hostname;
    let mut result = JobResult {
        not_now: report.not_now,
        ..JobResult::of(&JOB, hostname, verdict, Some(detail))
    };
    // It was made: how long ago one was is no second alert.
    result.succeeded |= report.conclusion == Conclusion::Incomplete;
    result.hold_unknown();
    let wanted = &loaded.config.restore_test;
    result
        .findings
        .extend(objectives(&report, hostname, wanted));
    (report, watch.finish(&JOB, result))
}

/// What was measured, against what is wanted; nothing where nothing is wanted, or the restore was held back.
///
/// A test that did not pass leaves a warning of an earlier one as it stands, and raises none.
fn objectives(
    report: &TestResult,
    hostname: &str,
    wanted: &config::RestoreTest,
) -> Vec<(Finding, Duration)> {
    let throttled = report.conditions.is_none_or(|at| at.throttled);
    // A restore that not all could be looked at in took as long.
    let came_back = matches!(
        report.conclusion,
        Conclusion::Passed | Conclusion::Incomplete
    );
    let rto = report.rto_secs.filter(|_| came_back && !throttled);
    [
        ("rto", rto, wanted.rto_objective),
        ("rpo", report.rpo_secs, wanted.rpo_objective),
    ]
    .into_iter()
    .filter_map(|(object, measured, objective)| {
        let objective = objective?.as_secs_f64();
        let scope = Scope::Node(hostname.to_owned());
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
