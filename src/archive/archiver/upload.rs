//! One file on its way into the bucket. Stored is what the bucket lists, never what a program says.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::program::Place;
use crate::archive::wal_client::stored_as;
use crate::archive::wal_role::{Here, in_recovery, refuse_superseded};
use crate::archive::{ArchiveError, Repository, wal_header, wal_push};
use crate::config::Config;
use crate::log;
use crate::model::ArchiveFile;
use crate::storage::Bucket;

/// How long the last look at what supersedes this server counts.
const JUDGED: Duration = Duration::from_secs(2);

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
pub(super) enum Ended {
    /// The bucket lists it, with the content that the file has.
    Stored(Identity),
    /// Nothing works at it any more; the client may.
    Refused,
    /// The program's daemon of this generation may still work at it: it must be killed first.
    Broken(u64),
}

/// What every upload uses.
pub(super) struct Means {
    pub(super) config: Config,
    pub(super) repository: Repository,
    pub(super) bucket: Bucket,
    pub(super) place: Place,
    /// The timeline, as a segment's name begins, that was found not to be superseded, and when.
    pub(super) judged: Mutex<Option<(String, Instant)>>,
}

impl Means {
    pub(super) fn wal_directory(&self) -> PathBuf {
        self.config.postgres.data_directory.join("pg_wal")
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
        in_recovery(&self.config.postgres.data_directory)
    }

    /// Which run of the server has the data directory: its process, and when it was started.
    pub(super) fn server(&self) -> Option<String> {
        let file = self.config.postgres.data_directory.join("postmaster.pid");
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.lines().take(3).collect::<Vec<_>>().join(" "))
    }

    /// Stores `name` by the program's daemon and asks the bucket for it.
    pub(super) async fn upload(&self, name: &str, generation: u64) -> Ended {
        // What is left of the time is for the client, and for killing.
        let deadline = self.config.archive.push_timeout / 10 * 6;
        let begun = Instant::now();
        let Some(before) = self.identity(name) else {
            return Ended::Refused;
        };
        if let Err(error) = self.refuse_superseded(name).await {
            tracing::warn!("{}", log::chain(&error));
            return Ended::Refused;
        }
        if let Err(error) = self.place.stage(&self.wal_directory().join(name), name) {
            tracing::warn!("{name} cannot be handed to the program's daemon: {error}");
            return Ended::Refused;
        }
        let pushed = timeout(
            deadline.saturating_sub(begun.elapsed()),
            self.place.push(name, generation),
        )
        .await;
        self.place.unstage(name);
        match pushed {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ended::Refused,
            Ok(Err(error)) => {
                tracing::warn!("the program's daemon failed at {name}: {error}");
                return Ended::Broken(generation);
            }
            Err(_) => {
                tracing::warn!("the program's daemon was not done with {name} in time");
                return Ended::Broken(generation);
            }
        }
        let looked = timeout(deadline.saturating_sub(begun.elapsed()), self.stored(name)).await;
        match looked {
            Ok(Ok(true)) if self.identity(name) == Some(before) => Ended::Stored(before),
            Ok(Ok(false)) => {
                tracing::warn!("the program's daemon ended well, but {name} is not in the bucket");
                Ended::Refused
            }
            _ => Ended::Refused,
        }
    }

    async fn stored(&self, name: &str) -> Result<bool, ArchiveError> {
        Ok(stored_as(&self.bucket, &self.repository, name).await?.len() == 1)
    }

    /// The first of many looks for all of them; the others wait for it.
    async fn refuse_superseded(&self, name: &str) -> Result<(), ArchiveError> {
        let timeline = name.get(..8).unwrap_or_default();
        let mut judged = self.judged.lock().await;
        let known = judged
            .as_ref()
            .is_some_and(|(of, at)| of == timeline && at.elapsed() < JUDGED);
        if known {
            return Ok(());
        }
        let here = Here {
            data_directory: &self.config.postgres.data_directory,
            state_directory: &self.config.node.state_directory,
            segment: &self.wal_directory().join(name),
        };
        refuse_superseded(&self.bucket, &self.repository, here, name).await?;
        *judged = Some((timeline.to_owned(), Instant::now()));
        Ok(())
    }

    /// Gives up the uploads that nobody can still be at; what fails now is found the next time.
    pub(super) async fn sweep(&self) {
        // S3's clock may be behind ours.
        let slack = Duration::from_secs(300);
        let Ok(before) = Timestamp::now().checked_sub(self.config.archive.push_timeout * 2 + slack)
        else {
            return;
        };
        let left = self
            .bucket
            .unfinished_uploads(&self.repository.key("wal_005/"))
            .await;
        for upload in left.unwrap_or_default() {
            if upload.initiated < before {
                let _ = self.bucket.abort_upload(&upload).await;
            }
        }
    }

    /// Gives up what a killed program left of `name` in the bucket.
    pub(super) async fn give_up(&self, name: &str) -> Ended {
        let given_up = wal_push::give_up_unfinished(&self.bucket, &self.repository, name);
        // Where S3 is away this waits for nothing: the client's own push finds it again.
        let _ = timeout(Duration::from_secs(5), given_up).await;
        Ended::Refused
    }
}
