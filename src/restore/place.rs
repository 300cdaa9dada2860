//! The directory that a restore for good makes a data directory of: refused unless it is empty, marked until it is whole.
//!
//! All work is done in `xdb-restore` within it, which is the mark, too. A whole cluster is moved up, its `PG_VERSION` last:
//! before that no server starts on it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::geteuid;

use super::RestoreError;
use super::brought::PutBack;
use super::completion::{self, WORK, finish_hint, has_recovered};
use super::marker::Marker;
use super::scratch::{Scratch, make_private, take_lock};
use super::shell::shell;
use crate::log;
use crate::postgres::ControlData;
use crate::process::kill_all_under;

/// PostgreSQL takes no directory without it for a data directory.
const LAST: &str = "PG_VERSION";

/// A directory that was empty, and is until the restore in it is whole; dropped before its cluster recovered, it is as it
/// was.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    pub scratch: Scratch,
    /// It was not there before.
    made: bool,
    /// Of what is recovered here, from the moment that its settings are aside.
    control: Option<ControlData>,
}

/// How a cluster that recovered was left.
#[derive(Debug)]
pub enum Left {
    /// As a data directory.
    Complete(PutBack, ControlData),
    /// Whole, and not all of it moved up or configured yet: `--finish` does that.
    Unfinished(RestoreError),
}

impl Place {
    /// Takes `directory` for a restore, and makes it where it is missing.
    ///
    /// # Errors
    /// As [`judge`], or when it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, RestoreError> {
        judge(directory)?;
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
        let scratch = Scratch::furnish(work, Marker::new(Timestamp::now()), Vec::new(), lock)
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

    /// Notes that the settings are aside: from now on a cluster that has recovered is kept, however the restore ends.
    pub fn note_control(&mut self, control: ControlData) {
        self.control = Some(control);
    }

    /// Where the settings that the backup brought are set aside.
    pub fn aside(&self) -> PathBuf {
        completion::aside(self.scratch.path())
    }

    /// Kills the processes that are left here, which may take seconds: on a thread of its own, unlike [`Self::complete`].
    pub async fn end_processes(&self) {
        let work = self.scratch.path().to_owned();
        // Where it does not end, `complete` or the removal does it again.
        let _ = tokio::task::spawn_blocking(move || kill_all_under(&work)).await;
    }

    /// Kills the processes that are left here and makes a data directory of a cluster that has recovered. `None` where no
    /// cluster has recovered, or where this was called before.
    pub fn complete(&mut self) -> Option<Left> {
        let control = self.control.take()?;
        // The server may not have said so yet.
        if !self.scratch.has_opened() && !has_recovered(&self.directory) {
            return None;
        }
        // Whatever fails from here on, a recovery of hours is not removed for it.
        self.scratch.leave();
        self.made = false;
        // A prefetch of the WAL-G program's may still be at work, too.
        kill_all_under(self.scratch.path());
        Some(match completion::complete(&self.directory, &control) {
            Ok(back) => Left::Complete(back, control),
            Err(error) => Left::Unfinished(error),
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.complete();
        let directory = self.directory.display();
        match left {
            Some(Left::Complete(..)) => tracing::warn!(
                "the restore was interrupted after the recovery: the cluster is kept in {directory}, complete and stopped; run sync before you count on it"
            ),
            Some(Left::Unfinished(error)) => tracing::warn!(
                "the restore was interrupted after the recovery, and what recovered is kept in {directory}: {}; {}",
                log::chain(&error),
                finish_hint(&self.directory).replace('\n', "; ")
            ),
            None => {}
        }
        // Its error has been told where `remove` was called; here only the interrupted restore is left.
        self.scratch.forget();
        if self.made {
            // Only an empty one goes: a whole cluster stays.
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// Whether a cluster may be restored to `directory`; nothing is touched.
///
/// # Errors
/// [`RestoreError::Refused`]: it is not empty, another's, part of a data directory, or holds a restore that did not end.
pub fn judge(directory: &Path) -> Result<(), RestoreError> {
    let refused = |reason: String, hint: String| Err(RestoreError::Refused { reason, hint });
    let shown = directory.display();
    let around = |from: &Path| -> Vec<PathBuf> { from.ancestors().map(Path::to_owned).collect() };
    let resolved = nearest(directory).canonicalize();
    let resolved = resolved.map_err(|source| unreadable(directory, source))?;
    for above in around(&resolved) {
        if let Some(pid) = live_postmaster(&above) {
            let hint = "stop that server first, or name another directory".to_owned();
            return refused(
                format!("a server runs in {} (process {pid})", above.display()),
                hint,
            );
        }
        if above.join(LAST).exists() && (above != resolved || !directory.exists()) {
            return refused(
                format!("{shown} lies in the data directory {}", above.display()),
                "name a directory of its own".to_owned(),
            );
        }
    }
    let metadata = match fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|source| unreadable(directory, source))?,
    };
    if !metadata.is_dir() {
        return refused(
            format!("{shown} is no directory"),
            "name an empty one, or one that is not there yet".to_owned(),
        );
    }
    judge_owner(directory)?;
    let work = directory.join(WORK);
    if work.exists() {
        // Held, another restore is at work there.
        take_lock(&work)?;
        if has_recovered(directory) {
            return refused(
                format!(
                    "{shown} holds a cluster that has recovered: only the last steps of its restore are missing"
                ),
                format!(
                    "complete it: xdb restore --target-dir {} --finish",
                    shell(directory)
                ),
            );
        }
        let work = shell(&work);
        return refused(
            format!("{shown} holds a restore of xdb's that did not end"),
            format!(
                "its recovery did not end, and cannot be continued: remove it with `chmod -R u+w {work} && rm -r {work}`, then restore again"
            ),
        );
    }
    let mut entries = fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
    if entries.next().is_some() {
        return refused(
            format!("{shown} is not empty"),
            format!(
                "move what it holds aside first: mv -T {0} {0}.old",
                shell(directory)
            ),
        );
    }
    Ok(())
}

/// Whether `directory` is this user's.
///
/// # Errors
/// [`RestoreError::Refused`] where it is another's.
pub fn judge_owner(directory: &Path) -> Result<(), RestoreError> {
    let metadata = fs::metadata(directory).map_err(|source| unreadable(directory, source))?;
    if metadata.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: format!("{} belongs to another user", directory.display()),
        hint: format!(
            "PostgreSQL would refuse it, too: chown postgres {}",
            shell(directory)
        ),
    })
}

/// `directory` itself, or what there is of its path.
pub fn nearest(directory: &Path) -> &Path {
    let exists = |path: &&Path| path.exists();
    let found = directory.ancestors().find(exists);
    found
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

fn unreadable(path: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::File {
        operation: "look at",
        path: path.to_owned(),
        source,
    }
}

/// The process that `postmaster.pid` names, where it is the server of `data`. A crash leaves the file, and after a reboot
/// another process may have its number.
pub fn live_postmaster(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd == data,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        // It cannot be read. A server runs as the user that owns its data directory.
        Err(_) => match (owner(&format!("/proc/{pid}")), owner(data)) {
            (Some(process), Some(directory)) => process == directory,
            _ => true,
        },
    }
    .then_some(pid)
}

fn owner(path: impl AsRef<Path>) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::restore::fixtures::control;

    fn refusal(directory: &Path) -> String {
        judge(directory).unwrap_err().to_string()
    }

    #[test]
    fn only_an_empty_directory_of_ones_own_is_taken() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        fs::create_dir_all(at("empty")).unwrap();
        judge(&at("empty")).unwrap();
        judge(&at("not/there/yet")).unwrap();
        fs::create_dir_all(at("full/sub")).unwrap();
        assert!(refusal(&at("full")).contains("is not empty"));
        fs::write(at("file"), "").unwrap();
        assert!(refusal(&at("file")).contains("is no directory"));
        assert!(
            refusal(Path::new("/etc")).contains("belongs to another user") || geteuid().is_root()
        );
        fs::write(at("full/PG_VERSION"), "17\n").unwrap();
        assert!(refusal(&at("full/new")).contains("lies in the data directory"));
        assert!(refusal(&at("full/sub")).contains("lies in the data directory"));
        assert!(refusal(&at("full")).contains("is not empty"));
    }

    #[test]
    fn the_directory_of_a_server_that_runs_is_refused_and_of_one_that_crashed_is_not_empty() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().canonicalize().unwrap().join("data");
        fs::create_dir(&data).unwrap();
        let mut server = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(&data)
            .spawn()
            .unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
        for directory in [data.clone(), data.join("new")] {
            let said = refusal(&directory);
            assert!(said.contains("a server runs in"), "{said}");
        }
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(refusal(&data).contains("is not empty"));
        // A process of another user, which has the number since a reboot.
        fs::write(data.join("postmaster.pid"), "1\n").unwrap();
        assert!(refusal(&data).contains("is not empty"));
    }

    #[test]
    fn a_restore_that_is_given_up_leaves_what_was_there_before() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let place = Place::open(&new).unwrap();
        assert!(place.scratch.data().is_dir());
        assert!(matches!(judge(&new), Err(RestoreError::Busy { .. })));
        drop(place);
        assert!(!new.exists());
        fs::create_dir(&new).unwrap();
        drop(Place::open(&new).unwrap());
        assert!(fs::read_dir(&new).unwrap().next().is_none());
    }

    #[test]
    fn a_restore_that_was_killed_is_told_from_other_content() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let work = new.join(WORK);
        // As after kill -9: nothing is dropped, and the lock is free.
        fs::create_dir_all(work.join("data/global")).unwrap();
        let error = judge(&new).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        let hint = error.hint().unwrap();
        let work_shown = work.display();
        assert!(hint.contains(&format!("&& rm -r {work_shown}`")), "{hint}");
        // The same after its recovery.
        fs::create_dir(work.join("brought")).unwrap();
        fs::write(work.join("data/global/pg_control"), "").unwrap();
        let error = judge(&new).unwrap_err();
        assert!(error.to_string().contains("has recovered"), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.ends_with("--finish") && !hint.contains("rm "),
            "{hint}"
        );
    }

    /// A place whose cluster has recovered.
    fn recovered(directory: &Path) -> Place {
        let mut place = Place::open(directory).unwrap();
        let data = place.scratch.data();
        fs::create_dir(data.join("base")).unwrap();
        fs::create_dir(data.join("global")).unwrap();
        fs::create_dir(data.join("pg_tblspc")).unwrap();
        fs::write(data.join("global/pg_control"), "").unwrap();
        fs::write(data.join(LAST), "17\n").unwrap();
        fs::create_dir(place.aside()).unwrap();
        place.note_control(control());
        place.scratch.opened().store(true, Ordering::Relaxed);
        place
    }

    #[test]
    fn a_whole_cluster_is_moved_up_and_the_mark_goes() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let mut place = recovered(&new);
        assert!(matches!(place.complete(), Some(Left::Complete(..))));
        assert!(place.complete().is_none());
        drop(place);
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
            let mut place = recovered(&new);
            fs::create_dir_all(new.join(stop)).unwrap();
            let left = place.complete();
            assert!(
                matches!(left, Some(Left::Unfinished(_))),
                "{stop}: {left:?}"
            );
            drop(place);
            assert!(has_recovered(&new), "{stop}");
            let here = |name: &str| new.join("xdb-restore/data").join(name).exists();
            assert!(here(LAST) && here("base"), "{stop}");
            assert!(
                judge(&new)
                    .unwrap_err()
                    .hint()
                    .unwrap()
                    .ends_with("--finish")
            );
        }
        // The marker, which says that it is kept, cannot be written either.
        let new = parent.path().join("full");
        let place = recovered(&new);
        fs::create_dir_all(new.join("base/x")).unwrap();
        fs::create_dir(new.join("xdb-restore/xdb-restore-test.json.new")).unwrap();
        drop(place);
        assert!(has_recovered(&new));
    }
}
