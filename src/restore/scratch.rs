//! The directory that a restore test works in, and its end, however the test ends.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::RestoreError;
use crate::process::kill_all_under;

const PREFIX: &str = "run-";
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// `sun_path` of a Unix socket, with its final zero.
const SOCKET_PATH_LIMIT: usize = 108;

/// One restore test's directory below `restore_test.directory`; dropping it ends every process in it and removes it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Held while the test runs; the kernel lets go of it even after `kill -9`.
    _lock: File,
}

impl Scratch {
    /// Takes the lock of `directory`, removes what killed tests left there, and makes a new run's directory.
    ///
    /// # Errors
    /// When another test runs, `live` (the live data directory) lies too near, or the directory cannot be used.
    pub fn open(directory: &Path, live: &Path) -> Result<Self, RestoreError> {
        make_private(directory)?;
        let directory = directory
            .canonicalize()
            .map_err(|source| RestoreError::File {
                operation: "resolve",
                path: directory.to_owned(),
                source,
            })?;
        refuse_near(&directory, live)?;
        refuse_open(&directory)?;
        let lock = take_lock(&directory)?;
        sweep(&directory);
        let path = directory.join(format!("{PREFIX}{}", std::process::id()));
        Self::furnish(path, lock)
    }

    /// Makes what a restore works in at `path`, for as long as it holds `lock`.
    ///
    /// # Errors
    /// When it cannot be made, or a socket in it could not be reached.
    pub fn furnish(path: PathBuf, lock: File) -> Result<Self, RestoreError> {
        let scratch = Self { path, _lock: lock };
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
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub fn socket_directory(&self) -> PathBuf {
        self.path.join("socket")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("postgresql.log")
    }

    /// Ends every process of the test and removes its directory.
    ///
    /// # Errors
    /// When something could not be removed; the next test's start tries again.
    pub fn remove(&self) -> Result<(), RestoreError> {
        kill_all_under(&self.path);
        remove(&self.path).map_err(|source| RestoreError::File {
            operation: "remove",
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its error has been told where `remove` was called; here only the interrupted test is left.
        let _ = self.remove();
    }
}

/// Makes `path` and what is missing above it, for nobody else to look into.
pub fn make_private(path: &Path) -> Result<(), RestoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| RestoreError::File {
        operation: "make",
        path: path.to_owned(),
        source,
    })
}

/// Bytes that an unprivileged process may still write to the disk of `directory`.
pub fn free_bytes(directory: &Path) -> Result<u64, RestoreError> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| RestoreError::File {
        operation: "measure",
        path: directory.to_owned(),
        source: error.into(),
    })?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Bytes to leave alone on the disk of `directory`: a twentieth of it where the live cluster in `live` writes too.
pub fn reserve_bytes(directory: &Path, live: &Path) -> u64 {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let shared = device(live).is_some_and(|live| device(directory) == Some(live));
    let size = rustix::fs::statvfs(directory).map_or(0, |stat| stat.f_blocks * stat.f_frsize);
    if shared { size / 20 } else { 0 }
}

/// A scratch directory inside the live data directory, or around it, is one mistake away from it.
fn refuse_near(directory: &Path, live: &Path) -> Result<(), RestoreError> {
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
pub fn take_lock(directory: &Path) -> Result<File, RestoreError> {
    let path = directory.join("lock");
    let failed = |source| RestoreError::File {
        operation: "open",
        path: path.clone(),
        source,
    };
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = opened.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RestoreError::Busy {
            directory: directory.to_owned(),
        }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Removes the runs of tests that were killed; the lock says that none of them lives.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if is_run(&entry) {
            kill_all_under(&entry.path());
            // One that stays is in nobody's way but the disk's, which the preflight measures.
            let _ = remove(&entry.path());
        }
    }
}

/// Made by a test of this user: `run-` and digits, a directory and no link.
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
fn refuse_open(directory: &Path) -> Result<(), RestoreError> {
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

fn remove(path: &Path) -> std::io::Result<()> {
    // A prefetch child that was not found yet may re-create a directory while it is removed.
    let mut tries = 3;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {
                tries -= 1;
                kill_all_under(path);
            }
            Ok(()) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tests_never_share_a_directory_and_nothing_stays() {
        let parent = tempfile::tempdir().unwrap();
        let live = Path::new("/nonexistent");
        let scratch = Scratch::open(parent.path(), live).unwrap();
        assert!(scratch.data().is_dir());
        assert!(matches!(
            Scratch::open(parent.path(), live),
            Err(RestoreError::Busy { .. })
        ));
        drop(scratch);
        let left: Vec<_> = fs::read_dir(parent.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn what_a_killed_test_left_goes_at_the_next_start_and_what_is_not_ours_stays() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("run-1/data")).unwrap();
        fs::write(parent.path().join("notes"), "mine").unwrap();
        fs::create_dir(parent.path().join("run-mine")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), parent.path().join("run-2")).unwrap();
        let scratch = Scratch::open(parent.path(), Path::new("/nonexistent")).unwrap();
        assert!(!parent.path().join("run-1").exists());
        for kept in ["notes", "run-mine", "run-2"] {
            assert!(parent.path().join(kept).exists(), "{kept}");
        }
        assert!(elsewhere.path().exists());
        drop(scratch);
    }

    #[test]
    fn the_live_data_directory_is_kept_at_a_distance() {
        let parent = tempfile::tempdir().unwrap();
        let inside = parent.path().join("live/scratch");
        for (directory, live) in [
            (inside.as_path(), parent.path().join("live")),
            (parent.path(), parent.path().join("live")),
        ] {
            fs::create_dir_all(&live).unwrap();
            assert!(matches!(
                Scratch::open(directory, &live),
                Err(RestoreError::Refused { .. })
            ));
        }
    }
}
