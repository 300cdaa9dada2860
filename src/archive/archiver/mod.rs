//! The archiver: a socket that speaks WAL-G's daemon protocol, the program's daemon behind it, and what comes next ahead.
//!
//! It serves a primary that leads. To all else, and whenever in doubt, it answers with an error, and `xdb wal-push` does
//! the work by itself; so an error is answered only when nothing here works at the file any more. It never changes
//! anything below the data directory.

mod client;
mod look_ahead;
mod program;
mod protocol;
mod socket;
mod talk;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::ArchiveError;
use crate::config::Config;
use crate::log;
use crate::storage::Bucket;
pub(super) use client::{Handed, hand_over};
use program::{Place, Supervised};
use protocol::Request;
use upload::{Ended, Identity, Means};

/// What was stored ahead counts this long; after that the bucket is asked again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How often uploads that a killed program left unfinished are looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// The system identifier of the server here while it leads; `None` when it does not, or when that is not known.
pub type Leads = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// What a client asks, and where the answer goes.
type Ask = (Request, oneshot::Sender<bool>);

/// Serves until it is dropped; at once for ever silent where `archive.socket` is not set.
pub async fn serve(config: &Config, leads: Leads) {
    match open(config).await {
        Ok(Some((listener, means))) => Archiver::new(means, leads).run(listener).await,
        Ok(None) => {}
        Err(error) => tracing::error!(
            "the archiver does not run, and each wal-push works by itself: {}",
            log::chain(&error)
        ),
    }
    std::future::pending().await
}

async fn open(config: &Config) -> Result<Option<(socket::Listening, Means)>, ArchiveError> {
    let Some(path) = &config.archive.socket else {
        return Ok(None);
    };
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let listener = socket::listen(path).map_err(|source| ArchiveError::Socket {
        path: path.clone(),
        source,
    })?;
    let means = Means {
        place: Place::of(config),
        config: config.clone(),
        repository,
        bucket,
        judged: Mutex::default(),
    };
    Ok(Some((listener, means)))
}

struct Archiver {
    means: Arc<Means>,
    leads: Leads,
    program: Supervised,
    /// Dropped with this, which ends them.
    uploads: JoinSet<(String, Ended)>,
    /// Whoever waits for a file that is on its way; nobody for one that is pushed ahead.
    waiting: HashMap<String, Vec<oneshot::Sender<bool>>>,
    /// Pushed ahead, and not asked for yet.
    stored: HashMap<String, (Identity, Instant)>,
    /// The run of the server that the last file came from.
    server: Option<String>,
}

impl Archiver {
    fn new(means: Means, leads: Leads) -> Self {
        Self {
            program: Supervised::new(&means.config),
            means: Arc::new(means),
            leads,
            uploads: JoinSet::new(),
            waiting: HashMap::new(),
            stored: HashMap::new(),
            server: None,
        }
    }

    async fn run(mut self, listening: socket::Listening) {
        let listener: &UnixListener = &listening.listener;
        let (asking, mut asked) = mpsc::channel::<Ask>(64);
        let mut talks = JoinSet::new();
        let mut sweeps = interval(SWEEP);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        talks.spawn(talk::talk(stream, asking.clone()));
                    }
                    // Out of files, most likely: not in a tight loop.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = talks.join_next(), if !talks.is_empty() => {}
                _ = sweeps.tick() => {
                    if (self.leads)().is_some() {
                        let means = self.means.clone();
                        talks.spawn(async move { means.sweep().await });
                    }
                }
                Some((request, answer)) = asked.recv() => self.take(request, answer).await,
                Some(ended) = self.uploads.join_next(), if !self.uploads.is_empty() => {
                    match ended {
                        Ok((name, ended)) => self.finish(name, ended).await,
                        Err(error) => {
                            tracing::error!("an upload broke: {error}");
                            self.begin_anew().await;
                        }
                    }
                }
            }
        }
    }

    /// Answers at once for what is stored already, else when the upload ended.
    async fn take(&mut self, request: Request, answer: oneshot::Sender<bool>) {
        let Some(cluster) = (self.leads)().filter(|_| !self.means.recovers()) else {
            // The client works by itself now: nothing here may be at the same file.
            self.begin_anew().await;
            let _ = answer.send(false);
            return;
        };
        let name = match request {
            Request::Check => {
                let _ = answer.send(true);
                return;
            }
            Request::Push(name) => name,
        };
        let server = self.means.server();
        if server != self.server {
            // A data directory that was put back writes other content under names that were stored already: neither
            // this nor the program may remember them.
            self.begin_anew().await;
            self.server = server;
        }
        self.stored.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        if !self.means.is_of(&name, cluster) {
            let _ = answer.send(false);
            return;
        }
        let ahead = self.stored.remove(&name).map(|(identity, _)| identity);
        if ahead.is_some() && ahead == self.means.identity(&name) {
            let _ = answer.send(true);
        } else if !self.start(&name).await {
            let _ = answer.send(false);
            return;
        } else if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.push(answer);
        }
        self.look_ahead(&name, cluster).await;
    }

    /// Has `name` uploaded, unless that goes on already; `false` when the program's daemon does not run.
    async fn start(&mut self, name: &str) -> bool {
        if self.waiting.contains_key(name) {
            return true;
        }
        let (config, repository) = (&self.means.config, &self.means.repository);
        if !self.program.ensure(config, repository).await {
            return false;
        }
        self.waiting.insert(name.to_owned(), Vec::new());
        let (means, name) = (self.means.clone(), name.to_owned());
        let generation = self.program.generation;
        self.uploads.spawn(async move {
            let ended = means.upload(&name, generation).await;
            (name, ended)
        });
        true
    }

    async fn look_ahead(&mut self, asked: &str, cluster: u64) {
        if self.program.is_on_probation() {
            return;
        }
        let limit = self.means.config.archive.look_ahead as usize;
        let ready = look_ahead::ready(&self.means.wal_directory());
        for name in look_ahead::plan_look_ahead(asked, ready, limit) {
            let known = self.stored.contains_key(&name) || self.waiting.contains_key(&name);
            if !known && self.means.is_of(&name, cluster) {
                self.start(&name).await;
            }
        }
    }

    /// Ends every upload and forgets everything. Whoever waits is left without an answer, and PostgreSQL asks again.
    async fn begin_anew(&mut self) {
        self.program.end().await;
        self.uploads.shutdown().await;
        self.waiting.clear();
        self.stored.clear();
    }

    async fn finish(&mut self, name: String, ended: Ended) {
        if let Ended::Broken(generation) = ended {
            // What it still does nobody knows: only when it is dead may another work at the same file.
            if generation == self.program.generation {
                self.program.kill().await;
            }
            let means = self.means.clone();
            self.uploads.spawn(async move {
                let ended = means.give_up(&name).await;
                (name, ended)
            });
            return;
        }
        let waiting = self.waiting.remove(&name).unwrap_or_default();
        if let Ended::Stored(identity) = ended {
            self.program.does_well();
            if waiting.is_empty() {
                self.stored.insert(name, (identity, Instant::now()));
            }
        }
        for answer in waiting {
            // Whoever asked may be gone.
            let _ = answer.send(matches!(ended, Ended::Stored(_)));
        }
    }
}
