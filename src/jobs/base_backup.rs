//! `base-backup`: what `xdb backup push` does, as one finding.

use super::{CleanUp, Job, JobResult, JobRun, Occupied, Stopwatch, Where};
use crate::archive::{self, BackupError, PushedBackup};
use crate::config::Node;
use crate::log;
use crate::model::{BaseBackupDetail, JobDetail, Verdict};
use crate::repository::RepositoryHandle;

pub(crate) static JOB: Job = Job {
    name: "base-backup",
    schedule: |schedule| &schedule.base_backup,
    role: |_| Where::Primary,
    is_cluster_wide: true,
    needs: &["s3", "archive", "cluster"],
    occupies: Some(Occupied::BaseBackups),
    work: |tools| {
        let node = &tools.loaded.config.node;
        Box::pin(async move { run(node, &tools.repository, false).await.1 })
    },
    clean_up: Some(CleanUp {
        run: |config, repository| {
            Box::pin(async move {
                let repository = repository.get().await?;
                Ok(archive::clean_up_push(&repository, &config.node).await?)
            })
        },
        may_be_left: "an unfinished upload may be left in the bucket",
        later: "the next `xdb backup push` gives it up",
    }),
};

/// Pushes a base backup; gives what the push gave, too.
pub(crate) async fn run(
    node: &Node,
    repository: &RepositoryHandle,
    full: bool,
) -> (Result<PushedBackup, BackupError>, JobRun) {
    let watch = Stopwatch::start();
    let pushed = async { archive::push(&repository.get().await?, node, full).await };
    let pushed = pushed.await;
    let result = match &pushed {
        Ok(pushed) => {
            let job = JOB.name;
            tracing::info!(
                job,
                kind = pushed.kind,
                uncompressed_bytes = pushed.uncompressed_bytes,
                compressed_bytes = pushed.compressed_bytes,
                bytes_per_sec = pushed.bytes_per_sec,
                "{pushed}"
            );
            let detail = JobDetail::BaseBackup(BaseBackupDetail {
                backup: Some(pushed.backup.clone()),
                compressed_bytes: Some(pushed.compressed_bytes),
                system_identifier: Some(pushed.system_identifier),
            });
            JobResult::of(&JOB, &node.hostname, Verdict::Ok, Some(detail))
        }
        Err(error) => {
            let verdict = Verdict::Unknown(log::chain(error));
            JobResult {
                not_now: error.is_busy(),
                ..JobResult::of(&JOB, &node.hostname, verdict, None)
            }
        }
    };
    (pushed, watch.finish(&JOB, result))
}
