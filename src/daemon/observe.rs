//! What keeps the view fresh: the role each second, a login through PgBouncer, the archive's timelines.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::archive;
use crate::cluster::{Sampler, View};
use crate::config::Config;
use crate::postgres::Target;
use crate::wait::{self, Hop, Options, Outcome, Tls, Wanted};

/// Samples the role each second.
pub(super) async fn roles(config: &Config, seen: &watch::Sender<View>) {
    let mut sampler = Sampler::new(config);
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let sampled = sampler.sample().await;
        seen.send_modify(|view| match sampled {
            Ok(sample) => {
                let role = |in_recovery| if in_recovery { "replica" } else { "primary" };
                if view
                    .sample
                    .is_none_or(|last| last.in_recovery != sample.in_recovery)
                {
                    tracing::info!(
                        timeline = sample.timeline.0,
                        "this node is the {}",
                        role(sample.in_recovery)
                    );
                }
                (view.sample, view.failing) = (Some(sample), None);
            }
            Err(reason) => {
                let since = view
                    .failing
                    .as_ref()
                    .map_or_else(Timestamp::now, |(since, _)| *since);
                view.failing = Some((since, reason));
            }
        });
    }
}

/// Logs in through this node's PgBouncer, as an application does.
pub(super) async fn pgbouncer(config: &Config, seen: &watch::Sender<View>) {
    let limit = Duration::from_secs(3);
    let own = Target::from(&config.postgres);
    let host = match config.pgbouncer.host.as_str() {
        // Over the socket PgBouncer may trust the user; applications come by TCP.
        host if host.starts_with('/') => "127.0.0.1",
        host => host,
    };
    let target = Target {
        host: host.to_owned(),
        port: config.pgbouncer.port,
        connect_timeout: limit,
        ..own
    };
    let options = Options {
        target,
        password_file: None,
        tls: Tls::none(),
        wanted: Wanted::Any,
        front: Hop::PgBouncer,
        timeout: limit,
        fail_fast_after: limit,
    };
    let mut ticks = every(2);
    loop {
        ticks.tick().await;
        if wait::until_ready(&options, |_| {}).await == Outcome::Ready {
            seen.send_modify(|view| view.pgbouncer_at = Some(Timestamp::now()));
        }
    }
}

/// Asks the archive whether another node was promoted meanwhile. Not being able to ask changes nothing.
pub(super) async fn superseded(config: &Config, seen: &watch::Sender<View>) {
    let mut ticks = every(10);
    loop {
        ticks.tick().await;
        let Some(sample) = seen.borrow().sample.filter(|sample| !sample.in_recovery) else {
            continue;
        };
        match archive::timeline_after(config, sample.timeline).await {
            Ok(newer) => seen.send_modify(|view| view.superseded_by = newer),
            Err(error) => tracing::warn!("the archive's timelines cannot be looked at: {error}"),
        }
    }
}

fn every(secs: u64) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(secs));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
