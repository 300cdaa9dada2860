//! The directory that a restore test works in, and its end, however the test ends.

use std::fs::{self, DirBuilder, DirEntry};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use rustix::process::geteuid;

use super::marker::{MARKER_FILE, Marker};
use super::tablespaces::allow_tablespace_links;
use crate::process::{MarkedLock, kill_all_under};
use crate::restore::RestoreError;

const PREFIX: &str = "run-";
const DATA: &str = "data";
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// `sun_path` of a Unix socket, with its final zero.
const SOCKET_PATH_LIMIT: usize = 108;

/// One restore test's directory below `restore_test.directory`; dropping it ends every process in it and removes it,
/// unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    marker: Marker,
    /// What earlier tests kept here.
    kept: Vec<PathBuf>,
    /// A server in it has ended its recovery and opened.
    opened: Arc<AtomicBool>,
    /// This process must not remove the directory any more.
    is_left: bool,
    /// Held while the test runs; the kernel lets go of it even after `kill -9`.
    _lock: MarkedLock,
}

impl Scratch {
    /// Takes the lock of `directory`, removes what killed tests left there, and makes a new run's directory.
    ///
    /// # Errors
    /// When another test runs, `live` (the live data directory) lies too near, or the directory cannot be used.
    pub(crate) fn open(directory: &Path, live: &Path) -> Result<Self, RestoreError> {
        make_private(directory)?;
        let directory = directory
            .canonicalize()
            .map_err(|source| RestoreError::File {
                operation: "resolve",
                path: directory.to_owned(),
                source,
            })?;
        refuse_overlap(&directory, live)?;
        refuse_writable(&directory)?;
        let lock = take_lock(&directory)?;
        let kept = remove_leftovers(&directory);
        let marker = Marker::new(Timestamp::now());
        let path = make_run(&directory)?;
        Self::prepare(path, marker, kept, lock)
    }

    /// Makes what a restore works in at `path`, for as long as it holds `lock`.
    ///
    /// # Errors
    /// When it cannot be made, or a socket in it could not be reached.
    pub(crate) fn prepare(
        path: PathBuf,
        marker: Marker,
        kept: Vec<PathBuf>,
        lock: MarkedLock,
    ) -> Result<Self, RestoreError> {
        let scratch = Self {
            path,
            marker,
            kept,
            opened: Arc::default(),
            is_left: false,
            _lock: lock,
        };
        // Without its marker nothing of it would ever be removed.
        scratch.mark()?;
        make_private(&scratch.socket_directory())?;
        make_private(&scratch.data())?;
        if scratch
            .socket_directory()
            .join(SOCKET_NAME)
            .as_os_str()
            .len()
            >= SOCKET_PATH_LIMIT
        {
            return Err(RestoreError::Refused {
                reason: format!(
                    "{} is too long a path for a Unix socket",
                    scratch.path.display()
                ),
                hint:
                    "name a shorter path: restore_test.directory, or --target-dir of `xdb restore`"
                        .to_owned(),
            });
        }
        Ok(scratch)
    }

    /// Where the children of this test stand: `kill_all_under` finds them by it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    pub(crate) fn socket_directory(&self) -> PathBuf {
        self.path.join("socket")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("postgresql.log")
    }

    /// Shared with the server that is started here, which may end before this does.
    pub(crate) fn opened(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.opened)
    }

    /// Whether what was restored here has recovered.
    pub(crate) fn has_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// What earlier tests kept in the same place.
    pub(crate) fn kept(&self) -> &[PathBuf] {
        &self.kept
    }

    /// Changes the marker.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn update_marker(
        &mut self,
        change: impl FnOnce(&mut Marker),
    ) -> Result<(), RestoreError> {
        change(&mut self.marker);
        self.mark()
    }

    /// From now on the directory is not removed, whatever follows.
    pub(crate) fn keep_on_drop(&mut self) {
        self.is_left = true;
    }

    /// Ends every process of the test and keeps the directory.
    ///
    /// # Errors
    /// When the marker cannot be written: the directory is then removed as ever.
    pub(crate) fn keep(&mut self) -> Result<(), RestoreError> {
        kill_all_under(&self.path);
        // So that an operator can remove it.
        let _ = allow_tablespace_links(&self.data(), true);
        self.marker.kept = true;
        self.mark().inspect_err(|_| self.marker.kept = false)
    }

    fn mark(&self) -> Result<(), RestoreError> {
        let written = self.marker.write(&self.path);
        written.map_err(|source| RestoreError::File {
            operation: "write",
            path: self.path.join(MARKER_FILE),
            source,
        })
    }

    /// Ends every process of the test and removes its directory.
    ///
    /// # Errors
    /// When something could not be removed; the next test's start tries again.
    pub(crate) fn remove(&self) -> Result<(), RestoreError> {
        if self.path.exists() && Marker::of(&self.path).is_none() {
            let source = std::io::Error::other("it does not carry the marker of a restore test");
            return Err(RestoreError::File {
                operation: "remove",
                path: self.path.clone(),
                source,
            });
        }
        kill_all_under(&self.path);
        remove_work_directory(&self.path).map_err(|source| RestoreError::File {
            operation: "remove",
            path: self.path.clone(),
            source,
        })
    }
}

impl Scratch {
    /// Removes the directory unless it is kept or left.
    pub(crate) fn remove_unless_kept(&self) {
        if !self.marker.kept && !self.is_left {
            // Where `remove` was called before, its error has been reported.
            let _ = self.remove();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove_unless_kept();
    }
}

/// Makes `path` and missing directories above it, with mode 0700.
pub(crate) fn make_private(path: &Path) -> Result<(), RestoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| RestoreError::File {
        operation: "make",
        path: path.to_owned(),
        source,
    })
}

/// A scratch directory inside the live data directory, or around it, is one mistake away from it.
fn refuse_overlap(directory: &Path, live: &Path) -> Result<(), RestoreError> {
    let live = live.canonicalize().unwrap_or_else(|_| live.to_owned());
    if directory.starts_with(&live) || live.starts_with(directory) {
        return Err(RestoreError::Refused {
            reason: format!(
                "{} overlaps the live data directory {}",
                directory.display(),
                live.display()
            ),
            hint: "set restore_test.directory to a place of its own".to_owned(),
        });
    }
    Ok(())
}

/// Takes the file `lock` in `directory`, which the kernel lets go of when its holder ends.
///
/// # Errors
/// When another restore holds it, or it cannot be made.
pub(crate) fn take_lock(directory: &Path) -> Result<MarkedLock, RestoreError> {
    let path = directory.join("lock");
    match MarkedLock::take(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(RestoreError::Busy {
            directory: directory.to_owned(),
        }),
        Err(source) => Err(RestoreError::File {
            operation: "open",
            path,
            source,
        }),
    }
}

/// Makes the directory of a new run, under a name that nothing has: a kept run may be of a process with the same number.
fn make_run(directory: &Path) -> Result<PathBuf, RestoreError> {
    let mut number = std::process::id();
    loop {
        let path = directory.join(format!("{PREFIX}{number}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        match made {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => {
                return Err(RestoreError::File {
                    operation: "make",
                    path,
                    source,
                });
            }
        }
    }
}

/// Removes the runs of tests that were killed, and returns those that were kept; the lock proves that none of them runs.
fn remove_leftovers(directory: &Path) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(is_run) {
        let path = entry.path();
        match Marker::of(&path) {
            Some(marker) if marker.kept => {
                let shown = path.display();
                tracing::warn!(
                    "an earlier test was kept in {shown} and takes its room: rm -r {shown}"
                );
                kept.push(path);
            }
            Some(_) => {
                kill_all_under(&path);
                // If it stays, it only takes room, which the preflight measures.
                let _ = remove_work_directory(&path);
            }
            // Killed before it was marked, it is empty; what is not, is not ours.
            None => {
                let _ = fs::remove_dir(&path);
            }
        }
    }
    kept
}

/// Named as a run of this user: `run-` and digits, a directory and no link. The marker says whether it is one.
fn is_run(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    let numbered = number.is_some_and(|digits| digits.parse::<u32>().is_ok());
    // Of the entry itself: a link is no directory here.
    let ours = entry
        .metadata()
        .is_ok_and(|made| made.is_dir() && made.uid() == geteuid().as_raw());
    numbered && ours
}

/// Where others may write, they may lay out what the sweep would remove.
fn refuse_writable(directory: &Path) -> Result<(), RestoreError> {
    let metadata = fs::metadata(directory).map_err(|source| RestoreError::File {
        operation: "look at",
        path: directory.to_owned(),
        source,
    })?;
    if metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: format!("others may write to {}", directory.display()),
        hint: format!(
            "chmod go-w {}, or let xdb make a directory of its own",
            directory.display()
        ),
    })
}

/// Removes the work directory `path`.
///
/// # Errors
/// When something in it cannot be removed.
pub(crate) fn remove_work_directory(path: &Path) -> std::io::Result<()> {
    // Closed, as it is while WAL is replayed, it would keep what it holds. There may be none yet.
    let _ = allow_tablespace_links(&path.join(DATA), true);
    // A prefetch child that was not found yet may re-create a directory while it is removed.
    let mut tries = 3;
    loop {
        match remove_marker_last(path) {
            Err(_) if !path.exists() => return Ok(()),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {
                tries -= 1;
                kill_all_under(path);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// What a removal that was killed leaves is still known for ours.
fn remove_marker_last(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER_FILE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
