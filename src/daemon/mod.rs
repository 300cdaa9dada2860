//! The daemon's long-lived loops: they sample the node's role, serve it, run the jobs that are due, and keep Redis up to date.
//!
//! - what is known: `observe` (role, PgBouncer), `peers`, `evidence` (the buckets), `rpo`, `timelines`, `vital`, `observed` (own work)
//! - what is decided: `judge`, `repository_faults`, `outages`; pure parts are in `unarchived`, `wal_pace`, `archive_extent`
//! - what is done: `clock` and `driver` (jobs), `archiver`, `fill`, `high_water`, `heartbeat`, `receivers`, `silences`, `clean_up`
//! - the process: `systemd`, `last_answer`; `status` is also used by the command line
//!
//! A new loop is a file here and a line in `own_tasks` (it must not end) or `shared_tasks`.

mod archive_extent;
mod archiver;
mod check_files;
mod clean_up;
mod clock;
mod driver;
mod evidence;
mod fill;
mod heartbeat;
mod high_water;
mod judge;
mod last_answer;
mod observe;
mod observed;
mod outages;
mod peers;
mod receivers;
mod repository_faults;
mod rpo;
mod server_settings;
mod silences;
mod status;
mod systemd;
mod timelines;
mod unarchived;
mod vital;
mod wal_pace;

use std::future::pending;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, LocalBoxFuture, select_all};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::checks::PgBouncerWatch;
use crate::cluster::{Knowledge, View};
use crate::config::Loaded;
use crate::http::{self, Observed, Shown};
use crate::process::{self, NodeLock};
use crate::repository::RepositoryHandle;
use crate::runner::{Node, RunnerError, success_exchange};
use crate::store::Store;
pub(crate) use clean_up::clean_up;
pub(crate) use status::status;
use systemd::Liveness;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
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
    #[error("the HTTP server ended")]
    Http(#[source] std::io::Error),
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl DaemonError {
    /// What the operator can do.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Running { .. } => Some(
                "`pgrep -a xdb` shows it; stop it first (systemctl stop xdb.socket xdb.service)",
            ),
            Self::Lock { .. } => Some("node.state_directory belongs to the user that runs xdb"),
            Self::Runner(error) => error.hint(),
            _ => None,
        }
    }
}

/// Runs until it is dropped; then [`clean_up`] gives up what an interrupted job left in the buckets.
///
/// # Errors
/// When the daemon cannot start, or its HTTP server ends.
pub(crate) async fn run(loaded: Loaded, repository: &RepositoryHandle) -> Result<(), DaemonError> {
    let open_files = process::raise_open_files();
    let config = &loaded.config;
    let _only = only_one(&config.node.state_directory)?;
    let (listener, waits_in_systemd) = listener(&config.http.listen).await?;
    let senders = Senders::new(Knowledge {
        objectives: rpo::objectives(&config.archive, &config.restore_test),
        peers: peers::configured(&config.cluster, &config.node.hostname),
        ..Knowledge::default()
    });
    let (view, known) = (senders.view.subscribe(), senders.known.subscribe());
    let store = Store::serve(&config.node.state_directory);
    let node = Node::open(&loaded, repository, store, view.clone(), known.clone())?;
    let observed = watch::Sender::new(Observed::default());
    let shown = Shown {
        cluster: config.cluster.name.clone(),
        hostname: config.node.hostname.clone(),
        listen: config.http.listen.clone(),
        view,
        known,
        observed: observed.subscribe(),
    };
    let liveness = Arc::new(Liveness::default());
    let driver = driver::Driver::new(&node, &liveness)?;
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
    let mut own = JoinSet::new();
    for (name, task) in own_tasks(&node, driver, liveness, &senders) {
        own.spawn(named(name, task));
    }
    let shared = shared_tasks(&node, &loaded, &senders.known, &shown);
    let seen: LocalBoxFuture<'_, ()> = Box::pin(observed::keep(&node, &observed));
    let shared = shared
        .into_iter()
        .chain([("own work", seen)])
        .map(|(name, task)| Box::pin(named(name, task)));
    tokio::select! {
        served = server => served.unwrap_or_else(|error| Err(error.into())).map_err(DaemonError::Http),
        () = until_one_ends(own) => Ok(()),
        _ = select_all(shared) => Ok(()),
    }
}

/// How long the end may take: systemd must wait for it.
pub(crate) const CLEAN_UP: Duration = Duration::from_secs(20);

/// Where the loops write this node's state and what it knows of the others; every loop reads both.
#[derive(Clone)]
struct Senders {
    view: watch::Sender<View>,
    known: watch::Sender<Knowledge>,
}

impl Senders {
    fn new(known: Knowledge) -> Self {
        Self {
            view: watch::Sender::default(),
            known: watch::Sender::new(known),
        }
    }
}

/// What the answers to HAProxy and to systemd depend on, each a task of its own: the rest shares one task, and a file there
/// that takes long to read holds up the rest only. They are ended when the set is dropped.
fn own_tasks(
    node: &Arc<Node>,
    driver: driver::Driver,
    liveness: Arc<Liveness>,
    senders: &Senders,
) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let config = &node.tools.loaded.config;
    let postgres = config.postgres.clone();
    let data = postgres.data_directory.clone();
    let watch = PgBouncerWatch::new(&config.pgbouncer, &config.postgres);
    let (senders, view) = (|| senders.clone(), || senders.view.clone());
    let roles = observe::roles(postgres, senders(), liveness.clone());
    vec![
        ("roles", Box::pin(roles)),
        ("PgBouncer", Box::pin(observe::pgbouncer(watch, view()))),
        ("written WAL", Box::pin(observe::written(data, view()))),
        ("peers", Box::pin(peers::peers(node.clone(), senders()))),
        (
            "timelines",
            Box::pin(timelines::follow(node.clone(), senders())),
        ),
        ("driver", Box::pin(async move { driver.drive().await })),
        (
            "watchdog",
            Box::pin(async move { liveness.keep_watchdog_quiet().await }),
        ),
    ]
}

/// The loops that share one task.
fn shared_tasks<'a>(
    node: &'a Arc<Node>,
    loaded: &Loaded,
    known: &'a watch::Sender<Knowledge>,
    shown: &'a Shown,
) -> Vec<(&'static str, LocalBoxFuture<'a, ()>)> {
    vec![
        ("last answer", Box::pin(last_answer::keep(node))),
        ("evidence", Box::pin(evidence::keep(node, known))),
        ("high-water mark", Box::pin(high_water::keep(node))),
        ("archive fill", Box::pin(fill::keep(node))),
        ("RPO", Box::pin(rpo::keep(node, known))),
        ("verdict", Box::pin(judge::judge(node, known))),
        ("vital checks", Box::pin(vital::watch(node))),
        ("heartbeat", Box::pin(heartbeat::beat(node, shown))),
        ("silences", Box::pin(silences::keep(node, known))),
        ("settings", Box::pin(server_settings::keep(node, known))),
        ("receivers", Box::pin(receivers::keep(node))),
        ("last successes", Box::pin(success_exchange::exchange(node))),
        ("S3", Box::pin(outages::watch_s3(node))),
        (
            "check files",
            Box::pin(check_files::reread_on_hang_up(node)),
        ),
        ("archiver", Box::pin(archiver::serve(node, loaded))),
    ]
}

/// No loop ends by itself: one that does ends the daemon, and its name is in the log.
async fn named(name: &'static str, task: impl Future<Output = ()>) {
    task.await;
    tracing::error!("the daemon's loop {name} ended");
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
        let liveness = Arc::new(Liveness::default());
        let (begun, blocked) = std::sync::mpsc::channel();
        let of = liveness.clone();
        runtime().block_on(async {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    of.roles.turned();
                    of.driver.turned();
                    let _ = begun.send(());
                }
            });
            tokio::select! {
                () = until_one_ends(tasks) => {}
                // It blocks the thread of the daemon's loops until the task has turned three times more.
                () = async { blocked.iter().take(3).for_each(drop) } => {}
            }
        });
        let turned = liveness.turned_since([0, 0]).unwrap();
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
