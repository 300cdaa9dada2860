//! Publishes the outcome of a job: log, store, alerts, Redis.

use std::sync::Arc;

use super::alerts::{deliver, resolve};
use super::{Node, heartbeat, outages, success_exchange};
use crate::alerts::{Extent, Judged};
use crate::jobs::{Job, JobRun};
use crate::log;
use crate::model::{AlertKey, Run, Scope, Verdict};

/// The check of a primary's standbys; a superseded primary has none.
const LAG: &str = "replication-lag";

/// Logs the outcome of a job, and keeps it.
pub(crate) async fn publish(node: &Arc<Node>, job: &'static Job, run: JobRun) {
    log_outcome(job, &run);
    if is_success(job, &run) {
        // Beside it: a URL that hangs must not hold up the next job.
        tokio::spawn(heartbeat::beat(node.clone(), job));
    }
    keep(node, job, run).await;
}

/// The same for one run by hand, whose process ends after it.
pub(super) async fn publish_last(node: &Arc<Node>, job: &'static Job, run: JobRun) {
    let success = is_success(job, &run);
    keep(node, job, run).await;
    if success {
        heartbeat::beat(node.clone(), job).await;
    }
}

fn is_success(job: &Job, run: &JobRun) -> bool {
    job.is_cluster_wide && run.succeeded && !run.not_now
}

/// Keeps the run, turns its findings into alerts, and tells the cluster of a success.
///
/// What was put off is no outcome and leaves nothing.
async fn keep(node: &Node, job: &'static Job, run: JobRun) {
    if run.not_now {
        return;
    }
    let finished_at = run.outcome.finished_at();
    node.activity.count(job, &run.outcome.verdict());
    node.activity
        .found_all(job.name, &run.outcome.findings, finished_at);
    if job.is_cluster_wide {
        let row = Run::new(&run.outcome, run.succeeded, run.detail);
        match node.store.write(move |store| store.record_run(&row)).await {
            Ok(()) if run.succeeded => success_exchange::share(node, job).await,
            Ok(()) => {}
            Err(error) => tracing::error!(
                job = job.name,
                "the run cannot be kept: {}",
                log::chain(&error)
            ),
        }
    }
    let mut findings = run.outcome.findings;
    let s3 = node.outages.s3.reason();
    outages::name_cause(&mut findings, s3.as_deref());
    let superseded = !job.is_cluster_wide && node.view.borrow().superseded_by.is_some();
    let of_standbys = |key: &AlertKey| key.check == LAG && key.scope != Scope::Cluster;
    let stands = || {
        let alerts = &node.tools.known.borrow().alerts;
        let mut keys = alerts.iter().map(|alert| AlertKey::parse(&alert.key));
        keys.any(|key| key.is_ok_and(|key| of_standbys(&key)))
    };
    if superseded && stands() {
        resolve(node, of_standbys, "a superseded server has no standbys").await;
    }
    let judged = findings.into_iter().zip(run.holds);
    let judged = judged
        .filter(|(finding, _)| !superseded || finding.check != LAG)
        .map(|(finding, hold)| Judged { finding, hold })
        .collect();
    if let Err(error) = node.alerts.record(judged, Extent::Whole, finished_at).await {
        tracing::error!(
            job = job.name,
            "alerts cannot be kept: {}",
            log::chain(&error)
        );
    }
    if !job.is_cluster_wide {
        node.alerts.round_ended();
    }
    deliver(node).await;
}

fn log_outcome(job: &Job, run: &JobRun) {
    let secs = run.outcome.elapsed.as_secs_f64();
    let (keeps_history, job) = (job.is_cluster_wide, job.name);
    if run.not_now {
        let verdict = run.outcome.verdict();
        tracing::debug!(job, "not now: {}", verdict.reason().unwrap_or_default());
        return;
    }
    match run.outcome.verdict() {
        // Each few seconds, and nothing to tell.
        Verdict::Ok if !keeps_history => tracing::debug!(job, secs, "ok"),
        Verdict::Ok => tracing::info!(job, secs, "ok"),
        verdict => tracing::warn!(
            job,
            secs,
            verdict = verdict.word(),
            "{}",
            verdict.reason().unwrap_or_default()
        ),
    }
}
