//! The last steps of a restore for good: they put the backup's settings back and move the recovered cluster up.
//!
//! A step that fails removes nothing of the cluster. Each step can be repeated, so that `xdb restore --finish` completes a
//! restore that a full disk or a `kill -9` stopped.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::backup_settings::{RestoredSettings, held_settings, put_back_settings};
use super::layout::{DATA, LAST, WORK, aside_directory, has_recovered};
use super::shell::shell;
use super::target_directory::{check_owner, live_postmaster};
use crate::postgres::ControlData;
use crate::process::MarkedLock;
use crate::restore::RestoreError;
use crate::restore::scratch::{Marker, allow_tablespace_links, remove_work_directory, take_lock};

/// Makes a data directory of `directory`, whose recovered cluster no server runs on.
///
/// # Errors
/// When a file cannot be written or moved: all of the cluster is there still, and this can be called again.
pub(crate) fn complete_restore(
    directory: &Path,
    control: &ControlData,
) -> Result<RestoredSettings, RestoreError> {
    let work = directory.join(WORK);
    let (data, aside) = (work.join(DATA), aside_directory(&work));
    let back = if directory.join(LAST).exists() {
        // All of it moved up before.
        held_settings(&aside)?
    } else {
        // Closed while WAL was replayed, its directory could not be moved.
        allow_tablespace_links(&data, true)?;
        let back = put_back_settings(&data, &aside, control)?;
        move_up(&data, directory).map_err(|source| RestoreError::File {
            operation: "move the cluster to",
            path: directory.to_owned(),
            source,
        })?;
        back
    };
    if let Err(source) = remove_work_directory(&work) {
        // The cluster is complete: only logs and copies of its settings are left here.
        let error = RestoreError::File {
            operation: "remove",
            path: work.clone(),
            source,
        };
        let (error, work) = (crate::log::chain(&error), shell(&work));
        tracing::warn!("{error}; it holds nothing of the cluster: rm -r {work}");
    }
    Ok(back)
}

fn move_up(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        names.push(entry?.file_name());
    }
    names.sort_by_key(|name| name == LAST);
    for name in names {
        fs::rename(from.join(&name), to.join(&name))?;
    }
    Ok(())
}

/// What to do about a cluster in `directory` that could not be completed.
pub(crate) fn finish_hint(directory: &Path) -> String {
    format!(
        "mend that first, then complete the restore: xdb restore --target-dir {} --finish\nnothing has to be fetched or replayed again; remove nothing in the directory until then",
        shell(directory)
    )
}

/// A restore that was stopped after its recovery, taken to be completed.
#[derive(Debug)]
pub(crate) struct StoppedRestore {
    pub directory: PathBuf,
    /// What the restore noted; `None` where that cannot be read.
    pub marker: Option<Marker>,
    /// Held until the end.
    _lock: MarkedLock,
}

impl StoppedRestore {
    /// Takes the restore in `directory`.
    ///
    /// # Errors
    /// When no restore was stopped there, its cluster has not recovered, or another process works on it.
    pub(crate) fn open(directory: &Path) -> Result<Self, RestoreError> {
        let refused = |reason: String, hint: &str| {
            Err(RestoreError::Refused {
                reason,
                hint: hint.to_owned(),
            })
        };
        let shown = directory.display();
        let nothing = "without --finish, `xdb restore` says what is in the directory";
        let directory = match directory.canonicalize() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return refused(format!("{shown} does not exist"), nothing);
            }
            resolved => resolved.map_err(|source| RestoreError::File {
                operation: "resolve",
                path: directory.to_owned(),
                source,
            })?,
        };
        check_owner(&directory)?;
        let work = directory.join(WORK);
        let is_here = |name: &str| directory.join(name).exists();
        if !work.is_dir() && is_here("global/pg_control") && !is_here("recovery.signal") {
            return refused(
                format!("the cluster in {shown} is complete: nothing is left to finish"),
                "go on as runbooks/disaster_restore.md says; what is held back stands in its postgresql.auto.conf",
            );
        }
        if !work.is_dir() {
            return refused(
                format!("{shown} holds no restore of xdb's that was stopped"),
                nothing,
            );
        }
        let lock = take_lock(&work)?;
        if !has_recovered(&directory) {
            return refused(
                format!("the restore in {shown} was stopped before the end of its recovery"),
                nothing,
            );
        }
        if let Some(pid) = live_postmaster(&work.join(DATA)) {
            let data = work.join(DATA);
            return refused(
                format!("a server runs in {} (process {pid})", data.display()),
                "stop that server first",
            );
        }
        Ok(Self {
            marker: Marker::of(&work),
            directory,
            _lock: lock,
        })
    }

    /// Where its control file is now.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.directory.join(WORK).join(DATA);
        match data.join("global/pg_control").exists() {
            true => data,
            false => self.directory.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::Timeline;
    use crate::restore::cluster::fixtures::control;

    /// As a restore leaves it that was killed after its recovery.
    fn recovered() -> tempfile::TempDir {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(WORK).join(name);
        for name in ["data/base", "data/global", "data/pg_tblspc", "brought"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for (name, content) in [
            ("data/PG_VERSION", "17\n"),
            ("data/base/1", "rows"),
            ("data/global/pg_control", ""),
            ("data/postgresql.conf", "xdb's own"),
            ("brought/postgresql.conf", "theirs"),
            ("brought/postgresql.auto.conf", "work_mem = '1MB'\n"),
        ] {
            fs::write(at(name), content).unwrap();
        }
        parent
    }

    fn assert_complete(directory: &Path) {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "PG_VERSION",
                "base",
                "global",
                "pg_hba.conf",
                "pg_tblspc",
                "postgresql.auto.conf",
                "postgresql.auto.conf.brought",
                "postgresql.conf",
            ]
        );
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("base/1"), "rows");
        assert_eq!(read("postgresql.conf"), "theirs");
        assert!(
            read("postgresql.auto.conf").starts_with("work_mem = '1MB'\narchive_mode = 'off'\n")
        );
    }

    #[test]
    fn what_a_restore_left_after_its_recovery_is_completed() {
        let parent = recovered();
        let directory = parent.path().canonicalize().unwrap();
        let unfinished = StoppedRestore::open(&directory).unwrap();
        assert!(matches!(
            StoppedRestore::open(&directory),
            Err(RestoreError::Busy { .. })
        ));
        assert_eq!(unfinished.data(), directory.join("xdb-restore/data"));
        let back = complete_restore(&directory, &control()).unwrap();
        assert_eq!(back.made, ["pg_hba.conf"]);
        assert_complete(&directory);
        let refused = StoppedRestore::open(&directory).unwrap_err().to_string();
        assert!(refused.contains("nothing is left to finish"), "{refused}");
    }

    /// At each step: the settings cannot be written, a file cannot be moved, some have moved.
    #[test]
    fn whatever_fails_on_the_way_leaves_all_of_the_cluster_and_is_done_again() {
        for stop in ["data/postgresql.auto.conf.new", "../base", "../global"] {
            let parent = recovered();
            let directory = parent.path().canonicalize().unwrap();
            // In its place no file can be made, and no directory moved to.
            let obstacle = directory.join(WORK).join(stop);
            fs::create_dir_all(obstacle.join("in the way")).unwrap();
            complete_restore(&directory, &control()).unwrap_err();
            assert!(
                !directory.join(LAST).exists(),
                "{stop}: a server would start"
            );
            assert!(has_recovered(&directory), "{stop}");
            fs::remove_dir_all(&obstacle).unwrap();
            complete_restore(&directory, &control()).unwrap();
            assert_complete(&directory);
        }
        // Read-only, and moved half-way.
        let parent = recovered();
        let directory = parent.path().canonicalize().unwrap();
        fs::rename(
            directory.join("xdb-restore/data/global"),
            directory.join("global"),
        )
        .unwrap();
        let unfinished = StoppedRestore::open(&directory).unwrap();
        assert_eq!(unfinished.data(), directory);
        if !rustix::process::geteuid().is_root() {
            let mode = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode));
            mode(0o500).unwrap();
            complete_restore(&directory, &control()).unwrap_err();
            mode(0o700).unwrap();
        }
        complete_restore(&directory, &control()).unwrap();
        assert_complete(&directory);
    }

    #[test]
    fn a_recovery_ends_with_the_checkpoint_on_its_new_timeline() {
        for (on, has_ended) in [(1_u32, false), (2, true)] {
            let parent = recovered();
            let work = parent.path().join(WORK);
            let mut marker = Marker::new(jiff::Timestamp::UNIX_EPOCH);
            marker.timeline = Some(Timeline(1));
            marker.write(&work).unwrap();
            // Its version at 8, and the timeline of its checkpoint at 48.
            let mut control = vec![0; 8192];
            control[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
            control[48..52].copy_from_slice(&on.to_ne_bytes());
            fs::write(work.join("data/global/pg_control"), control).unwrap();
            assert_eq!(has_recovered(parent.path()), has_ended, "{on}");
            let opened = StoppedRestore::open(&parent.path().canonicalize().unwrap());
            assert_eq!(opened.is_ok(), has_ended, "{on}: {opened:?}");
        }
    }

    #[test]
    fn only_a_recovery_that_ended_can_be_completed() {
        for stop in ["data/recovery.signal", "data/backup_label"] {
            let parent = recovered();
            fs::write(parent.path().join(WORK).join(stop), "").unwrap();
            let refused = StoppedRestore::open(parent.path()).unwrap_err().to_string();
            assert!(
                refused.contains("before the end of its recovery"),
                "{refused}"
            );
        }
        let parent = recovered();
        fs::remove_dir_all(parent.path().join("xdb-restore/brought")).unwrap();
        assert!(!has_recovered(parent.path()));
        StoppedRestore::open(Path::new("/not/there")).unwrap_err();
    }
}
