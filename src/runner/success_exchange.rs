//! What the cluster's jobs last did: the later of this node's store and the bucket, shown in Redis.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};

use super::history::success_of;
use super::{Node, alerts, schedule_of};
use crate::jobs::{JOBS, Job};
use crate::log;
use crate::model::AlertKey;
use crate::redis::Keys;
use crate::repository::{RepositoryError, Success};
use crate::store::StoreError;

/// Between two looks at the bucket.
const PERIOD: Duration = Duration::from_mins(1);
/// For one job's exchange with the bucket; what is not written now is written the next time.
const LIMIT: Duration = Duration::from_secs(10);

/// Exchanges what this node and the bucket know, each minute.
pub(crate) async fn exchange(node: &Node) {
    loop {
        for job in cluster_wide() {
            let success = exchange_one(node, job).await;
            node.successes.keep(job, success);
            end_what_another_node_mended(node, job).await;
        }
        node.successes.note_asked();
        sleep(PERIOD).await;
    }
}

/// After a success here: tells the bucket and Redis.
pub(crate) async fn share(node: &Node, job: &'static Job) {
    let success = exchange_one(node, job).await;
    node.successes.keep(job, success);
    show(node).await;
}

fn cluster_wide() -> impl Iterator<Item = &'static Job> {
    JOBS.into_iter().filter(|job| job.is_cluster_wide)
}

/// The later of this node's and the bucket's; where the bucket does not answer, what is known here.
async fn exchange_one(node: &Node, job: &'static Job) -> Option<Success> {
    let own = match own(node, job).await {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(
                job = job.name,
                "its history cannot be read: {}",
                log::chain(&error)
            );
            None
        }
    };
    let asked = timeout(LIMIT, with_bucket(node, job, own.clone())).await;
    let reason = match asked {
        Ok(Ok(success)) => return success,
        Ok(Err(error)) => log::chain(&error),
        Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
    };
    tracing::warn!(
        job = job.name,
        "its last success in the bucket cannot be compared: {reason}"
    );
    let known = node.successes.get(job);
    [own, known]
        .into_iter()
        .flatten()
        .max_by_key(Success::finished_at)
}

async fn with_bucket(
    node: &Node,
    job: &Job,
    own: Option<Success>,
) -> Result<Option<Success>, RepositoryError> {
    let shared = node.tools.repository.shared().await?;
    match own {
        Some(own) => Ok(Some(shared.keep_success(job.name, own).await?)),
        None => Ok(shared.last_success(job.name).await?),
    }
}

async fn own(node: &Node, job: &'static Job) -> Result<Option<Success>, StoreError> {
    let run = node
        .store
        .read(move |store| store.last_good_run(job.name))
        .await?;
    Ok(run.and_then(|run| success_of(node.hostname(), &run)))
}

/// This node's alert on a job that another node has done since is over: no later run here may come to end it.
async fn end_what_another_node_mended(node: &Node, job: &'static Job) {
    let success = node.successes.get(job);
    let Some(success) = success.filter(|success| success.node != node.hostname()) else {
        return;
    };
    let Ok(alerts) = node.store.read(|store| store.alerts()).await else {
        return;
    };
    let finished_at = success.finished_at();
    let over: Vec<AlertKey> = alerts
        .into_iter()
        .filter(|(key, alert)| key.check == job.name && alert.since < finished_at)
        .map(|(key, _)| key)
        .collect();
    if !over.is_empty() {
        let reason = format!("{} has done it", success.node);
        alerts::resolve(node, move |key| over.contains(key), &reason).await;
    }
}

/// Shows in Redis when each job last succeeded, for as long as that counts.
pub(crate) async fn show(node: &Node) {
    let config = &node.tools.loaded.config;
    let keys = Keys::new(&config.cluster.name);
    for job in cluster_wide() {
        let Some(success) = node.successes.get(job) else {
            continue;
        };
        let left = expires(node, job, &success).and_then(|at| left(at, Timestamp::now()));
        let Some(left) = left else { continue };
        let json = serde_json::to_string(&success).expect("a success is plain values");
        // What another node did it knows best itself; this one only fills in for it.
        let own = success.node == config.node.hostname;
        let shown = node
            .redis
            .publish_job(&keys, job.name, &json, left, own)
            .await;
        if let Err(error) = shown {
            tracing::warn!(
                job = job.name,
                "its last success did not reach Redis: {error}"
            );
            return;
        }
    }
}

/// Twice the job's period after its success.
fn expires(node: &Node, job: &Job, success: &Success) -> Option<Timestamp> {
    let schedule = schedule_of(job, &node.tools.loaded.config.schedule).ok()?;
    let finished_at = success.finished_at();
    let period = schedule.period(finished_at)?;
    finished_at.checked_add(period.checked_mul(2)?).ok()
}

fn left(expires: Timestamp, now: Timestamp) -> Option<Duration> {
    let left: SignedDuration = expires.duration_since(now);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}
