//! Remembers over a restart of the daemon that `/primary` or `/replica` was served a moment ago.
//!
//! A daemon that has just begun asks the peers, the archive and Redis before it serves a primary. Where one of them hangs, the
//! wait would end every session of a server that has not changed. The same holds where the server runs and refuses the new
//! daemon's login: it has no connection left, or refuses this role or database.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::every;
use crate::cluster::{ServerSample, View, judge_primary, judge_replica};
use crate::postgres::postmaster_run;
use crate::process;
use crate::repository::own_history;
use crate::runner::Node;
use crate::store::{LastAnswer, StateFiles};

const PERIOD: Duration = Duration::from_secs(5);

/// Keeps the answer fresh while it is 200.
pub(super) async fn keep(node: &Node) {
    let config = &node.tools.loaded.config;
    let files = StateFiles::of(&config.node.state_directory);
    let mut ticks = every(PERIOD.as_secs());
    let mut failing = false;
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let view = node.view.borrow().clone();
        let served = judge_primary(&view, now).or_else(|_| judge_replica(&view, now));
        let (Ok(()), Some(sample)) = (served, view.sample) else {
            continue;
        };
        let position = view.position().map(|own| own.lsn).or(sample.position);
        let (files, data) = (files.clone(), config.postgres.data_directory.clone());
        let keep = move || {
            let server = postmaster_run(&data)?;
            Some(files.keep_last_answer(&LastAnswer {
                v: 1,
                at: now,
                server,
                system_identifier: sample.system_identifier,
                timeline: sample.timeline,
                in_recovery: sample.in_recovery,
                position,
            }))
        };
        let Some(kept) = process::on_a_thread(keep).await else {
            continue;
        };
        // Learned while it was written.
        if node.view.borrow().superseded_by.is_some() {
            let files = StateFiles::of(&config.node.state_directory);
            let voided = process::on_a_thread(move || files.void_last_answer()).await;
            if let Err(error) = voided {
                tracing::error!("the last answer cannot be taken back on this node: {error}");
            }
        }
        if let Err(error) = &kept
            && !failing
        {
            tracing::warn!(
                "a restart of this daemon will not serve this node at once: its last answer cannot be kept: {error}"
            );
        }
        failing = kept.is_err();
    }
}

/// Ends once there is something to answer, at the latest after three seconds: who asks before waits in the socket. A 503 in
/// the first moments of a daemon says nothing of its server.
pub(super) async fn ready(mut view: watch::Receiver<View>) {
    const PATIENCE: Duration = Duration::from_secs(3);
    let known = view.wait_for(|view| {
        let standby = view.sample.is_some_and(|sample| sample.in_recovery);
        let is_judged = standby || view.asked_peers && view.asked_archive;
        // A login that failed may be followed by the last answer.
        view.down || view.sample.is_some() && view.pgbouncer.is_some() && is_judged
    });
    let _ = tokio::time::timeout(PATIENCE, known).await;
}

/// Takes the role of a moment ago for a server that was not restarted since and cannot be sampled.
pub(super) async fn recall(node: &Node, views: &watch::Sender<View>) {
    let config = &node.tools.loaded.config;
    let files = StateFiles::of(&config.node.state_directory);
    let data = config.postgres.data_directory.clone();
    let read = move || {
        let (last, run) = (files.last_answer()?, postmaster_run(&data)?);
        let is_of_now = last.is_of_now(&run, Timestamp::now());
        is_of_now.then(|| (own_history(&data, last.timeline), last))
    };
    let Some((history, last)) = process::on_a_thread(read).await else {
        return;
    };
    let sample = ServerSample {
        at: last.at,
        in_recovery: last.in_recovery,
        timeline: last.timeline,
        system_identifier: last.system_identifier,
        streaming: false,
        position: last.position,
    };
    if views.send_if_modified(|view| view.recall(sample, history)) {
        tracing::warn!(
            "PostgreSQL cannot be sampled yet; its role is what it was at {}",
            last.at.strftime("%F %T UTC")
        );
    }
}

/// Serves a primary that was served a moment ago and was not restarted since, before all others are asked again.
pub(super) async fn take_up(node: &Node, views: &watch::Sender<View>) {
    let config = &node.tools.loaded.config;
    let files = StateFiles::of(&config.node.state_directory);
    let data = config.postgres.data_directory.clone();
    let read = move || (files.last_answer(), postmaster_run(&data));
    let (last, run) = process::on_a_thread(read).await;
    let sample = views.borrow().sample.filter(|sample| !sample.in_recovery);
    let (Some(last), Some(run), Some(sample)) = (last, run, sample) else {
        return;
    };
    let of = (sample.system_identifier, sample.timeline);
    if last.holds(&run, of, Timestamp::now()) {
        views.send_modify(|view| (view.asked_peers, view.asked_archive) = (true, true));
    }
}
