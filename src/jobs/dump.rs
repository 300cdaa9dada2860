//! `dump`: what `xdb dump push` does, as one finding.

use super::{CleanUp, Job, JobResult, JobRun, Occupied, Stopwatch, Where, dumps};
use crate::config::Config;
use crate::dump::{self, DumpError, DumpSet};
use crate::log;
use crate::model::{DumpDetail, JobDetail, Verdict};
use crate::repository::RepositoryHandle;

pub(crate) static JOB: Job = Job {
    name: "dump",
    schedule: |schedule| &schedule.dump,
    role: |_| Where::Replica,
    is_cluster_wide: true,
    needs: &["s3", "dump", "cluster"],
    occupies: Some(Occupied::ReplicaDisk),
    work: |tools| Box::pin(async move { run(&tools.loaded.config, &tools.repository).await.1 }),
    clean_up: Some(CleanUp {
        run: |config, repository| {
            Box::pin(async move { Ok(dump::clean_up(&dumps(config, repository).await?).await?) })
        },
        may_be_left: "a part of the dump may be left in the bucket",
        later: "it does not count as a dump, and the next `xdb dump push` removes it",
    }),
};

/// Dumps every database; gives what the dump gave, too.
pub(crate) async fn run(
    config: &Config,
    repository: &RepositoryHandle,
) -> (Result<DumpSet, DumpError>, JobRun) {
    let watch = Stopwatch::start();
    let dumped = async { dump::push(&dumps(config, repository).await?, &[]).await };
    let dumped = dumped.await;
    let hostname = &config.node.hostname;
    let result = match &dumped {
        Ok(set) => {
            let detail = JobDetail::Dump(DumpDetail {
                set: Some(set.set.clone()),
                bytes: Some(set.bytes()),
                system_identifier: Some(set.system_identifier),
            });
            JobResult::of(&JOB, hostname, Verdict::Ok, Some(detail))
        }
        Err(error) => {
            let reason = log::chain(error);
            // The program's own bad end is a verdict on the database, all else is a look that failed.
            let verdict = match error {
                DumpError::Failed { .. } => Verdict::Critical(reason),
                _ => Verdict::Unknown(reason),
            };
            JobResult {
                not_now: error.is_busy(),
                ..JobResult::of(&JOB, hostname, verdict, None)
            }
        }
    };
    (dumped, watch.finish(&JOB, result))
}
