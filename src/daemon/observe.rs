//! What keeps the node's view of itself fresh: the role each second, and a login through PgBouncer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::systemd::Liveness;
use super::{Senders, every};
use crate::checks::PgBouncerWatch;
use crate::cluster::{PgBouncerCondition, ServerSample, ServerSampler, View};
use crate::config;
use crate::model::TimelineHistory;
use crate::postgres;
use crate::process;
use crate::repository;

/// Samples the role each second, and where a primary is.
pub(super) async fn roles(
    postgres: config::Postgres,
    Senders { view: views, known }: Senders,
    liveness: Arc<Liveness>,
) {
    let mut sampler = ServerSampler::new(&postgres);
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let sampled = sampler.sample().await;
        liveness.roles.turned();
        match sampled {
            Ok(sample) => {
                log_change(views.borrow().sample, sample);
                let history = own_history(&postgres.data_directory, &views.borrow(), sample);
                views.send_modify(|view| {
                    view.record_sample(sample);
                    view.descends(history);
                });
                let leads = views.borrow().leads(sample.at);
                if let Some(position) = sample.position.filter(|_| leads) {
                    known.send_modify(|known| {
                        known.positions.push(sample.at, position);
                        known.server_ahead = sampler.server_ahead();
                    });
                }
            }
            Err(failure) => views.send_modify(|view| view.failed(failure, Timestamp::now())),
        }
    }
}

/// The ancestors of the timeline of `sample`, read once a timeline.
fn own_history(data: &Path, before: &View, sample: ServerSample) -> Option<TimelineHistory> {
    let known = before.sample.filter(|last| {
        (last.system_identifier, last.timeline) == (sample.system_identifier, sample.timeline)
    });
    let known = known.and(before.history.clone());
    known.or_else(|| repository::own_history(data, sample.timeline))
}

fn log_change(before: Option<ServerSample>, now: ServerSample) {
    if before.is_none_or(|before| before.in_recovery != now.in_recovery) {
        let role = if now.in_recovery {
            "replica"
        } else {
            "primary"
        };
        tracing::info!(timeline = now.timeline.0, "this node is the {role}");
    }
}

/// Reads from `pg_wal` how far a primary has written that cannot be sampled: a proof of a promotion is judged by that.
///
/// Beside the sampling, which a volume that hangs must not hold up.
pub(super) async fn written(data: PathBuf, views: watch::Sender<View>) {
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let last = {
            let view = views.borrow();
            let sample = view.sample.filter(|_| view.failing.is_some());
            sample.zip(view.position().map(|own| own.lsn))
        };
        let Some((sample, from)) = last else {
            continue;
        };
        let data = data.clone();
        let (identifier, timeline) = (sample.system_identifier, sample.timeline);
        let read = move || postgres::written_after(&data, identifier, timeline, from);
        if let Some(written) = process::on_a_thread(read).await {
            views.send_modify(|view| view.wrote(&sample, written));
        }
    }
}

/// Logs in through this node's PgBouncer each second, as an application does.
pub(super) async fn pgbouncer(mut watch: PgBouncerWatch, views: watch::Sender<View>) {
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let state = watch.observe().await;
        let condition = state.condition;
        let before = views
            .borrow()
            .pgbouncer
            .as_ref()
            .map(|state| state.condition);
        if before != Some(condition) {
            match condition {
                PgBouncerCondition::Serves => tracing::info!("PgBouncer serves"),
                _ => tracing::warn!(?condition, "PgBouncer: {}", state.reason()),
            }
        }
        views.send_modify(|view| view.saw_pgbouncer(state));
        if condition == PgBouncerCondition::Serves {
            watch.keep_console().await;
        }
    }
}
