//! `dump-prune`: what `xdb dump prune` does, as one finding.

use super::prune::named;
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
        Ok(report) => JobResult::of(&JOB, hostname, judge(report), Some(detail(report))),
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

fn judge(report: &DumpPruneReport) -> Verdict {
    if !report.gone.is_empty() {
        let gone = named(&report.gone);
        return Verdict::Critical(format!(
            "objects of dumps that retention keeps are missing: {gone}"
        ));
    }
    if !report.left.is_empty() {
        let left = named(&report.left);
        return Verdict::Warning(format!(
            "objects of dumps that retention deletes still exist: {left}"
        ));
    }
    Verdict::Ok
}

fn detail(report: &DumpPruneReport) -> JobDetail {
    let deleted = report.plan.deleted().map(|it| it.set.clone());
    JobDetail::DumpPrune(PruneDetail {
        deleted: Some(deleted.collect()),
        deleted_bytes: Some(report.plan.bytes().0),
        system_identifier: Some(report.system_identifier),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::DumpPlan;

    #[test]
    fn what_is_gone_is_worse_than_what_is_left() {
        let report = |gone: &[&str], left: &[&str]| DumpPruneReport {
            plan: DumpPlan::default(),
            gone: gone.iter().map(|key| (*key).to_owned()).collect(),
            left: left.iter().map(|key| (*key).to_owned()).collect(),
            retained: Vec::new(),
            system_identifier: 7,
        };
        for (gone, left, word) in [
            (&[][..], &[][..], "ok"),
            (&[], &["a"], "warning"),
            (&["b"], &["a"], "critical"),
        ] {
            assert_eq!(judge(&report(gone, left)).word(), word);
        }
    }
}
