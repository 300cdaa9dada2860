//! One file on its way into the bucket. Stored is what the bucket lists, never what a program says.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::timeout;

use super::look_ahead::S3Distance;
use super::program::{ProgramDirectory, Worker, longest};
use super::progress::UploadProgress;
use crate::archive::role::{
    LocalServer, RoleError, in_recovery, refuse_foreign_prefix, refuse_superseded,
};
use crate::log;
use crate::model::ArchiveFile;
use crate::postgres::postmaster_run;
use crate::repository::{Repository, Timelines, ancestry, wal_header};
use crate::storage::Cause;
use crate::store::StateFiles;

/// How long the last look at what supersedes this server counts; five times as long while another look is under way.
const JUDGED: Duration = Duration::from_secs(2);

/// How often is looked whether the program's daemon gets on.
const LOOK: Duration = Duration::from_secs(2);

/// Which content a path had: PostgreSQL writes a segment's next life over the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

/// How an upload ended.
#[derive(Debug)]
pub(super) enum UploadOutcome {
    /// The program's daemon says that it stored what the file held.
    Pushed(Identity),
    /// The bucket has it, and the file is still the same.
    Stored(Identity),
    /// Nothing works at it any more; the client may.
    Refused,
    /// The same, and S3 denied access.
    Denied,
    /// A daemon of this generation may still work at it: it must be killed first.
    Broken(u64),
}

/// What every upload uses.
pub(super) struct UploadContext {
    pub(super) repository: Repository,
    pub(super) state: StateFiles,
    pub(super) place: ProgramDirectory,
    pub(super) timelines: Timelines,
    /// Held by the upload that looks at what supersedes this server.
    pub(super) judging: tokio::sync::Mutex<()>,
    /// The timeline, as a segment's name begins, that was found not to be superseded, and when.
    pub(super) judged: Mutex<Option<(String, Instant)>>,
    pub(super) distance: S3Distance,
}

impl UploadContext {
    pub(super) fn of(repository: Repository, state: StateFiles) -> Self {
        Self {
            place: ProgramDirectory::of(state.directory()),
            timelines: Timelines::of(&repository, state.clone()),
            repository,
            state,
            judging: tokio::sync::Mutex::default(),
            judged: Mutex::default(),
            distance: S3Distance::default(),
        }
    }

    pub(super) fn wal_directory(&self) -> PathBuf {
        self.repository.data_directory().join("pg_wal")
    }

    /// The file as it is now; `None` where there is none.
    pub(super) fn identity(&self, name: &str) -> Option<Identity> {
        let found = std::fs::metadata(self.wal_directory().join(name)).ok()?;
        found.is_file().then(|| Identity {
            file: (found.dev(), found.ino()),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }

    /// Whether `name` is the file of this device and inode.
    pub(super) fn is_file(&self, name: &str, file: (u64, u64)) -> bool {
        self.identity(name).is_some_and(|found| found.file == file)
    }

    /// Whether `name` is of the cluster that was seen to lead here, by its own first page.
    pub(super) fn is_of(&self, name: &str, system_identifier: u64) -> bool {
        let path = self.wal_directory().join(name);
        match ArchiveFile::of(name) {
            Some(ArchiveFile::Segment | ArchiveFile::Partial) => {
                wal_header::system_identifier(&path) == Some(system_identifier)
            }
            kind => kind.is_some(),
        }
    }

    pub(super) fn recovers(&self) -> bool {
        in_recovery(self.repository.data_directory())
    }

    /// Which run of the server has the data directory: its process, and when it was started.
    pub(super) fn server(&self) -> Option<String> {
        postmaster_run(self.repository.data_directory())
    }

    /// Has the program's daemon store `name`.
    pub(super) async fn upload(
        &self,
        name: &str,
        worker: Worker,
        progress: &UploadProgress,
    ) -> UploadOutcome {
        let Some(before) = self.identity(name) else {
            return UploadOutcome::Refused;
        };
        if self.is_of_an_older_timeline(name) {
            // Whether it may be stored at all `wal-push` looks itself: there are few of these, after a promotion.
            return UploadOutcome::Refused;
        }
        if let Err(error) = self.refuse_superseded(name).await {
            tracing::warn!("{}", log::chain(&error));
            return UploadOutcome::Refused;
        }
        if let Err(error) = self.place.stage(&self.wal_directory().join(name), name) {
            tracing::warn!("{name} cannot be handed to the program's daemon: {error}");
            return UploadOutcome::Refused;
        }
        let pushed = tokio::select! {
            pushed = self.place.push(name, worker) => Some(pushed),
            () = self.stands_still(progress) => None,
        };
        self.place.unstage(name);
        match pushed {
            Some(Ok(true)) => UploadOutcome::Pushed(before),
            Some(Ok(false)) if self.is_denied(name).await => UploadOutcome::Denied,
            Some(Ok(false)) => UploadOutcome::Refused,
            Some(Err(error)) => {
                tracing::warn!("the program's daemon failed at {name}: {error}");
                UploadOutcome::Broken(worker.generation)
            }
            None => {
                tracing::warn!("the program's daemon does not get on with {name}");
                UploadOutcome::Broken(worker.generation)
            }
        }
    }

    fn is_of_an_older_timeline(&self, name: &str) -> bool {
        let data = self.repository.data_directory();
        if ArchiveFile::of(name) != Some(ArchiveFile::Segment) || !ancestry::may_be_left(data, name)
        {
            return false;
        }
        let cluster = wal_header::system_identifier(&self.wal_directory().join(name));
        let own = cluster.and_then(|cluster| ancestry::followed(data, cluster));
        let timeline = ancestry::timeline_of(name);
        own.is_none_or(|own| timeline.is_none_or(|timeline| timeline < own.timeline))
    }

    /// Ends when nothing moves for long, or at the longest time that one file may take.
    async fn stands_still(&self, progress: &UploadProgress) {
        // What is left of the time is for the client, and for killing.
        let patience = self.repository.program.archive.push_timeout / 10 * 6;
        let begun = Instant::now();
        loop {
            tokio::time::sleep(LOOK.min(patience)).await;
            let still = progress.stands_still_for().min(begun.elapsed());
            if still > patience || begun.elapsed() > longest(&self.repository.program.archive) {
                return;
            }
        }
    }

    /// Asks the bucket for what the program's daemon says that it stored: once, whatever its compression.
    pub(super) async fn confirm(&self, name: &str, before: Identity) -> UploadOutcome {
        let asked = Instant::now();
        let stored = match self.repository.whole_as(name, before.size).await {
            Ok(stored) => stored.len(),
            Err(error) => {
                tracing::warn!("{name} was not looked for: {}", log::chain(&error));
                return UploadOutcome::Refused;
            }
        };
        if stored == 1 && self.identity(name) == Some(before) {
            self.distance.answered_in(asked.elapsed());
            return UploadOutcome::Stored(before);
        }
        if stored != 1 {
            tracing::warn!(
                "the program's daemon said that {name} is stored, but the bucket holds {stored} whole copies of it"
            );
        }
        UploadOutcome::Refused
    }

    /// Why the program's daemon could not store `name` it does not tell; S3 tells whether it was the keys.
    async fn is_denied(&self, name: &str) -> bool {
        let key = self.repository.key(&format!("wal_005/{name}"));
        let looked = self.repository.bucket.exists(&key).await;
        looked.is_err_and(|error| matches!(error.cause(), Some(Cause::Denied(_))))
    }

    /// The first of many looks for all of them; while one looks again, the others count on the last look.
    async fn refuse_superseded(&self, name: &str) -> Result<(), RoleError> {
        let here = LocalServer {
            data_directory: self.repository.data_directory(),
            state_directory: self.state.directory(),
            segment: &self.wal_directory().join(name),
        };
        refuse_foreign_prefix(&self.timelines, here, name).await?;
        let timeline = name.get(..8).unwrap_or_default();
        let _turn = match (self.judging.try_lock(), self.judged_for(timeline)) {
            (_, Some(age)) if age < JUDGED => return Ok(()),
            (Err(_), Some(age)) if age < JUDGED * 5 => return Ok(()),
            (Ok(turn), _) => turn,
            (Err(_), _) => self.judging.lock().await,
        };
        if self.judged_for(timeline).is_some_and(|age| age < JUDGED) {
            return Ok(());
        }
        refuse_superseded(&self.timelines, here, name).await?;
        *self.judged() = Some((timeline.to_owned(), Instant::now()));
        Ok(())
    }

    /// How long ago `timeline` was found not to be superseded.
    fn judged_for(&self, timeline: &str) -> Option<Duration> {
        let judged = self.judged();
        judged
            .as_ref()
            .filter(|(of, _)| of == timeline)
            .map(|(_, at)| at.elapsed())
    }

    fn judged(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Aborts the uploads that no process can still be writing; what fails now is found the next time.
    pub(super) async fn sweep(&self) {
        // S3's clock may be behind ours.
        let slack = Duration::from_secs(300);
        let Ok(before) =
            Timestamp::now().checked_sub(longest(&self.repository.program.archive) + slack)
        else {
            return;
        };
        let asked = Instant::now();
        let prefix = self.repository.key("wal_005/");
        let Ok(left) = self.repository.bucket.unfinished_uploads(&prefix).await else {
            return;
        };
        self.distance.answered_in(asked.elapsed());
        for upload in left {
            if upload.initiated < before {
                let _ = self.repository.bucket.abort_upload(&upload).await;
            }
        }
    }

    /// Gives up what a killed program left of `name` in the bucket.
    pub(super) async fn give_up(&self, name: &str) -> UploadOutcome {
        let given_up = self.repository.give_up_uploads(name);
        // Where S3 is away this waits for nothing: the client's own push finds it again.
        let _ = timeout(Duration::from_secs(5), given_up).await;
        UploadOutcome::Refused
    }
}
