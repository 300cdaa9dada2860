//! What keeps the node's view of itself fresh: the role each second, and a login through PgBouncer.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::every;
use super::systemd::Beats;
use crate::cluster::{Knowledge, Sample, Sampler, View};
use crate::config::Config;
use crate::postgres::Target;
use crate::wait::{self, Hop, Options, Outcome, Tls, Wanted};

/// Samples the role each second, and where a primary is.
pub(super) async fn roles(
    config: &Config,
    seen: &watch::Sender<View>,
    known: &watch::Sender<Knowledge>,
    beats: &Beats,
) {
    let mut sampler = Sampler::new(config);
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let sampled = sampler.sample().await;
        beats.beat();
        match sampled {
            Ok(sample) => {
                tell_change(seen.borrow().sample, sample);
                seen.send_modify(|view| view.saw(sample));
                let leads = seen.borrow().leads(sample.at);
                if let Some(position) = sample.position.filter(|_| leads) {
                    known.send_modify(|known| {
                        known.positions.push(sample.at, position);
                        known.server_ahead = sampler.server_ahead();
                    });
                }
            }
            Err(reason) => seen.send_modify(|view| {
                let since = view.failing.as_ref().map(|(since, _)| *since);
                view.failing = Some((since.unwrap_or_else(Timestamp::now), reason));
            }),
        }
    }
}

fn tell_change(before: Option<Sample>, now: Sample) {
    if before.is_none_or(|before| before.in_recovery != now.in_recovery) {
        let role = if now.in_recovery {
            "replica"
        } else {
            "primary"
        };
        tracing::info!(timeline = now.timeline.0, "this node is the {role}");
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
