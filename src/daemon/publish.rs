//! One way out for what a job came to: log, store, alerts, Redis.

use jiff::Timestamp;

use super::Node;
use crate::alerts::{Extent, Judged};
use crate::jobs::{Job, Ran};
use crate::model::{Run, Verdict};

/// Keeps the run and turns its findings into alerts.
pub(super) async fn publish(node: &Node, job: Job, ran: Ran) {
    let finished_at = ran.outcome.finished_at();
    log_outcome(job, &ran);
    if job != Job::Checks {
        let mut run = Run::new(&ran.outcome, ran.succeeded);
        run.detail = serde_json::json!({ "detail": ran.detail, "lacked_prerequisite": ran.lacked_prerequisite });
        if let Err(error) = node.store.write(move |store| store.record_run(&run)).await {
            tracing::error!(
                job = job.name(),
                "the run cannot be kept: {}",
                crate::log::chain(&error)
            );
        }
    }
    if ran.lacked_prerequisite {
        return;
    }
    let judged = ran.outcome.findings.into_iter().zip(ran.holds);
    let judged = judged
        .map(|(finding, hold)| Judged { finding, hold })
        .collect();
    if let Err(error) = node.alerts.record(judged, Extent::Whole, finished_at).await {
        tracing::error!(
            job = job.name(),
            "alerts cannot be kept: {}",
            crate::log::chain(&error)
        );
    }
    deliver(node).await;
}

/// Ends every alert of this node: the new role's own looks raise what still holds.
pub(super) async fn resolve_all(node: &Node, reason: &str) {
    if let Err(error) = node
        .alerts
        .resolve(|_| true, reason, Timestamp::now())
        .await
    {
        tracing::error!("alerts cannot be resolved: {}", crate::log::chain(&error));
    }
    deliver(node).await;
}

/// Sends what waits for Redis; while it is away, it waits on.
pub(super) async fn deliver(node: &Node) {
    match node.alerts.deliver(&node.redis).await {
        Ok(0) => {}
        Ok(events) => tracing::info!(events, "alerts delivered"),
        Err(error) => tracing::warn!("alerts wait for Redis: {error}"),
    }
}

fn log_outcome(job: Job, ran: &Ran) {
    let secs = ran.outcome.elapsed.as_secs_f64();
    let job = job.name();
    match ran.outcome.verdict() {
        // Each few seconds, and nothing to tell.
        Verdict::Ok if job == "checks" => tracing::debug!(job, secs, "ok"),
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
