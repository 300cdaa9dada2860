//! What the archive's histories and segments say of a timeline. Each version is read once, and under limits: a host that may
//! write to the bucket may put anything there.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::log;
use crate::model::{ArchiveFile, SegmentSize, Timeline, TimelineHistory, WalSegment};
use crate::postgres;
use crate::process;
use crate::repository::catalog::{
    HISTORY_LIMIT, archived_name, parse_stored_history, stored_header,
};
use crate::repository::wal_header::{self, Header};
use crate::repository::{Repository, RepositoryError};
use crate::storage::Object;

/// For one fetch by the WAL-G program of a file that xdb cannot read.
const FETCH: Duration = Duration::from_secs(20);
/// A fetch that failed is not repeated before.
const RETRY: Duration = Duration::from_secs(60);
/// Encryption and compression add at most this to a segment.
const SLACK: u64 = 1 << 20;

/// What the archive holds of a timeline's history.
#[derive(Debug)]
pub(crate) enum History {
    Absent,
    Read(TimelineHistory),
    /// Its content is no history.
    Bad(String),
    /// The WAL-G program failed to fetch it.
    Unread(RepositoryError),
}

/// Reads single files of one repository, and keeps the answers.
pub(crate) struct TimelineFiles {
    repository: Repository,
    pub size: SegmentSize,
    headers: Answers<Option<Header>>,
    histories: Answers<Result<TimelineHistory, String>>,
    failed: Answers<(Instant, String)>,
}

impl TimelineFiles {
    pub(crate) fn of(repository: &Repository) -> Self {
        Self {
            size: postgres::segment_size_in(repository.data_directory()),
            repository: repository.clone(),
            headers: Answers::default(),
            histories: Answers::default(),
            failed: Answers::default(),
        }
    }

    /// The history of `timeline` among `objects`.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(crate) async fn history(
        &self,
        timeline: Timeline,
        objects: &[Object],
    ) -> Result<History, RepositoryError> {
        let name = timeline.history_file();
        let is_history =
            |object: &&Object| key_name(&object.key).is_some_and(|(found, _)| found == name);
        let Some(object) = objects.iter().find(is_history) else {
            return Ok(History::Absent);
        };
        let read = match self.histories.of(object) {
            Some(known) => known,
            None => {
                let read = match self.read_history(object, &name).await? {
                    Ok(read) => read,
                    Err(error) => return Ok(History::Unread(error)),
                };
                self.histories.keep(object, read.clone());
                read
            }
        };
        Ok(read.map_or_else(History::Bad, History::Read))
    }

    /// The inner error is the program's.
    async fn read_history(
        &self,
        object: &Object,
        name: &str,
    ) -> Result<Result<Result<TimelineHistory, String>, RepositoryError>, RepositoryError> {
        if object.size > HISTORY_LIMIT {
            return Ok(Ok(Err(format!("it has {} bytes", object.size))));
        }
        let stored = self
            .repository
            .bucket
            .get_at_most(&object.key, HISTORY_LIMIT)
            .await?;
        let read = parse_stored_history(&object.key, &stored);
        if read.is_ok() || !self.needs_program(&object.key) {
            return Ok(Ok(read));
        }
        let fetched = self.fetch_by_program(object, name, HISTORY_LIMIT).await;
        Ok(fetched.map(|content| parse_stored_history(name, &content)))
    }

    /// `None` where the content is no segment of this name; the inner error says why the program cannot fetch it.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(crate) async fn header(
        &self,
        object: &Object,
        name: &str,
    ) -> Result<Result<Option<Header>, RepositoryError>, RepositoryError> {
        if let Some(known) = self.headers.of(object) {
            return Ok(Ok(known));
        }
        let read = if object.size > self.size.bytes() + SLACK {
            None
        } else if self.needs_program(&object.key) {
            let most = wal_header::HEADER as u64;
            match self.fetch_by_program(object, name, most).await {
                Ok(content) => wal_header::parse(&content),
                Err(error) => return Ok(Err(error)),
            }
        } else {
            stored_header(&self.repository.bucket, object).await?.ok()
        };
        let named = |header: &Header| {
            let segment = WalSegment::parse(&name[..24], self.size);
            segment.is_ok_and(|segment| segment.start(self.size) == header.address)
        };
        let header = read.filter(named);
        self.headers.keep(object, header);
        Ok(Ok(header))
    }

    fn needs_program(&self, key: &str) -> bool {
        self.repository.program.encrypts()
            || [".lzma", ".br"].iter().any(|suffix| key.ends_with(suffix))
    }

    /// Has the WAL-G program fetch what is encrypted, or compressed in a way that xdb does not read; its first `most` bytes.
    async fn fetch_by_program(
        &self,
        object: &Object,
        name: &str,
        most: u64,
    ) -> Result<Vec<u8>, RepositoryError> {
        let program = self.repository.program.archive.program.clone();
        let failed = |reason| RepositoryError::Failed {
            program,
            verb: "wal-fetch",
            reason,
        };
        let lately = self.failed.of(object);
        if let Some((_, reason)) = lately.filter(|(at, _)| at.elapsed() < RETRY) {
            return Err(failed(reason));
        }
        self.run_program(name, most).await.map_err(|error| {
            let reason = format!("{name} cannot be read: {}", log::chain(&error));
            tracing::warn!("{reason}");
            self.failed.keep(object, (Instant::now(), reason.clone()));
            failed(reason)
        })
    }

    async fn run_program(&self, name: &str, most: u64) -> Result<Vec<u8>, RepositoryError> {
        let scratch = TemporaryDirectory::make()?;
        let path = scratch.0.join(name);
        let (program, mut command) = self.repository.command(self.repository.data_directory())?;
        command.arg("wal-fetch").arg(name).arg(&path);
        let finished = process::run(command, FETCH).await?;
        let read = read_start(&path, most);
        match read {
            Ok(content) if finished.status.success() => Ok(content),
            _ => Err(RepositoryError::Failed {
                program: program.to_string(),
                verb: "wal-fetch",
                reason: finished.last_words(),
            }),
        }
    }
}

fn read_start(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// What was read, by the object's key, for the version that was read.
#[derive(Debug)]
struct Answers<T>(Mutex<HashMap<String, (String, T)>>);

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Answers<T> {
    fn of(&self, object: &Object) -> Option<T> {
        let known = self.lock().get(&object.key).cloned();
        let (_, answer) = known.filter(|(read, _)| *read == version(object))?;
        Some(answer)
    }

    fn keep(&self, object: &Object, answer: T) {
        let key = object.key.clone();
        self.lock().insert(key, (version(object), answer));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(object: &Object) -> String {
    format!("{} {} {}", object.tag, object.size, object.last_modified)
}

/// A private directory that is removed when a fetch ends, also when its caller gives up.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn make() -> Result<Self, RepositoryError> {
        let name = format!(
            "xdb-header-{}-{}",
            std::process::id(),
            Timestamp::now().as_nanosecond()
        );
        let directory = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|source| RepositoryError::State {
            directory: std::env::temp_dir(),
            source,
        })?;
        Ok(Self(directory))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The name of the file that is stored under `key`, without its compression.
pub(crate) fn key_name(key: &str) -> Option<(&str, ArchiveFile)> {
    archived_name(key.rsplit('/').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_the_version_that_was_read() {
        let object = |tag: &str, size| Object {
            key: "wal_005/00000002.history".to_owned(),
            size,
            last_modified: Timestamp::UNIX_EPOCH,
            tag: tag.to_owned(),
        };
        let answers = Answers::default();
        assert_eq!(answers.of(&object("a", 1)), None);
        answers.keep(&object("a", 1), 7);
        assert_eq!(answers.of(&object("a", 1)), Some(7));
        assert_eq!(answers.of(&object("b", 1)), None);
        assert_eq!(answers.of(&object("a", 2)), None);
    }

    #[test]
    fn a_fetch_leaves_no_directory_behind() {
        let scratch = TemporaryDirectory::make().unwrap();
        let directory = scratch.0.clone();
        std::fs::write(directory.join("part"), "12345").unwrap();
        assert_eq!(read_start(&directory.join("part"), 3).unwrap(), b"123");
        drop(scratch);
        assert!(!directory.exists());
    }
}
