//! Room on the scratch disk: what is free, what is left to the live server, and what WAL takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::model::SegmentSize;
use crate::restore::RestoreError;

/// Bytes that an unprivileged process may still write to the disk of `directory`.
pub(crate) fn free_bytes(directory: &Path) -> Result<u64, RestoreError> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| RestoreError::File {
        operation: "measure",
        path: directory.to_owned(),
        source: error.into(),
    })?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// The same, beside the twentieth of the volume that is left to the live server in `directory`.
pub(crate) fn usable_bytes(directory: &Path) -> Result<u64, RestoreError> {
    Ok(free_bytes(directory)?.saturating_sub(reserve_bytes(directory, directory)))
}

/// Bytes to leave alone on the disk of `directory`: a twentieth of it where the live cluster in `live` writes too.
fn reserve_bytes(directory: &Path, live: &Path) -> u64 {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let shared = device(live).is_some_and(|live| device(directory) == Some(live));
    let size = rustix::fs::statvfs(directory).map_or(0, |stat| stat.f_blocks * stat.f_frsize);
    if shared { size / 20 } else { 0 }
}

/// Whether the disk of `directory` has `needed` bytes free beside what is left to the live cluster in `live`; `kept` are
/// directories of earlier tests that take room there.
///
/// # Errors
/// When it has not, or cannot be measured.
pub(crate) fn judge_space(
    needed: u64,
    directory: &Path,
    live: &Path,
    kept: &[PathBuf],
) -> Result<(), RestoreError> {
    let existing = existing_ancestor(directory);
    let (free, needed) = (
        free_bytes(existing)?,
        needed + reserve_bytes(existing, live),
    );
    if free >= needed {
        return Ok(());
    }
    Err(RestoreError::NoSpace {
        directory: directory.to_owned(),
        free: ByteSize(free),
        needed: ByteSize(needed),
        kept: kept.to_owned(),
    })
}

/// `directory` itself, or what there is of its path.
pub(crate) fn existing_ancestor(directory: &Path) -> &Path {
    let exists = |path: &&Path| path.exists();
    let found = directory.ancestors().find(exists);
    found
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// `min_wal_size` and `max_wal_size` in bytes: PostgreSQL's defaults, and at least the two segments that it insists on.
pub(crate) fn wal_size_limits(size: SegmentSize) -> (u64, u64) {
    let two = 2 * size.bytes();
    (two.max(80 << 20), two.max(1 << 30))
}

/// Bytes of WAL that PostgreSQL keeps between two checkpoints: `max_wal_size`, and half as much again.
pub(crate) fn wal_kept(size: SegmentSize) -> u64 {
    wal_size_limits(size).1 / 2 * 3
}

/// How many segments of `size` are fetched ahead of the replay at most: ten in 320 MiB, and two of any size.
pub(crate) fn max_prefetched(size: SegmentSize) -> usize {
    const MOST: usize = 10;
    const ROOM: u64 = 320 << 20;
    let fit = usize::try_from(ROOM / size.bytes()).unwrap_or(MOST);
    fit.clamp(2, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_segments_of_any_size_fit_into_what_is_kept() {
        for (mebibytes, least, most) in [
            (1, 80, 1024),
            (16, 80, 1024),
            (64, 128, 1024),
            (1024, 2048, 2048),
        ] {
            let size = SegmentSize::new(mebibytes << 20).unwrap();
            assert_eq!(
                wal_size_limits(size),
                (least << 20, most << 20),
                "{mebibytes}"
            );
        }
        assert_eq!(wal_kept(SegmentSize::default()), 3 << 29);
    }
}
