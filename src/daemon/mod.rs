//! The daemon: samples the node's role, serves it, runs the jobs that are due, and tells Redis.

mod clock;
mod doubts;
mod driver;
mod evidence;
mod fill;
mod heartbeat;
mod high_water;
mod judge;
mod last_answer;
mod observe;
mod outages;
mod past;
mod peers;
mod publish;
mod rpo;
mod run_once;
mod schedule;
mod status;
mod successes;
mod systemd;
mod timelines;
mod unarchived;
mod vital;
mod wal_pace;

use std::future::pending;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::alerts::Alerts;
use crate::archive;
use crate::checks::{self, Sampler};
use crate::cluster::{Knowledge, View};
use crate::config::{self, Loaded};
use crate::http::{self, Shown};
use crate::jobs::{CleanUpError, JOBS, Job, Tools};
use crate::log;
use crate::postgres::PostgresError;
use crate::process::{self, NodeLock};
use crate::redis::{Redis, RedisError};
use crate::repository::RepositoryHandle;
use crate::store::{StateFiles, Store, StoreError};
use outages::Outages;
pub use past::{Known, known};
pub use run_once::{NotRun, run_job, run_once};
pub use schedule::{Schedule, next_run};
pub use status::{is_this_node, status};
use successes::Successes;
use systemd::Pulse;

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("refused: another daemon runs on this node, with the state in {}", directory.display())]
    Running { directory: PathBuf },
    #[error("cannot use the lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the socket that systemd hands over cannot be used")]
    Socket(#[source] std::io::Error),
    #[error("cannot listen on {listen}")]
    Listen {
        listen: String,
        #[source]
        source: std::io::Error,
    },
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
            Self::Running { .. } => Some(
                "`pgrep -a xdb` shows it; stop it first (systemctl stop xdb.socket xdb.service)",
            ),
            Self::Lock { .. } => Some("node.state_directory belongs to the user that runs xdb"),
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
    outages: Outages,
    pulse: Pulse,
}

impl Node {
    /// Opens what is local; nothing is asked of PostgreSQL, Redis or S3 yet.
    fn open(
        loaded: &Loaded,
        store: Store,
        view: watch::Receiver<View>,
        known: watch::Receiver<Knowledge>,
    ) -> Result<Arc<Self>, DaemonError> {
        let tools = Tools {
            watches_vital: true,
            ..tools(loaded, view.clone(), known)?
        };
        let config = &loaded.config;
        Ok(Arc::new(Self {
            alerts: Alerts::new(
                store.with_spare(),
                &config.cluster.name,
                &config.node.hostname,
            )
            .judged_by_run(&judge::judged_by_run()),
            store,
            redis: Redis::new(&config.redis)?,
            tools: Arc::new(tools),
            view,
            successes: Successes::default(),
            outages: Outages::default(),
            pulse: Pulse::default(),
        }))
    }

    fn hostname(&self) -> &str {
        &self.tools.loaded.config.node.hostname
    }
}

/// What the jobs use on a node that knows `view` of itself and `known` of the others.
fn tools(
    loaded: &Loaded,
    view: watch::Receiver<View>,
    known: watch::Receiver<Knowledge>,
) -> Result<Tools, DaemonError> {
    let checks = checks::load(Path::new(checks::DIRECTORY));
    for fault in &checks.faults {
        tracing::warn!("a check is left out: {}", fault.with_line());
    }
    let repository = RepositoryHandle::new(&loaded.config);
    Ok(Tools {
        sampler: Sampler::new(loaded, repository.clone())?,
        repository,
        definitions: checks.definitions,
        watches_vital: false,
        loaded: loaded.clone(),
        view,
        known,
    })
}

/// When `job` is meant to run, as configured.
///
/// # Errors
/// When its schedule is neither a pattern nor a duration.
pub fn schedule_of(job: &Job, settings: &config::Schedule) -> Result<Schedule, DaemonError> {
    let schedule = Schedule::parse(job.schedule(settings), TimeZone::UTC);
    schedule.map_err(|reason| DaemonError::Schedule {
        job: job.name,
        reason,
    })
}

/// Runs until it is dropped; then [`clean_up`] gives up what an interrupted job left in the buckets.
///
/// # Errors
/// When the daemon cannot start, or its HTTP server ends.
pub async fn run(loaded: Loaded) -> Result<(), DaemonError> {
    let open_files = process::raise_open_files();
    let config = loaded.config.clone();
    let _only = only_one(&config.node.state_directory)?;
    let (listener, waits_in_systemd) = listener(&config.http.listen).await?;
    let (seen, view) = watch::channel(View::default());
    let (knowing, known) = watch::channel(Knowledge {
        objectives: rpo::objectives(&config),
        peers: peers::configured(&config),
        ..Knowledge::default()
    });
    let store = Store::serve(&config.node.state_directory);
    let node = Node::open(&loaded, store, view.clone(), known.clone())?;
    let shown = Shown {
        cluster: config.cluster.name.clone(),
        hostname: config.node.hostname.clone(),
        listen: config.http.listen.clone(),
        view,
        known,
    };
    let driver = driver::Driver::new(&node)?;
    let seen_here = node.view.clone();
    let leads: archive::archiver::Leads = Arc::new(move || {
        let view = seen_here.borrow();
        let sample = view.sample.filter(|_| view.led_last())?;
        Some(archive::archiver::Leading {
            system_identifier: sample.system_identifier,
            is_certain: view.leads(Timestamp::now()),
        })
    });
    let again: archive::archiver::Again = {
        let known = Mutex::new(loaded.clone());
        Box::new(move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let again = known
                .reread_if_changed()
                .map_err(|error| log::chain(&error))?;
            Ok(again.map(|again| {
                *known = again;
                known.config.clone()
            }))
        })
    };
    // Outlives this future, for those that asked before the end; `_open` does not. Where no socket of systemd's takes new
    // connections meanwhile, the last answers are given until the process ends.
    let (_open, closed) = oneshot::channel::<()>();
    let closing = async move {
        let _ = closed.await;
        if !waits_in_systemd {
            pending::<()>().await;
        }
    };
    let (serving, ready) = (shown.clone(), last_answer::ready(shown.view.clone()));
    let server = tokio::spawn(async move {
        ready.await;
        tracing::info!(listen = %serving.listen, "the daemon serves");
        // Not earlier: a start counts as done, for systemd and for `systemctl restart`, once requests are answered.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        http::serve(listener, closing, serving, open_files).await
    });
    let state = StateFiles::of(&config.node.state_directory);
    let tasks = own_tasks(&node, driver, (&seen, &knowing));
    tokio::select! {
        served = server => served.unwrap_or_else(|error| Err(error.into())).map_err(DaemonError::Http),
        () = until_one_ends(tasks) => Ok(()),
        () = last_answer::keep(&node) => Ok(()),
        () = evidence::keep(&node, &knowing) => Ok(()),
        () = high_water::keep(&node) => Ok(()),
        () = fill::keep(&node) => Ok(()),
        () = rpo::keep(&node, &knowing) => Ok(()),
        () = judge::judge(&node, &knowing) => Ok(()),
        () = vital::watch(&node) => Ok(()),
        () = heartbeat::beat(&node, &shown) => Ok(()),
        () = successes::exchange(&node) => Ok(()),
        () = outages::watch_s3(&node) => Ok(()),
        () = archive::archiver::serve(node.tools.repository.clone(), state, leads, again, node.store.clone()) => Ok(()),
    }
}

/// What the answers to HAProxy and to systemd depend on, each a task of its own: the rest shares one task, and a file there
/// that takes long to read holds up the rest only. They are ended when the set is dropped.
fn own_tasks(
    node: &Arc<Node>,
    driver: driver::Driver,
    (seen, known): (&watch::Sender<View>, &watch::Sender<Knowledge>),
) -> JoinSet<()> {
    let parts = || (node.clone(), seen.clone(), known.clone());
    let mut tasks = JoinSet::new();
    let (of, seen, known) = parts();
    tasks.spawn(async move {
        let config = &of.tools.loaded.config;
        observe::roles(config, &seen, &known, &of.pulse.roles).await;
    });
    let (of, seen, _) = parts();
    tasks.spawn(async move { observe::pgbouncer(&of.tools.loaded.config, &seen).await });
    let (of, seen, _) = parts();
    tasks.spawn(async move { observe::written(&of.tools.loaded.config, &seen).await });
    let (of, seen, known) = parts();
    tasks.spawn(async move { peers::peers(&of, &seen, &known).await });
    let (of, seen, known) = parts();
    tasks.spawn(async move { timelines::follow(&of, &seen, &known).await });
    tasks.spawn(async move { driver.drive().await });
    let of = node.clone();
    tasks.spawn(async move { of.pulse.keep_watchdog_quiet().await });
    tasks
}

/// A panic in one of `tasks` ends the daemon, as a panic in any of its loops does.
async fn until_one_ends(mut tasks: JoinSet<()>) {
    if let Some(Err(error)) = tasks.join_next().await
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

/// Two daemons would run each job twice and tell each event twice, wherever they serve.
fn only_one(directory: &Path) -> Result<NodeLock, DaemonError> {
    match NodeLock::take(directory, "daemon.lock") {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(DaemonError::Running {
            directory: directory.to_owned(),
        }),
        Err(source) => Err(DaemonError::Lock {
            path: directory.to_owned(),
            source,
        }),
    }
}

/// The socket that systemd holds for this port, with `true`, or one of our own.
async fn listener(listen: &str) -> Result<(TcpListener, bool), DaemonError> {
    let Some(socket) = systemd::socket().map_err(DaemonError::Socket)? else {
        let bound = TcpListener::bind(listen).await;
        return bound
            .map(|own| (own, false))
            .map_err(|source| DaemonError::Listen {
                listen: listen.to_owned(),
                source,
            });
    };
    match socket.local_addr() {
        Ok(address) if address.to_string() == listen => {}
        Ok(address) => tracing::warn!(
            "systemd's socket decides where the daemon serves: {address}, and not http.listen = {listen}"
        ),
        Err(source) => return Err(DaemonError::Socket(source)),
    }
    let socket = TcpListener::from_std(socket).map_err(DaemonError::Socket)?;
    Ok((socket, true))
}

/// How long the end may take: systemd must wait for it.
pub const CLEAN_UP: Duration = Duration::from_secs(20);

/// After a signal: gives up what an interrupted backup or dump left unfinished in the buckets.
///
/// Requests from before the signal are still answered; later ones wait in systemd's socket.
pub async fn clean_up(loaded: &Loaded) {
    const LAST_ANSWERS: Duration = Duration::from_millis(300);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let (cleaned, ()) = tokio::join!(
        timeout(CLEAN_UP, clean_up_all(loaded)),
        tokio::time::sleep(LAST_ANSWERS)
    );
    if cleaned.is_err() {
        tracing::warn!(
            "an unfinished upload may be left in a bucket; the next backup or dump gives it up"
        );
    }
}

async fn clean_up_all(loaded: &Loaded) {
    let repository = RepositoryHandle::new(&loaded.config);
    for clean_up in JOBS
        .into_iter()
        .rev()
        .filter_map(|job| job.clean_up.as_ref())
    {
        until_unlocked(|| (clean_up.run)(&loaded.config, &repository)).await;
    }
}

/// A run that is being stopped still holds its lock for a moment, and a person's own run for long. A lock that cannot be
/// used at all is given up at once: the next daemon waits for this one's end.
async fn until_unlocked<F: Future<Output = Result<(), CleanUpError>>>(clean_up: impl Fn() -> F) {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(200);
    for _ in 0..ATTEMPTS {
        match clean_up().await {
            Ok(()) => return,
            Err(error) if error.is_final() => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn every(secs: u64) -> Interval {
    let mut ticks = interval(Duration::from_secs(secs));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.unwrap()
    }

    #[test]
    fn a_loop_that_blocks_holds_up_no_task() {
        let pulse = Arc::new(Pulse::default());
        let (begun, blocked) = std::sync::mpsc::channel();
        let of = pulse.clone();
        runtime().block_on(async {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    of.roles.beat();
                    of.driver.beat();
                    let _ = begun.send(());
                }
            });
            tokio::select! {
                () = until_one_ends(tasks) => {}
                // It blocks the thread of the daemon's loops until the task has turned three times more.
                () = async { blocked.iter().take(3).for_each(drop) } => {}
            }
        });
        let turned = pulse.turned_since([0, 0]).unwrap();
        assert!(turned[0] >= 3, "{turned:?}");
    }

    #[test]
    fn a_task_that_panics_ends_the_daemon_with_its_panic() {
        let ended = std::panic::catch_unwind(|| {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                tasks.spawn(async { panic!("in a task") });
                until_one_ends(tasks).await;
            });
        });
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"in a task"));
    }
}
