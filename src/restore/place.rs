//! The directory that a restore for good makes a data directory of: refused unless it is empty, marked until it is whole.
//!
//! All work is done in `xdb-restore` within it, which is the mark, too. A whole cluster is moved up, its `PG_VERSION` last:
//! before that no server starts on it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::geteuid;

use super::RestoreError;
use super::brought::{self, PutBack};
use super::marker::Marker;
use super::scratch::{Scratch, make_private, take_lock};
use super::tablespaces;
use crate::postgres::ControlData;
use crate::process::kill_all_under;

/// Where the work is done; it stays after `kill -9`.
const WORK: &str = "xdb-restore";
/// PostgreSQL takes no directory without it for a data directory.
const LAST: &str = "PG_VERSION";

/// A directory that was empty, and is until the restore in it is whole; dropped before, it is as it was.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    pub scratch: Scratch,
    /// It was not there before.
    made: bool,
    /// What the cluster needs to be kept, from the moment that its settings are aside.
    brought: Option<Brought>,
}

/// The settings that a backup brought, and what they are put back with.
#[derive(Debug)]
pub struct Brought {
    pub aside: PathBuf,
    pub control: ControlData,
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
            brought: None,
        })
    }

    /// Notes the settings that are aside: from now on a cluster that has recovered is kept, however the restore ends.
    pub fn note_brought(&mut self, brought: Brought) {
        self.brought = Some(brought);
    }

    /// Puts back what was set aside, once the server is stopped.
    ///
    /// # Errors
    /// As [`brought::put_back`].
    pub fn put_back(&mut self) -> Result<PutBack, RestoreError> {
        match self.brought.take() {
            Some(Brought { aside, control }) => {
                brought::put_back(&self.scratch.data(), &aside, &control)
            }
            None => Ok(PutBack::default()),
        }
    }

    /// Keeps a cluster that has recovered, of a restore that did not end as it should; `None` where there is none.
    pub fn keep(&mut self) -> Option<PutBack> {
        if !self.scratch.has_opened() || self.brought.is_none() {
            return None;
        }
        kill_all_under(self.scratch.path());
        // Closed while WAL was replayed, its directory could not be moved.
        let opened = tablespaces::allow_links(&self.scratch.data(), true);
        let kept = opened.and_then(|()| self.put_back()).and_then(|back| {
            raise(&self.scratch.data(), &self.directory, &mut Vec::new())
                .map_err(|source| RestoreError::File {
                    operation: "move the cluster to",
                    path: self.directory.clone(),
                    source,
                })
                .map(|()| back)
        });
        self.made = false;
        match kept {
            Ok(back) => Some(back),
            Err(error) => {
                // It is whole all the same, where it was recovered.
                let data = self.scratch.data();
                tracing::warn!("{error}; the recovered cluster is in {}", data.display());
                let _ = self.scratch.keep();
                Some(PutBack::default())
            }
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves the cluster up, takes the mark away, and waits until the disk has it all.
    ///
    /// # Errors
    /// When a file cannot be moved: nothing of it stays then.
    pub fn finish(self) -> Result<(), RestoreError> {
        let failed = |operation, source| RestoreError::File {
            operation,
            path: self.directory.clone(),
            source,
        };
        // A prefetch of the WAL-G program's may still be at work there.
        kill_all_under(self.scratch.path());
        let mut moved = Vec::new();
        let raised = raise(&self.scratch.data(), &self.directory, &mut moved);
        if let Err(source) = raised {
            for name in moved {
                // The first error is the one that is told.
                let _ = remove(&self.directory.join(name));
            }
            return Err(failed("move the cluster to", source));
        }
        if let Err(error) = self.scratch.remove() {
            // The cluster is whole; for that it is not taken back.
            let work = self.scratch.path().display();
            tracing::warn!("{error}; remove {work} by hand");
        }
        let directory = File::open(&self.directory);
        let synced = directory.and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        synced.map_err(|source| failed("sync", source))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep().is_some() {
            let directory = self.directory.display();
            tracing::warn!(
                "the restore was interrupted after the recovery: the cluster is kept in {directory}, complete and stopped"
            );
        }
        // Its error has been told where `remove` was called; here only the interrupted restore is left.
        self.scratch.forget();
        if self.made {
            // Only an empty one goes: a whole cluster stays.
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

fn raise(from: &Path, to: &Path, moved: &mut Vec<OsString>) -> std::io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        names.push(entry?.file_name());
    }
    names.sort_by_key(|name| name == LAST);
    for name in names {
        fs::rename(from.join(&name), to.join(&name))?;
        moved.push(name);
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
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
    if metadata.uid() != geteuid().as_raw() {
        return refused(
            format!("{shown} belongs to another user"),
            format!("PostgreSQL would refuse it, too: chown postgres {shown}"),
        );
    }
    let work = directory.join(WORK);
    if work.exists() {
        // Held, another restore is at work there.
        take_lock(&work)?;
        return refused(
            format!("{shown} holds a restore of xdb's that did not end"),
            format!(
                "nothing in it is of use: empty it with `chmod -R u+w {shown} && find {shown} -mindepth 1 -delete`, then restore again"
            ),
        );
    }
    let mut entries = fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
    if entries.next().is_some() {
        return refused(
            format!("{shown} is not empty"),
            format!("move what it holds aside first: mv {shown} {shown}.old"),
        );
    }
    Ok(())
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

/// The process that `postmaster.pid` names, where it is at work in `data`: a crash leaves the file, and another process may
/// have its number by now.
fn live_postmaster(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd == data,
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
    .then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // As after kill -9: nothing is dropped, and the lock is free.
        fs::create_dir_all(new.join(WORK).join("data")).unwrap();
        let error = judge(&new).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(error.hint().unwrap().contains("-mindepth 1 -delete"));
    }

    #[test]
    fn a_whole_cluster_is_moved_up_and_the_mark_goes() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let place = Place::open(&new).unwrap();
        fs::create_dir(place.scratch.data().join("base")).unwrap();
        fs::write(place.scratch.data().join(LAST), "17\n").unwrap();
        place.finish().unwrap();
        let names = fs::read_dir(&new).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["PG_VERSION", "base"]);
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, 0o700);
    }
}
