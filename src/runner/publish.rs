//! Publishes the outcome of a job: log, store, alerts, Redis.

use super::alerts::{deliver, resolve};
use super::{Node, outages, success_exchange};
use crate::alerts::{Extent, Judged};
use crate::jobs::{Job, Ran};
use crate::log;
use crate::model::{AlertKey, Run, Scope, Verdict};

/// The check of a primary's standbys; a superseded primary has none.
const LAG: &str = "replication-lag";

/// Logs the outcome of a job, and keeps it.
pub async fn publish(node: &Node, job: &'static Job, ran: Ran) {
    log_outcome(job, &ran);
    keep(node, job, ran).await;
}

/// Keeps the run, turns its findings into alerts, and tells the cluster of a success.
///
/// What was put off is no outcome and leaves nothing.
pub async fn keep(node: &Node, job: &'static Job, ran: Ran) {
    if ran.not_now {
        return;
    }
    let finished_at = ran.outcome.finished_at();
    if job.is_cluster_wide {
        let run = Run::new(&ran.outcome, ran.succeeded, ran.detail);
        match node.store.write(move |store| store.record_run(&run)).await {
            Ok(()) if ran.succeeded => success_exchange::share(node, job).await,
            Ok(()) => {}
            Err(error) => tracing::error!(
                job = job.name,
                "the run cannot be kept: {}",
                log::chain(&error)
            ),
        }
    }
    let mut findings = ran.outcome.findings;
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
    let judged = findings.into_iter().zip(ran.holds);
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

fn log_outcome(job: &Job, ran: &Ran) {
    let secs = ran.outcome.elapsed.as_secs_f64();
    let (keeps_history, job) = (job.is_cluster_wide, job.name);
    if ran.not_now {
        let verdict = ran.outcome.verdict();
        tracing::debug!(job, "not now: {}", verdict.reason().unwrap_or_default());
        return;
    }
    match ran.outcome.verdict() {
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
