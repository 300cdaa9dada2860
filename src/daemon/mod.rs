//! The daemon: samples the node's role, serves it, runs the jobs that are due, and tells Redis.

mod clock;
mod driver;
mod heartbeat;
mod observe;
mod past;
mod publish;
mod run_once;
mod schedule;
mod successes;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::alerts::Alerts;
use crate::archive;
use crate::checks::{self, Sampler};
use crate::cluster::View;
use crate::config::{Config, Loaded};
use crate::dump;
use crate::http;
use crate::jobs::{Job, Tools};
use crate::postgres::PostgresError;
use crate::redis::{Redis, RedisError};
use crate::store::{Store, StoreError};
pub use past::{Known, known};
pub use run_once::{NotRun, run_job, run_once};
pub use schedule::{Schedule, next_run};
use successes::Successes;

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

impl DaemonError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => Some(error.hint()),
            Self::Redis(error) => Some(error.hint()),
            _ => None,
        }
    }
}

/// What every part of the daemon shares.
struct Node {
    tools: Arc<Tools>,
    store: Store,
    alerts: Alerts,
    redis: Redis,
    view: watch::Receiver<View>,
    successes: Successes,
}

impl Node {
    /// Opens what is local; nothing is asked of PostgreSQL, Redis or S3 yet.
    fn open(loaded: &Loaded, view: watch::Receiver<View>) -> Result<Arc<Self>, DaemonError> {
        let tools = tools(loaded, view.clone())?;
        let config = &loaded.config;
        let opened = Store::open(&config.node.state_directory, Timestamp::now())?;
        if let Some(aside) = opened.set_aside {
            tracing::warn!(
                "the state was damaged and begins anew; the old file is {}",
                aside.display()
            );
        }
        Ok(Arc::new(Self {
            alerts: Alerts::new(
                opened.store.clone(),
                &config.cluster.name,
                &config.node.hostname,
            ),
            store: opened.store,
            redis: Redis::new(&config.redis)?,
            tools: Arc::new(tools),
            view,
            successes: Successes::default(),
        }))
    }
}

/// What the jobs use on a node that knows `view` of itself.
fn tools(loaded: &Loaded, view: watch::Receiver<View>) -> Result<Tools, DaemonError> {
    let directory = std::path::Path::new(checks::DIRECTORY);
    Ok(Tools {
        sampler: Sampler::new(&loaded.config)?,
        definitions: checks::load(directory).map_err(DaemonError::Checks)?,
        loaded: loaded.clone(),
        view,
    })
}

/// When `job` is meant to run, as configured.
///
/// # Errors
/// When its schedule is neither a pattern nor a duration.
pub fn schedule_of(job: Job, config: &Config) -> Result<Schedule, DaemonError> {
    let schedule = Schedule::parse(job.schedule(config), TimeZone::UTC);
    schedule.map_err(|reason| DaemonError::Schedule {
        job: job.name(),
        reason,
    })
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
    let (seen, view) = watch::channel(View::default());
    let node = Node::open(&loaded, view.clone())?;
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
        () = successes::exchange(&node) => Ok(()),
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
