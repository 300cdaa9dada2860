//! The program's own daemons behind the socket: started together, asked, killed with their whole groups, started again.
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

use super::error::ArchiverError;
use super::progress::{UploadProgress, memory};
use super::protocol::{CHECK, HEADER, OK, PUSH, frame};
use crate::config::Archive;
use crate::log;
use crate::process::ProcessGroup;
use crate::repository::{Program, Repository, segment_size_in, set_segment_size};
use crate::store::Store;

/// How long the program's daemon may take to listen.
const START: Duration = Duration::from_secs(5);
/// While an upload takes longer than this, the program is asked again and again whether it still works.
const ASKED: Duration = Duration::from_secs(4);
/// How long it may take to say so: one that works in a single thread compresses first, on a busy machine for seconds.
const CHECKED: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// More daemons than this never run: each takes memory, and S3 or the disk is the bound by then.
const MOST: usize = 4;

/// Daemons that were idle for so long are ended where they keep more memory than [`LEAN`]: wal-g's keeps what a load took
/// for hours, and the next file starts them again within a moment.
const IDLE: Duration = Duration::from_secs(60);
const LEAN: u64 = 64 << 20;

/// How long one file may take however well it gets on.
pub(super) fn longest(archive: &Archive) -> Duration {
    archive.push_timeout.max(Duration::from_secs(1)) * 10
}

/// One of the daemons that run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worker {
    /// Counts the starts: an upload of an earlier one tells nothing about this one.
    pub(super) generation: u64,
    pub(super) number: usize,
}

/// Where the program's daemons work: private, and emptied before each start.
#[derive(Debug, Clone)]
pub(super) struct ProgramDirectory(PathBuf);

impl ProgramDirectory {
    pub(super) fn of(state_directory: &Path) -> Self {
        Self(state_directory.join("archiver"))
    }

    /// One for each start: an upload of an earlier one must not get to the next.
    fn socket(&self, worker: Worker) -> PathBuf {
        let Worker { generation, number } = worker;
        self.0.join(format!("{generation}-{number}.sock"))
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
    /// When it does not listen, ends or hangs: then it must be killed, because it may still be writing.
    pub(super) async fn push(&self, name: &str, worker: Worker) -> io::Result<bool> {
        let socket = self.socket(worker);
        let stream = connect(&socket).await?;
        let mut answered = std::pin::pin!(send_request(stream, PUSH, name));
        loop {
            tokio::select! {
                answer = &mut answered => return Ok(answer? == OK),
                // One that hangs keeps its connections open.
                () = tokio::time::sleep(ASKED) => is_well(&socket).await?,
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
    let check = async { send_request(UnixStream::connect(socket).await?, CHECK, "").await };
    if timeout(CHECKED, check).await?? == OK {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// One request by a connection of its own; the type of the answer.
async fn send_request(mut stream: UnixStream, kind: u8, body: &str) -> io::Result<u8> {
    stream.write_all(&frame(kind, body)).await?;
    // wal-g answers with one byte, walrus with a frame.
    let mut answer = [0; HEADER];
    match stream.read(&mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

/// The program's daemons as they run now, or do not.
///
/// They live and die together: whatever is wrong with one is most likely wrong with all, and after a failure files go
/// one at a time anyway.
pub(super) struct Supervised {
    pub(super) place: ProgramDirectory,
    /// Empty where none runs.
    running: Vec<(ProcessGroup, UploadProgress)>,
    pub(super) generation: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// When a file was last handed to one of them.
    used_at: Instant,
    /// Where its failures are noted, for the check of them.
    store: Store,
}

impl Supervised {
    pub(super) fn new(place: ProgramDirectory, store: Store) -> Self {
        Self {
            place,
            running: Vec::new(),
            generation: 0,
            failures: 0,
            not_before: None,
            used_at: Instant::now(),
            store,
        }
    }

    /// Starts them where they do not run; `false` while they may not be started again yet, or cannot be.
    pub(super) async fn ensure(&mut self, repository: &Repository) -> bool {
        self.used_at = Instant::now();
        self.bury().await;
        if !self.running.is_empty() {
            return true;
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.generation += 1;
        match self.start(repository) {
            Ok(groups) => {
                let watched = groups.into_iter().map(|group| {
                    let progress = UploadProgress::of(group.id());
                    (group, progress)
                });
                self.running = watched.collect();
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

    /// The one that is at the fewest of the files under way; `busy` is the number of each one's worker.
    pub(super) fn least_busy(&self, busy: &[usize]) -> Option<(Worker, UploadProgress)> {
        let at = |number: usize| busy.iter().filter(|other| **other == number).count();
        let workers = self.running.iter().enumerate();
        let (number, (_, progress)) = workers.min_by_key(|(number, _)| at(*number))?;
        let worker = Worker {
            generation: self.generation,
            number,
        };
        Some((worker, progress.clone()))
    }

    /// Drops all of them where one has exited.
    pub(super) async fn bury(&mut self) {
        let ended = self.running.iter_mut().find_map(|(group, _)| group.ended());
        if let Some(status) = ended {
            tracing::warn!("the program's daemon ended: {status}");
            self.kill().await;
        }
    }

    fn start(&self, repository: &Repository) -> Result<Vec<ProcessGroup>, ArchiverError> {
        self.place
            .make_empty()
            .map_err(|source| ArchiverError::Directory {
                path: self.place.0.clone(),
                source,
            })?;
        let (program, _) = repository.program.find()?;
        (0..daemons(program))
            .map(|number| self.start_one(repository, number))
            .collect()
    }

    fn start_one(
        &self,
        repository: &Repository,
        number: usize,
    ) -> Result<ProcessGroup, ArchiverError> {
        let (_, mut command) = repository.command(&self.place.0)?;
        let archive = &repository.program.archive;
        let live = repository.data_directory().join("pg_wal");
        if let Some(size) = segment_size_in(&live) {
            set_segment_size(&mut command, size);
        }
        let worker = Worker {
            generation: self.generation,
            number,
        };
        command
            .arg("daemon")
            .arg(self.place.socket(worker))
            // After that time it answers with an error and still uploads: xdb gives up before, and kills it.
            .env(
                "WALG_DAEMON_WAL_UPLOAD_TIMEOUT",
                format!("{}s", longest(archive).as_secs() * 2),
            )
            .current_dir(&self.place.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let concurrency = "WALG_UPLOAD_CONCURRENCY";
        if !archive.settings.contains_key(concurrency) {
            // walrus takes four at once by default, however many it is asked for.
            command.env(concurrency, archive.upload_concurrency.max(1).to_string());
        }
        Ok(ProcessGroup::start(&mut command, Signal::KILL)?)
    }

    /// Ends them with all that they started; when this returns, they read no segment any more.
    pub(super) async fn kill(&mut self) {
        // Of many uploads that one crash broke, the first counts.
        if !self.running.is_empty() {
            self.end().await;
            self.back_off().await;
        }
    }

    /// The same, where they did nothing wrong.
    pub(super) async fn end(&mut self) {
        for (mut group, _) in self.running.drain(..) {
            group.stop(Signal::KILL, START).await;
        }
    }

    /// Ends them where they are idle and keep memory that others could use; nothing is under way.
    pub(super) async fn give_memory_back(&mut self) {
        let ids = self.running.iter().filter_map(|(group, _)| group.id());
        let bytes: u64 = ids.filter_map(memory).sum();
        if is_kept_for_nothing(self.used_at.elapsed(), bytes) {
            tracing::debug!("the program's daemons kept {bytes} bytes while idle, and are ended");
            self.end().await;
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

fn is_kept_for_nothing(idle: Duration, bytes: u64) -> bool {
    idle >= IDLE && bytes > LEAN
}

/// How many daemons of `program` run side by side: one that works in a single thread cannot use a second processor.
fn daemons(program: Program) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if program.daemon_is_single_threaded() {
        processors.min(MOST)
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_only_after_a_load_and_while_idle() {
        let (second, mib) = (Duration::from_secs(1), 1 << 20);
        assert!(is_kept_for_nothing(IDLE, 195 * mib));
        assert!(!is_kept_for_nothing(IDLE - second, 195 * mib));
        assert!(!is_kept_for_nothing(IDLE * 60, 32 * mib));
        assert!(!is_kept_for_nothing(IDLE * 60, 0), "none runs");
    }
}
