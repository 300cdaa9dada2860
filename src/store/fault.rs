//! Why the store's file cannot be used, and what notices that it is no longer the file that was opened.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::StoreError;
use super::open::{beside, verify_file};

/// The daemon works in memory because of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub since: Timestamp,
    /// The file and what is wrong with it, as a sentence.
    pub reason: String,
    /// What the operator can do.
    pub hint: &'static str,
}

/// Between two looks at the directory entries.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the content of a file that changed.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// A larger file is not read whole.
const VERIFIED_BYTES: u64 = 64 << 20;

/// Device, inode, length and modification time of a file; `None` where it is missing.
type Entry = Option<(u64, u64, u64, i64)>;

/// The files of an open store, as they were when it was opened.
///
/// It never opens the file itself: closing it would drop the locks that SQLite holds for this process.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    opened: [Option<(u64, u64)>; 3],
    length: u64,
    looked: Instant,
    verified: Entry,
    verified_at: Instant,
}

impl FileWatch {
    pub(super) fn new(path: &Path) -> Self {
        let entry = entry(path);
        Self {
            path: path.to_owned(),
            opened: inodes(path),
            length: entry.map_or(0, |(_, _, length, _)| length),
            looked: Instant::now(),
            verified: entry,
            verified_at: Instant::now(),
        }
    }

    /// Looks whether what is at the path is still the file that is open, and undamaged.
    ///
    /// # Errors
    /// When it was deleted, replaced, cut or overwritten: what is written now would be lost.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        let now = entry(&self.path);
        let length = now.map_or(0, |(_, _, length, _)| length);
        // SQLite cuts its file only in VACUUM, which xdb does not run.
        if inodes(&self.path) != self.opened || length < self.length {
            return Err(StoreError::Replaced {
                path: self.path.clone(),
            });
        }
        self.length = length;
        let due = now != self.verified && self.verified_at.elapsed() >= VERIFY_EVERY;
        if due && length <= VERIFIED_BYTES {
            (self.verified, self.verified_at) = (now, Instant::now());
            verify_file(&self.path)?;
        }
        Ok(())
    }
}

fn entry(path: &Path) -> Entry {
    let found = path.metadata().ok()?;
    let modified = found.mtime().wrapping_mul(1_000_000_000) + found.mtime_nsec();
    Some((found.dev(), found.ino(), found.len(), modified))
}

fn inodes(path: &Path) -> [Option<(u64, u64)>; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let (device, inode, ..) = entry(&beside(path, suffix))?;
        Some((device, inode))
    })
}
