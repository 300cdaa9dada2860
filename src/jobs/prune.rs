//! `prune`: what `xdb prune` does, as one finding.

use super::{CleanUp, Job, JobResult, JobRun, Occupied, Stopwatch, Where};
use crate::archive::retention::{self, PruneReport, RetentionError};
use crate::config::{Node, Retention};
use crate::log;
use crate::model::{JobDetail, PruneDetail, Verdict};
use crate::repository::RepositoryHandle;

/// More names than this are counted only.
const NAMED: usize = 5;

pub(crate) static JOB: Job = Job {
    name: "prune",
    schedule: |schedule| &schedule.prune,
    role: |_| Where::Primary,
    is_cluster_wide: true,
    needs: &["s3", "archive", "retention", "cluster"],
    occupies: Some(Occupied::BaseBackups),
    work: |tools| {
        let config = &tools.loaded.config;
        Box::pin(async move {
            run(&config.node, config.retention, &tools.repository)
                .await
                .1
        })
    },
    clean_up: Some(CleanUp {
        run: |config, repository| {
            Box::pin(async move {
                let repository = repository.get().await?;
                Ok(retention::clean_up_prune(&repository, &config.node).await?)
            })
        },
        may_be_left: "a lock may be left in the bucket",
        later: "it expires; the next `xdb prune` continues",
    }),
};

/// Deletes what retention does not keep; gives what the prune gave, too.
pub(crate) async fn run(
    node: &Node,
    settings: Retention,
    repository: &RepositoryHandle,
) -> (Result<PruneReport, RetentionError>, JobRun) {
    let watch = Stopwatch::start();
    let pruned = async {
        let repository = repository.get().await?;
        retention::prune(&repository, node, settings).await
    };
    let pruned = pruned.await;
    let hostname = &node.hostname;
    let result = match &pruned {
        Ok(report) => {
            let verdict = judge_deletion(&report.gone, &report.left);
            JobResult::of(&JOB, hostname, verdict, Some(detail(report)))
        }
        // Without a retention xdb deletes nothing, and no prune is missing.
        Err(RetentionError::NoRetention) => {
            let detail = JobDetail::Prune(PruneDetail::default());
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

/// Judges a prune by what is `gone` and was to be kept, and by what is `left` and was to go.
pub(super) fn judge_deletion(gone: &[String], left: &[String]) -> Verdict {
    if !gone.is_empty() {
        let gone = named(gone);
        return Verdict::Critical(format!("what retention keeps is missing: {gone}"));
    }
    if !left.is_empty() {
        let left = named(left);
        return Verdict::Warning(format!("what retention deletes still exists: {left}"));
    }
    Verdict::Ok
}

fn named(all: &[String]) -> String {
    let shown = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn detail(report: &PruneReport) -> JobDetail {
    let deleted = report.plan.deleted().map(|it| it.name.clone());
    JobDetail::Prune(PruneDetail {
        deleted: Some(deleted.collect()),
        deleted_bytes: Some(report.plan.bytes().0),
        system_identifier: Some(report.system_identifier),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_worse_than_what_is_left() {
        let names = |count: usize| -> Vec<String> {
            (0..count).map(|number| format!("b{number}")).collect()
        };
        for (gone, left, word, reason) in [
            (0, 0, "ok", None),
            (
                0,
                1,
                "warning",
                Some("what retention deletes still exists: b0"),
            ),
            (
                1,
                1,
                "critical",
                Some("what retention keeps is missing: b0"),
            ),
            (
                7,
                0,
                "critical",
                Some("what retention keeps is missing: b0, b1, b2, b3, b4 and 2 more"),
            ),
        ] {
            let verdict = judge_deletion(&names(gone), &names(left));
            assert_eq!((verdict.word(), verdict.reason()), (word, reason));
        }
    }
}
