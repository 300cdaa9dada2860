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

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{CHECK, HEADER, OK, PUSH, frame};
use crate::archive::{ArchiveError, Repository, environment};
use crate::config::Config;
use crate::log;
use crate::process::Group;

/// How long the program's daemon may take to listen, and to say that it is well.
const START: Duration = Duration::from_secs(5);
const CHECKED: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
        listens(&socket).await?;
        let mut answered = std::pin::pin!(ask(&socket, PUSH, name));
        loop {
            tokio::select! {
                answer = &mut answered => return Ok(answer? == OK),
                // One that hangs keeps its connections open.
                () = tokio::time::sleep(CHECKED * 2) => is_well(&socket).await?,
            }
        }
    }
}

async fn listens(socket: &Path) -> io::Result<()> {
    let give_up = Instant::now() + START;
    while let Err(error) = is_well(socket).await {
        if Instant::now() > give_up || error.kind() == io::ErrorKind::TimedOut {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn is_well(socket: &Path) -> io::Result<()> {
    let answer = timeout(CHECKED, ask(socket, CHECK, "")).await?;
    if answer? == OK {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// One request by a connection of its own; the type of the answer.
async fn ask(socket: &Path, kind: u8, body: &str) -> io::Result<u8> {
    let mut stream = UnixStream::connect(socket).await?;
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
    /// Counts the starts: an upload of an earlier one tells nothing about this one.
    pub(super) generation: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl Supervised {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            place: Place::of(config),
            running: None,
            generation: 0,
            failures: 0,
            not_before: None,
        }
    }

    /// Starts it where it does not run; `false` while it may not be started again yet, or cannot be.
    pub(super) async fn ensure(&mut self, config: &Config, repository: &Repository) -> bool {
        if let Some(group) = &mut self.running {
            match group.ended() {
                None => return true,
                Some(status) => {
                    tracing::warn!("the program's daemon ended: {status}");
                    self.kill().await;
                }
            }
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.generation += 1;
        match self.start(config, repository) {
            Ok(group) => {
                self.running = Some(group);
                true
            }
            Err(error) => {
                tracing::warn!(
                    "the program's daemon cannot be started: {}",
                    log::chain(&error)
                );
                self.back_off();
                false
            }
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
            // It answers an error then, and goes on uploading: xdb gives up before, and kills it.
            .env(
                "WALG_DAEMON_WAL_UPLOAD_TIMEOUT",
                format!("{}s", config.archive.push_timeout.as_secs().max(1) * 2),
            )
            .current_dir(&self.place.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Group::start(&mut command, Signal::KILL)?)
    }

    /// Ends it with all that it started; when this returns, it reads no segment any more.
    pub(super) async fn kill(&mut self) {
        self.end().await;
        self.back_off();
    }

    /// The same, where it did nothing wrong.
    pub(super) async fn end(&mut self) {
        if let Some(mut group) = self.running.take() {
            group.stop(Signal::KILL, START).await;
        }
    }

    fn back_off(&mut self) {
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
    }

    /// After a file was stored: one at a time is over, and the next start need not wait long.
    pub(super) fn does_well(&mut self) {
        self.failures = 0;
    }

    /// It failed since it last stored anything: a slow link must not get many uploads at once.
    pub(super) fn is_on_probation(&self) -> bool {
        self.failures > 0
    }
}
