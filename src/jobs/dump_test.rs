//! `dump-test`: what `xdb dump test` does with the newest set, as one finding.

use super::{Job, JobResult, JobRun, Occupied, Stopwatch, Where, dumps, judge_test};
use crate::config::Config;
use crate::model::{DumpTestDetail, JobDetail};
use crate::repository::RepositoryHandle;
use crate::restore::Step;
use crate::restore::dump::{self, DumpReport, DumpSetup};

pub(crate) static JOB: Job = Job {
    name: "dump-test",
    schedule: |schedule| &schedule.dump_test,
    role: |_| Where::Replica,
    is_cluster_wide: true,
    needs: &["s3", "dump", "restore_test", "cluster"],
    occupies: Some(Occupied::ReplicaDisk),
    work: |tools| {
        let config = &tools.loaded.config;
        Box::pin(async move { run(config, &tools.repository, &mut |_| {}).await.1 })
    },
    clean_up: None,
};

/// Restores the newest dump set; gives the report, too.
pub(crate) async fn run(
    config: &Config,
    repository: &RepositoryHandle,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> (DumpReport, JobRun) {
    let watch = Stopwatch::start();
    let report = match dumps(config, repository).await {
        Ok(dumps) => {
            let settings = config.restore_test.clone();
            dump::run(&DumpSetup { dumps, settings }, None, progress).await
        }
        Err(error) => DumpReport::not_begun(error.into()),
    };
    let verdict = judge_test(report.conclusion, report.reason.as_deref());
    let detail = JobDetail::DumpTest(DumpTestDetail {
        set: report.set.clone(),
        bytes: report.bytes,
        secs: Some(report.secs),
        system_identifier: report.system_identifier,
    });
    let mut result = JobResult {
        not_now: report.not_now,
        ..JobResult::of(&JOB, &config.node.hostname, verdict, Some(detail))
    };
    result.hold_unknown();
    (report, watch.finish(&JOB, result))
}
