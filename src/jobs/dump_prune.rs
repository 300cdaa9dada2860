//! `dump-prune`: what `xdb dump prune` does, as one finding.

use super::prune::judge_deletion;
use super::{CleanUp, Job, JobResult, JobRun, Occupied, Stopwatch, Where, dumps};
use crate::config::Config;
use crate::dump::{self, DumpError, DumpPruneReport};
use crate::log;
use crate::model::{JobDetail, PruneDetail, Verdict};
use crate::repository::RepositoryHandle;

pub(crate) static JOB: Job = Job {
    name: "dump-prune",
    schedule: |schedule| &schedule.dump_prune,
    role: |_| Where::Replica,
    is_cluster_wide: true,
    needs: &["s3", "dump", "retention", "cluster"],
    // A set that a test reads must not go meanwhile.
    occupies: Some(Occupied::ReplicaDisk),
    work: |tools| Box::pin(async move { run(&tools.loaded.config, &tools.repository).await.1 }),
    clean_up: Some(CleanUp {
        run: |config, repository| {
            Box::pin(async move { Ok(dump::clean_up(&dumps(config, repository).await?).await?) })
        },
        may_be_left: "a lock may be left in the bucket",
        later: "it expires; the next `xdb dump prune` continues",
    }),
};

/// Deletes the dumps that retention does not keep; gives what the prune gave, too.
pub(crate) async fn run(
    config: &Config,
    repository: &RepositoryHandle,
) -> (Result<DumpPruneReport, DumpError>, JobRun) {
    let watch = Stopwatch::start();
    let pruned = async { dump::prune(&dumps(config, repository).await?, config.retention).await };
    let pruned = pruned.await;
    let hostname = &config.node.hostname;
    let result = match &pruned {
        Ok(report) => {
            let verdict = judge_deletion(&report.gone, &report.left);
            JobResult::of(&JOB, hostname, verdict, Some(detail(report)))
        }
        // Without a retention xdb deletes nothing, and no prune is missing.
        Err(DumpError::NoRetention) => {
            let detail = JobDetail::DumpPrune(PruneDetail::default());
            JobResult::of(&JOB, hostname, Verdict::Ok, Some(detail))
        }
        Err(error) => {
            let verdict = Verdict::Unknown(log::chain(error));
            JobResult {
                not_now: error.is_busy(),
                ..JobResult::of(&JOB, hostname, verdict, None)
            }
        }
    };
    (pruned, watch.finish(&JOB, result))
}

fn detail(report: &DumpPruneReport) -> JobDetail {
    let deleted = report.plan.deleted().map(|it| it.set.clone());
    JobDetail::DumpPrune(PruneDetail {
        deleted: Some(deleted.collect()),
        deleted_bytes: Some(report.plan.bytes().0),
        system_identifier: Some(report.system_identifier),
    })
}
