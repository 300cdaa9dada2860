//! The directory that a restore for good works in, and how it is left: as a data directory, or as it was.
//!
//! All work is done in `xdb-restore` within it, which marks a restore that has not ended. A complete cluster is moved up,
//! its `PG_VERSION` last: before that no server starts on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::backup_settings::RestoredSettings;
use super::completion::{complete_restore, finish_hint};
use super::layout::{WORK, aside_directory, has_recovered};
use super::target_directory::check_target_directory;
use crate::log;
use crate::postgres::ControlData;
use crate::process::kill_all_under;
use crate::restore::RestoreError;
use crate::restore::scratch::{Marker, Scratch, make_private, take_lock};

/// A directory that a restore works in. Dropped before its cluster has recovered, it is left as it was.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    directory: PathBuf,
    pub scratch: Scratch,
    /// This restore made the directory.
    made: bool,
    /// Of the cluster that is recovered here, once its settings are set aside.
    control: Option<ControlData>,
}

/// How a cluster that recovered was left.
#[derive(Debug)]
pub(crate) enum Completion {
    /// As a data directory.
    Complete(RestoredSettings, ControlData),
    /// Recovered, and not yet moved up or configured: `--finish` does that.
    Unfinished(RestoreError),
}

impl WorkDirectory {
    /// Takes `directory` for a restore, and makes it where it is missing.
    ///
    /// # Errors
    /// As [`check_target_directory`], or when it cannot be made.
    pub(crate) fn open(directory: &Path) -> Result<Self, RestoreError> {
        check_target_directory(directory)?;
        let made = !directory.exists();
        make_private(directory)?;
        let failed = |operation, source| RestoreError::File {
            operation,
            path: directory.to_owned(),
            source,
        };
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory, private).map_err(|source| failed("make private", source))?;
        let directory = directory.canonicalize();
        let directory = directory.map_err(|source| failed("resolve", source))?;
        let work = directory.join(WORK);
        make_private(&work)?;
        let lock = take_lock(&work)?;
        let scratch = Scratch::prepare(work, Marker::new(Timestamp::now()), Vec::new(), lock)
            .inspect_err(|_| {
                if made {
                    let _ = fs::remove_dir(&directory);
                }
            })?;
        Ok(Self {
            directory,
            scratch,
            made,
            control: None,
        })
    }

    /// Notes that the settings are set aside. From now on a cluster that has recovered is kept, however the restore ends.
    pub(crate) fn note_control(&mut self, control: ControlData) {
        self.control = Some(control);
    }

    /// Where the settings that the backup brought are set aside.
    pub(crate) fn aside(&self) -> PathBuf {
        aside_directory(self.scratch.path())
    }

    /// Kills the processes that are left here, which may take seconds: on a thread of its own, unlike [`Self::complete`].
    pub(crate) async fn end_processes(&self) {
        let work = self.scratch.path().to_owned();
        // Where it does not end, `complete` or the removal does it again.
        let _ = tokio::task::spawn_blocking(move || kill_all_under(&work)).await;
    }

    /// Kills the processes that are left here and makes a data directory of a cluster that has recovered. `None` where no
    /// cluster has recovered, or where this was called before.
    pub(crate) fn complete(&mut self) -> Option<Completion> {
        let control = self.control.take()?;
        // The server may not have reported it yet.
        if !self.scratch.has_opened() && !has_recovered(&self.directory) {
            return None;
        }
        // No failure from here on removes a recovery of hours.
        self.scratch.keep_on_drop();
        self.made = false;
        // A prefetch of the WAL-G program may still be running.
        kill_all_under(self.scratch.path());
        Some(match complete_restore(&self.directory, &control) {
            Ok(back) => Completion::Complete(back, control),
            Err(error) => Completion::Unfinished(error),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let left = self.complete();
        let directory = self.directory.display();
        match left {
            Some(Completion::Complete(..)) => tracing::warn!(
                "the restore was interrupted after the recovery: the cluster is kept in {directory}, complete and stopped; run sync before you count on it, then go on as runbooks/disaster_restore.md says"
            ),
            Some(Completion::Unfinished(error)) => tracing::warn!(
                "the restore was interrupted after the recovery, and what recovered is kept in {directory}: {}; {}",
                log::chain(&error),
                finish_hint(&self.directory).replace('\n', "; ")
            ),
            None => {}
        }
        // Where `remove` was called before, its error has been reported.
        self.scratch.remove_unless_kept();
        if self.made {
            // This removes only an empty directory.
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::restore::cluster::fixtures::control;
    use crate::restore::cluster::layout::LAST;

    #[test]
    fn a_restore_that_is_given_up_leaves_what_was_there_before() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let work = WorkDirectory::open(&new).unwrap();
        assert!(work.scratch.data().is_dir());
        assert!(matches!(
            check_target_directory(&new),
            Err(RestoreError::Busy { .. })
        ));
        drop(work);
        assert!(!new.exists());
        fs::create_dir(&new).unwrap();
        drop(WorkDirectory::open(&new).unwrap());
        assert!(fs::read_dir(&new).unwrap().next().is_none());
    }

    /// A place whose cluster has recovered.
    fn recovered(directory: &Path) -> WorkDirectory {
        let mut work = WorkDirectory::open(directory).unwrap();
        let data = work.scratch.data();
        fs::create_dir(data.join("base")).unwrap();
        fs::create_dir(data.join("global")).unwrap();
        fs::create_dir(data.join("pg_tblspc")).unwrap();
        fs::write(data.join("global/pg_control"), "").unwrap();
        fs::write(data.join(LAST), "17\n").unwrap();
        fs::create_dir(work.aside()).unwrap();
        work.note_control(control());
        work.scratch.opened().store(true, Ordering::Relaxed);
        work
    }

    #[test]
    fn a_whole_cluster_is_moved_up_and_the_mark_goes() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let mut work = recovered(&new);
        assert!(matches!(work.complete(), Some(Completion::Complete(..))));
        assert!(work.complete().is_none());
        drop(work);
        assert!(new.join(LAST).exists() && new.join("base").exists());
        assert!(!new.join(WORK).exists());
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_has_recovered_outlives_an_interruption_and_every_fault_after_it() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        drop(recovered(&new));
        assert!(new.join(LAST).exists(), "an interruption");

        for stop in ["xdb-restore/data/postgresql.conf.new/x", "base/x"] {
            let new = parent.path().join(stop.replace('/', "-"));
            let mut work = recovered(&new);
            fs::create_dir_all(new.join(stop)).unwrap();
            let left = work.complete();
            assert!(
                matches!(left, Some(Completion::Unfinished(_))),
                "{stop}: {left:?}"
            );
            drop(work);
            assert!(has_recovered(&new), "{stop}");
            let here = |name: &str| new.join("xdb-restore/data").join(name).exists();
            assert!(here(LAST) && here("base"), "{stop}");
            assert!(
                check_target_directory(&new)
                    .unwrap_err()
                    .hint()
                    .unwrap()
                    .ends_with("--finish")
            );
        }
        // The marker, which says that it is kept, cannot be written either.
        let new = parent.path().join("full");
        let work = recovered(&new);
        fs::create_dir_all(new.join("base/x")).unwrap();
        fs::create_dir(new.join("xdb-restore/xdb-restore-test.json.new")).unwrap();
        drop(work);
        assert!(has_recovered(&new));
    }
}
