//! The daemon: samples the node's role, serves it, runs the jobs that are due, and tells Redis.

mod clock;
mod driver;
mod heartbeat;
mod observe;
mod publish;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::alerts::Alerts;
use crate::archive;
use crate::checks::{self, Sampler};
use crate::cluster::View;
use crate::config::Loaded;
use crate::dump;
use crate::http;
use crate::jobs::Tools;
use crate::postgres::PostgresError;
use crate::redis::{Redis, RedisError};
use crate::store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot listen on {listen}")]
    Listen {
        listen: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the checks")]
    Checks(#[source] checks::DefinitionError),
    #[error("schedule.{job}: {reason}")]
    Schedule { job: &'static str, reason: String },
    #[error("the HTTP server ended")]
    Http(#[source] std::io::Error),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// What every part of the daemon shares.
struct Node {
    tools: Arc<Tools>,
    store: Store,
    alerts: Alerts,
    redis: Redis,
    view: watch::Receiver<View>,
}

/// Runs until it is dropped; then [`clean_up`] gives up what an interrupted job left in the buckets.
///
/// # Errors
/// When the daemon cannot start, or its HTTP server ends.
pub async fn run(loaded: Loaded) -> Result<(), DaemonError> {
    let config = loaded.config.clone();
    let listen = &config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| DaemonError::Listen {
            listen: listen.clone(),
            source,
        })?;
    let definitions =
        checks::load(std::path::Path::new(checks::DIRECTORY)).map_err(DaemonError::Checks)?;
    let opened = Store::open(&config.node.state_directory, Timestamp::now())?;
    if let Some(aside) = opened.set_aside {
        tracing::warn!(
            "the state was damaged and begins anew; the old file is {}",
            aside.display()
        );
    }
    let (seen, view) = watch::channel(View::default());
    let node = Arc::new(Node {
        alerts: Alerts::new(
            opened.store.clone(),
            &config.cluster.name,
            &config.node.hostname,
        ),
        store: opened.store,
        redis: Redis::new(&config.redis)?,
        tools: Arc::new(Tools {
            sampler: Sampler::new(&config)?,
            definitions,
            loaded,
        }),
        view: view.clone(),
    });
    let driver = driver::Driver::new(&node)?;
    // Where no systemd listens, this says nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(listen = %config.http.listen, "the daemon serves");
    tokio::select! {
        served = http::serve(listener, view) => served.map_err(DaemonError::Http),
        () = observe::roles(&config, &seen) => Ok(()),
        () = observe::pgbouncer(&config, &seen) => Ok(()),
        () = observe::superseded(&config, &seen) => Ok(()),
        () = heartbeat::beat(&node) => Ok(()),
        () = driver.drive() => Ok(()),
    }
}

/// After a signal: gives up what an interrupted backup or dump left unfinished in the buckets.
pub async fn clean_up(loaded: &Loaded) {
    const LIMIT: Duration = Duration::from_secs(20);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    if timeout(LIMIT, clean_up_all(loaded)).await.is_err() {
        tracing::warn!(
            "an unfinished upload may be left in a bucket; the next backup or dump gives it up"
        );
    }
}

/// Until it is done: a run that is just being stopped still holds its lock.
async fn clean_up_all(loaded: &Loaded) {
    let config = &loaded.config;
    while archive::clean_up_push(config).await.is_err() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while dump::clean_up(config).await.is_err() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
