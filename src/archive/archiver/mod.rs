//! The archiver: a socket that speaks WAL-G's daemon protocol, the program's daemons behind it, and what comes next ahead.
//!
//! It serves a primary that leads. To all else, and whenever in doubt, it answers with an error, and `xdb wal-push` does
//! the work by itself; so an error is answered only when nothing here works at the file any more. Only where this process
//! is itself stopped may two be at one file, with the same content. It never changes anything below the data directory.

mod client;
mod conversation;
mod error;
mod look_ahead;
mod program;
mod progress;
mod protocol;
mod push_times;
mod socket;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::config::RepositorySettings;
use crate::log;
use crate::repository::RepositoryHandle;
use crate::store::{StateFiles, Store};
pub(super) use client::{HandOver, hand_over};
use error::ArchiverError;
use look_ahead::LookAhead;
use program::Supervised;
use protocol::Request;
pub(crate) use push_times::{PUSH_CLASSES, push_times};
use upload::{Identity, UploadContext, UploadOutcome};

/// What was stored ahead counts this long; after that the bucket is asked again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// More than this many that PostgreSQL has not asked for yet are not stored ahead; it asks for 64 between two looks.
const FAR_AHEAD: usize = 64;

/// How often uploads that a killed program left unfinished are looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// How soon after this server was found to lead the first sweep is made, which tells how far away S3 is.
const LEADS: Duration = Duration::from_secs(1);

/// How often is looked whether the program's daemon died while nothing was to be stored.
const DEATHS: Duration = Duration::from_secs(5);

/// After a refusal by S3 the settings are read again, at most this often.
const CONFIGURED: Duration = Duration::from_secs(30);

/// The server here leads, by what it last said.
pub struct LeadingServer {
    pub system_identifier: u64,
    /// It said so just now. One that accepts no logins still asks for its segments to be archived.
    pub is_certain: bool,
}

/// `None` when the server here does not lead, or when that was never known.
pub type LeadCheck = Arc<dyn Fn() -> Option<LeadingServer> + Send + Sync>;

/// Reads the configuration again, or says what is wrong with it; `None` when nothing was changed.
pub type ReloadSettings = Box<dyn Fn() -> Result<Option<RepositorySettings>, String> + Send + Sync>;

/// What a client asks, and where the answer goes.
type PendingRequest = (Request, oneshot::Sender<bool>);

/// Serves until it is dropped; for ever silent where it cannot.
pub async fn serve(
    repository: RepositoryHandle,
    state: StateFiles,
    leads: LeadCheck,
    reload: ReloadSettings,
    store: Store,
) {
    match open(&repository, state).await {
        Ok((listening, context)) => {
            ArchiverService::new(context, leads, reload, store)
                .run(listening)
                .await;
        }
        Err(error) => tracing::error!(
            "the archiver does not run, and each wal-push runs the program itself: {}",
            log::chain(&error)
        ),
    }
    std::future::pending::<()>().await;
}

async fn open(
    repository: &RepositoryHandle,
    state: StateFiles,
) -> Result<(socket::Listening, UploadContext), ArchiverError> {
    let path = socket::path(state.directory());
    let context = UploadContext::of(repository.get().await?, state);
    let listening =
        socket::listen(&path).map_err(|source| ArchiverError::Socket { path, source })?;
    Ok((listening, context))
}

struct ArchiverService {
    context: Arc<UploadContext>,
    leads: LeadCheck,
    reload: ReloadSettings,
    program: Supervised,
    /// Dropped with this, which ends them.
    work: JoinSet<(String, UploadOutcome)>,
    /// What the program's daemons are at now, and which of them.
    uploading: HashMap<String, usize>,
    /// Clients waiting for each upload; empty for look-ahead uploads.
    waiting: HashMap<String, Vec<oneshot::Sender<bool>>>,
    look_ahead: LookAhead,
    /// Pushed ahead, and not asked for yet.
    stored: HashMap<String, (Identity, Instant)>,
    /// The run of the server that the last file came from.
    server: Option<String>,
    configured_at: Instant,
}

impl ArchiverService {
    fn new(context: UploadContext, leads: LeadCheck, reload: ReloadSettings, store: Store) -> Self {
        Self {
            program: Supervised::new(context.place.clone(), store),
            context: Arc::new(context),
            leads,
            reload,
            work: JoinSet::new(),
            uploading: HashMap::new(),
            waiting: HashMap::new(),
            look_ahead: LookAhead::default(),
            stored: HashMap::new(),
            server: None,
            configured_at: Instant::now(),
        }
    }

    async fn run(mut self, listening: socket::Listening) {
        let listener: &UnixListener = &listening.listener;
        let (asking, mut asked) = mpsc::channel::<PendingRequest>(64);
        let mut conversations = JoinSet::new();
        let mut sweeps = interval(SWEEP);
        let mut deaths = interval(DEATHS);
        // A process that may not listen for it has no SIGHUP to miss.
        let mut hang_up = signal(SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        conversations.spawn(conversation::converse(stream, asking.clone()));
                    }
                    // Out of files, most likely: not in a tight loop.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
                _ = sweeps.tick() => {
                    // Another may lead by now, and these may be its uploads.
                    if (self.leads)().is_some_and(|leading| leading.is_certain) {
                        let context = self.context.clone();
                        conversations.spawn(async move { context.sweep().await });
                    } else {
                        sweeps.reset_after(LEADS);
                    }
                }
                _ = deaths.tick() => {
                    self.program.bury().await;
                    if self.work.is_empty() {
                        self.program.give_memory_back().await;
                    }
                }
                Some(()) = received(&mut hang_up) => self.configure_again().await,
                Some((request, answer)) = asked.recv() => self.take(request, answer).await,
                Some(ended) = self.work.join_next(), if !self.work.is_empty() => {
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
        let Some(cluster) = self.leading() else {
            // The client uploads it itself now: nothing here may work at the same file.
            if !self.uploading.is_empty() {
                tracing::warn!("this server does not lead any more: uploads are ended");
            }
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
            Request::PushFile(name, file) if self.context.is_file(&name, file) => name,
            Request::PushFile(..) => {
                let _ = answer.send(false);
                return;
            }
        };
        let server = self.context.server();
        if server != self.server {
            // A data directory that was put back writes other content under names that were stored already: neither
            // this nor the program may remember them.
            self.begin_anew().await;
            self.server = server;
        }
        self.stored.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        if !self.context.is_of(&name, cluster) {
            let _ = answer.send(false);
            return;
        }
        let ahead = self.stored.remove(&name).map(|(identity, _)| identity);
        if ahead.is_some() && ahead == self.context.identity(&name) {
            let _ = answer.send(true);
        } else if !self.start(&name).await {
            let _ = answer.send(false);
            return;
        } else if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.push(answer);
        }
        self.look_ahead.follow(&name, &self.context.wal_directory());
        self.push_ahead().await;
    }

    /// The system identifier of the server here while it leads. Each upload asks the bucket, too.
    fn leading(&self) -> Option<u64> {
        let leading = (self.leads)().filter(|_| !self.context.recovers())?;
        Some(leading.system_identifier)
    }

    /// Has `name` uploaded, unless that is under way already; `false` when the program's daemon does not run.
    async fn start(&mut self, name: &str) -> bool {
        if self.waiting.contains_key(name) {
            return true;
        }
        if !self.program.ensure(&self.context.repository).await {
            return false;
        }
        let busy: Vec<usize> = self.uploading.values().copied().collect();
        let Some((worker, progress)) = self.program.least_busy(&busy) else {
            return false;
        };
        self.waiting.insert(name.to_owned(), Vec::new());
        self.uploading.insert(name.to_owned(), worker.number);
        let (context, name) = (self.context.clone(), name.to_owned());
        self.work.spawn(async move {
            let ended = context.upload(&name, worker, &progress).await;
            (name, ended)
        });
        true
    }

    /// Pushes the next segments ahead, as many as may be under way at once.
    async fn push_ahead(&mut self) {
        let Some(cluster) = self.leading() else {
            self.look_ahead.stop();
            return;
        };
        let at_once = self
            .context
            .distance
            .concurrency(self.context.repository.program.archive.upload_concurrency);
        while self.uploading.len() < at_once && self.stored.len() < FAR_AHEAD {
            let Some(name) = self.look_ahead.next() else {
                return;
            };
            let known = self.stored.contains_key(&name) || self.waiting.contains_key(&name);
            if !known && self.context.is_of(&name, cluster) {
                self.start(&name).await;
            }
        }
    }

    /// Ends every upload and forgets everything. Waiting clients get no answer, and PostgreSQL retries.
    async fn begin_anew(&mut self) {
        self.program.end().await;
        self.work.shutdown().await;
        self.uploading.clear();
        self.waiting.clear();
        self.look_ahead = LookAhead::default();
        self.stored.clear();
    }

    /// Reads the configuration again, for keys that were changed; a broken one, or the same, changes nothing.
    async fn configure_again(&mut self) {
        self.configured_at = Instant::now();
        let opened = match (self.reload)() {
            // Its own alone: what else uses the handle keeps the settings that it began with.
            Ok(Some(settings)) => RepositoryHandle::new(settings).get().await,
            Ok(None) => return,
            Err(reason) => {
                tracing::error!("the archiver keeps its settings: {reason}");
                return;
            }
        };
        match opened {
            Ok(repository) => {
                self.begin_anew().await;
                let state = self.context.state.clone();
                self.context = Arc::new(UploadContext::of(repository, state));
                tracing::info!("the archiver read its settings again");
            }
            Err(error) => {
                tracing::error!("the archiver keeps its settings: {}", log::chain(&error));
            }
        }
    }

    async fn finish(&mut self, name: String, ended: UploadOutcome) {
        self.uploading.remove(&name);
        match ended {
            UploadOutcome::Pushed(identity) => {
                let context = self.context.clone();
                self.work.spawn(async move {
                    let ended = context.confirm(&name, identity).await;
                    (name, ended)
                });
            }
            UploadOutcome::Stored(identity) => {
                self.program.does_well();
                let waiting = self.waiting.remove(&name).unwrap_or_default();
                if waiting.is_empty() {
                    self.stored.insert(name, (identity, Instant::now()));
                } else {
                    self.look_ahead.allow();
                    answer(waiting, true);
                }
            }
            UploadOutcome::Refused => {
                self.look_ahead.stop();
                answer(self.waiting.remove(&name).unwrap_or_default(), false);
            }
            UploadOutcome::Denied => {
                self.look_ahead.stop();
                answer(self.waiting.remove(&name).unwrap_or_default(), false);
                if self.configured_at.elapsed() > CONFIGURED {
                    self.configure_again().await;
                }
            }
            UploadOutcome::Broken(generation) => {
                self.look_ahead.stop();
                // The child may still be writing, so wait until it is dead before retrying the file.
                if generation == self.program.generation {
                    self.program.kill().await;
                }
                let context = self.context.clone();
                self.work.spawn(async move {
                    let ended = context.give_up(&name).await;
                    (name, ended)
                });
            }
        }
        self.push_ahead().await;
    }
}

fn answer(waiting: Vec<oneshot::Sender<bool>>, stored: bool) {
    for answer in waiting {
        // The client may be gone.
        let _ = answer.send(stored);
    }
}

async fn received(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}
