//! `checks`: every definition in checks/ and /etc/xdb/checks that belongs to this node's role.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{Job, JobResult, JobRun, Stopwatch, Tools, Where};
use crate::checks::{CheckResult, Definition, Kind};

pub(crate) static JOB: Job = Job {
    name: "checks",
    schedule: |schedule| &schedule.checks,
    role: |_| Where::Everywhere,
    is_cluster_wide: false,
    needs: &[],
    occupies: None,
    work: |tools| Box::pin(run(tools)),
    clean_up: None,
};

async fn run(tools: &Tools) -> JobRun {
    let watch = Stopwatch::start();
    let speaks = tools.speaks_for_cluster(Timestamp::now());
    let primary = tools.known.borrow().positions.clone();
    let lives = tools.pgbouncer_lives();
    let here = |definition: &&Definition| {
        let kind = &definition.kind;
        (speaks || !kind.is_about_cluster())
            && !(tools.watches_vital && kind.is_vital())
            // How full it is says nothing while it is down, which is an alert of its own.
            && (lives || !matches!(kind, Kind::PgBouncer { .. }))
    };
    let look = async |definition: &Definition| {
        let looked = tools
            .sampler
            .run(definition, &primary, Timestamp::now())
            .await;
        match looked {
            CheckResult::Findings(found) => found,
            CheckResult::OtherRole => Vec::new(),
        }
        .into_iter()
        .map(|finding| (finding, definition.hold))
        .collect::<Vec<_>>()
    };
    // Side by side: an S3 that hangs must not keep what else is watched waiting.
    let looks = tools.definitions.iter().filter(here).map(look);
    let result = JobResult {
        findings: join_all(looks).await.concat(),
        succeeded: true,
        not_now: false,
        detail: None,
    };
    watch.finish(&JOB, result)
}
