//! `checks`: every definition in checks/ and /etc/xdb/checks that belongs to this node's role.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{Job, JobResult, JobRun, Stopwatch, Tools, Where};
use crate::checks::{CheckResult, Definition, Kind, Nodes, Round};
use crate::model::{Finding, Verdict};

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

/// What could not be looked at once, while a server restarts, may be looked at in the next run.
fn hold(finding: &Finding, hold: Duration) -> Duration {
    match finding.verdict {
        Verdict::Unknown(_) => hold.max(Duration::from_mins(1)),
        _ => hold,
    }
}

async fn run(tools: &Tools) -> JobRun {
    let watch = Stopwatch::start();
    let speaks = tools.speaks_for_cluster(Timestamp::now());
    let round = {
        let known = tools.known.borrow();
        let round = Round::new(known.positions.clone(), &known.alerts);
        round.with_nodes(Nodes {
            peers: known.peers.clone(),
            sample: tools.view.borrow().sample,
            server: known.server.clone(),
        })
    };
    let lives = tools.pgbouncer_lives();
    let down = tools.view.borrow().failing.is_some();
    let here = |definition: &&Definition| {
        let kind = &definition.kind;
        (speaks || !kind.is_about_cluster())
            && !(tools.watches_vital && kind.is_vital())
            // What is inside of a server says nothing while it is down, which is an alert of its own.
            && (lives || !matches!(kind, Kind::PgBouncer(_)))
            && !(down && matches!(kind, Kind::Sql(_)))
    };
    let look = async |definition: &Definition| {
        match tools.sampler.run(definition, &round).await {
            CheckResult::Findings(found) => found,
            CheckResult::OtherRole | CheckResult::NotYet(_) => Vec::new(),
        }
        .into_iter()
        .map(|finding| {
            let hold = hold(&finding, definition.hold);
            (finding, hold)
        })
        .collect::<Vec<_>>()
    };
    // Side by side: an S3 that hangs must not keep what else is watched waiting. PostgreSQL is asked one query at a time, and
    // those that were slow come last.
    let definitions = tools.definitions.current();
    let mut definitions: Vec<_> = definitions.iter().filter(here).collect();
    definitions.sort_by_key(|definition| tools.sampler.is_slow(definition));
    let looks = definitions.into_iter().map(look);
    let result = JobResult {
        findings: join_all(looks).await.concat(),
        succeeded: true,
        not_now: false,
        detail: None,
    };
    watch.finish(&JOB, result)
}
