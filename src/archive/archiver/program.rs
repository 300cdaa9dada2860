//! The program's own daemon behind the socket: started, asked, killed with its whole group, started again.
//!
//! It sees a directory of xdb's own as its data directory, with links to what it is to store: so it finds no
//! `archive_status` to change or to look ahead in, and no other file.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::progress::Progress;
use super::protocol::{CHECK, HEADER, OK, PUSH, frame};
use crate::archive::{ArchiveError, Repository, environment};
use crate::config::Config;
use crate::log;
use crate::process::Group;
use crate::store::Store;

/// How long the program's daemon may take to listen, and to say that it is well.
const START: Duration = Duration::from_secs(5);
const CHECKED: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long one file may take however well it gets on.
pub(super) fn longest(config: &Config) -> Duration {
    config.archive.push_timeout.max(Duration::from_secs(1)) * 10
}

/// Where the program's daemon works: private, and emptied before each start.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn of(config: &Config) -> Self {
        Self(config.node.state_directory.join("archiver"))
    }

    /// One for each start: an upload of an earlier one must not get to the next.
    fn socket(&self, generation: u64) -> PathBuf {
        self.0.join(format!("{generation}.sock"))
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.0.join("pg_wal").join(name)
    }

    fn make_empty(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).recursive(true);
        private.create(self.0.join("pg_wal/archive_status"))
    }

    /// Shows the program the file at `path`, under its own name.
    pub(super) fn stage(&self, path: &Path, name: &str) -> io::Result<()> {
        self.unstage(name);
        symlink(path, self.staged(name))
    }

    pub(super) fn unstage(&self, name: &str) {
        // Gone already is what was wanted.
        let _ = fs::remove_file(self.staged(name));
    }

    /// Has the program's daemon store what was staged as `name`; `false` when it says that it could not.
    ///
    /// # Errors
    /// When it does not listen, ends or hangs: then it must be killed, for what it still does nobody knows.
    pub(super) async fn push(&self, name: &str, generation: u64) -> io::Result<bool> {
        let socket = self.socket(generation);
        let stream = connect(&socket).await?;
        let mut answered = std::pin::pin!(ask(stream, PUSH, name));
        loop {
            tokio::select! {
                answer = &mut answered => return Ok(answer? == OK),
                // One that hangs keeps its connections open.
                () = tokio::time::sleep(CHECKED * 2) => is_well(&socket).await?,
            }
        }
    }
}

/// Connects; one that was just started may not listen yet.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let give_up = Instant::now() + START;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if Instant::now() > give_up => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            stream => return stream,
        }
    }
}

async fn is_well(socket: &Path) -> io::Result<()> {
    let check = async { ask(UnixStream::connect(socket).await?, CHECK, "").await };
    if timeout(CHECKED, check).await?? == OK {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// One request by a connection of its own; the type of the answer.
async fn ask(mut stream: UnixStream, kind: u8, body: &str) -> io::Result<u8> {
    stream.write_all(&frame(kind, body)).await?;
    // wal-g answers with one byte, walrus with a frame.
    let mut answer = [0; HEADER];
    match stream.read(&mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

/// The program's daemon as it runs now, or does not.
pub(super) struct Supervised {
    pub(super) place: Place,
    running: Option<Group>,
    progress: Progress,
    /// Counts the starts: an upload of an earlier one tells nothing about this one.
    pub(super) generation: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// Where its failures are noted, for the check of them.
    store: Store,
}

impl Supervised {
    pub(super) fn new(config: &Config, store: Store) -> Self {
        Self {
            place: Place::of(config),
            running: None,
            progress: Progress::of(None),
            generation: 0,
            failures: 0,
            not_before: None,
            store,
        }
    }

    /// Starts it where it does not run; `false` while it may not be started again yet, or cannot be.
    pub(super) async fn ensure(&mut self, config: &Config, repository: &Repository) -> bool {
        self.bury().await;
        if self.running.is_some() {
            return true;
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.generation += 1;
        match self.start(config, repository) {
            Ok(group) => {
                self.progress = Progress::of(group.id());
                self.running = Some(group);
                true
            }
            Err(error) => {
                tracing::warn!(
                    "the program's daemon cannot be started: {}",
                    log::chain(&error)
                );
                self.back_off().await;
                false
            }
        }
    }

    /// Of the daemon that runs now.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Takes leave of one that ended by itself.
    pub(super) async fn bury(&mut self) {
        if let Some(status) = self.running.as_mut().and_then(Group::ended) {
            tracing::warn!("the program's daemon ended: {status}");
            self.kill().await;
        }
    }

    fn start(&self, config: &Config, repository: &Repository) -> Result<Group, ArchiveError> {
        self.place
            .make_empty()
            .map_err(|source| ArchiveError::Segment {
                path: self.place.0.clone(),
                source,
            })?;
        let (_, mut command) = environment::command(config, repository, &self.place.0)?;
        command
            .arg("daemon")
            .arg(self.place.socket(self.generation))
            // At that time it answers an error and goes on uploading: xdb gives up before, and kills it.
            .env(
                "WALG_DAEMON_WAL_UPLOAD_TIMEOUT",
                format!("{}s", longest(config).as_secs() * 2),
            )
            .current_dir(&self.place.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let concurrency = "WALG_UPLOAD_CONCURRENCY";
        if !config.archive.settings.contains_key(concurrency) {
            // walrus takes four at once by default, however many it is asked for.
            command.env(
                concurrency,
                config.archive.upload_concurrency.max(1).to_string(),
            );
        }
        Ok(Group::start(&mut command, Signal::KILL)?)
    }

    /// Ends it with all that it started; when this returns, it reads no segment any more.
    pub(super) async fn kill(&mut self) {
        // Of many uploads that one crash broke, the first counts.
        if self.running.is_some() {
            self.end().await;
            self.back_off().await;
        }
    }

    /// The same, where it did nothing wrong.
    pub(super) async fn end(&mut self) {
        if let Some(mut group) = self.running.take() {
            group.stop(Signal::KILL, START).await;
        }
    }

    async fn back_off(&mut self) {
        let now = Timestamp::now();
        let noted = self
            .store
            .write(move |writing| writing.note_program_failure(now));
        if let Err(error) = noted.await {
            tracing::warn!("{}", log::chain(&error));
        }
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
    }

    /// After a file was stored: the next start need not wait long.
    pub(super) fn does_well(&mut self) {
        self.failures = 0;
    }
}
