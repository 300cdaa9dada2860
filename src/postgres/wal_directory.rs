//! `pg_wal` as it lies on this node's disk: what waits to be archived, and how long the volume lasts.
//!
//! It is read with or without a running server.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use super::PostgresError;
use crate::model::ArchiveFile;

/// How far back the rate of WAL is measured.
const MEASURED: SignedDuration = SignedDuration::from_hours(1);
/// Archiving that is behind by less does its work.
const AT_WORK: SignedDuration = SignedDuration::from_mins(1);

/// One look at `pg_wal` and the volume that it lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalDirectory {
    /// Files with a `.ready` mark: segments, histories and backup labels that wait.
    pub pending: u64,
    pub pending_bytes: u64,
    /// When the oldest of them began to wait.
    pub oldest_pending: Option<Timestamp>,
    /// When each segment with a mark was full; PostgreSQL removes the oldest marks at checkpoints.
    finished: Vec<Timestamp>,
    /// Of one segment; zero where there is none.
    segment_bytes: u64,
    /// What the server may still write.
    pub free_bytes: u64,
}

impl WalDirectory {
    /// One made by hand, for those who judge it.
    #[cfg(test)]
    pub(crate) fn new(
        pending: u64,
        oldest_pending: Option<Timestamp>,
        finished: &[Timestamp],
        segment_bytes: u64,
        free_bytes: u64,
    ) -> Self {
        Self {
            pending,
            pending_bytes: 0,
            oldest_pending,
            finished: finished.to_vec(),
            segment_bytes,
            free_bytes,
        }
    }

    /// Bytes of WAL a second over the last hour, or as far back as marks tell; `None` while they tell too little.
    pub(crate) fn bytes_per_sec(&self, now: Timestamp) -> Option<f64> {
        let age = |at: &Timestamp| now.duration_since(*at);
        let recent = self.finished.iter().filter(|at| age(at) <= MEASURED);
        let oldest = recent.clone().min()?;
        // The oldest was written before the time that is measured.
        let written = u64::try_from(recent.count() - 1).ok()?;
        let secs = age(oldest).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let bytes = (written * self.segment_bytes) as f64;
        (written > 0 && secs >= 1.0).then(|| bytes / secs)
    }

    /// When the volume is full if nothing is archived any more; `None` while the rate is not known.
    pub(crate) fn until_full(&self, now: Timestamp) -> Option<SignedDuration> {
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let secs = self.free_bytes as f64 / self.bytes_per_sec(now)?;
        // Ten years are for ever.
        Some(SignedDuration::from_secs_f64(secs.min(3.2e8)))
    }

    /// The oldest file waits longer than archiving takes when it works.
    pub(crate) fn stands_still(&self, now: Timestamp) -> bool {
        let oldest = self.oldest_pending;
        oldest.is_some_and(|oldest| now.duration_since(oldest) >= AT_WORK)
    }
}

/// Reads `pg_wal` of `data_directory`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn wal_directory(data_directory: &Path) -> Result<WalDirectory, PostgresError> {
    let wal = data_directory.join("pg_wal");
    let marks = wal.join("archive_status");
    let failed = |path: &Path, source| PostgresError::WalDirectory {
        path: path.to_owned(),
        source,
    };
    let volume = rustix::fs::statvfs(&wal).map_err(|error| failed(&wal, error.into()))?;
    let mut seen = WalDirectory {
        pending: 0,
        pending_bytes: 0,
        oldest_pending: None,
        finished: Vec::new(),
        segment_bytes: 0,
        free_bytes: volume.f_bavail * volume.f_frsize,
    };
    for mark in fs::read_dir(&marks).map_err(|error| failed(&marks, error))? {
        let mark = mark.map_err(|error| failed(&marks, error))?;
        let name = mark.file_name();
        let Some((file, state)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        // What PostgreSQL or walrus renames or removes meanwhile is no longer of interest.
        let (Some(kind), Some(at)) = (ArchiveFile::of(file), modified(&mark)) else {
            continue;
        };
        let bytes = fs::metadata(wal.join(file)).map_or(0, |file| file.len());
        if kind == ArchiveFile::Segment {
            seen.finished.push(at);
            seen.segment_bytes = seen.segment_bytes.max(bytes);
        }
        if state == "ready" {
            seen.pending += 1;
            seen.pending_bytes += bytes;
            seen.oldest_pending = Some(seen.oldest_pending.map_or(at, |oldest| oldest.min(at)));
        }
    }
    Ok(seen)
}

fn modified(entry: &DirEntry) -> Option<Timestamp> {
    let modified: SystemTime = entry.metadata().ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(finished: &[i64], oldest_pending: Option<i64>) -> WalDirectory {
        let finished: Vec<_> = finished.iter().copied().map(at).collect();
        let pending = u64::from(oldest_pending.is_some());
        WalDirectory::new(pending, oldest_pending.map(at), &finished, 100, 1_000)
    }

    #[test]
    fn the_forecast_is_what_is_free_by_what_was_written_lately() {
        let now = at(10_000);
        for (what, finished, rate, until) in [
            ("nothing finished", vec![], None, None),
            ("one says nothing", vec![9_000], None, None),
            ("too long ago", vec![1, 2, 3], None, None),
            (
                "two in 100 s",
                vec![9_900, 9_950, 9_960],
                Some(2.0),
                Some(500),
            ),
            ("quiet since", vec![9_000, 9_001], Some(0.1), Some(10_000)),
            (
                "the long past does not count",
                vec![1, 9_900, 9_910],
                Some(1.0),
                Some(1_000),
            ),
        ] {
            let seen = seen(&finished, None);
            assert_eq!(seen.bytes_per_sec(now), rate, "{what}");
            let until = until.map(SignedDuration::from_secs);
            assert_eq!(seen.until_full(now), until, "{what}");
        }
    }

    #[test]
    fn a_file_that_waits_for_a_moment_is_no_standstill() {
        let now = at(10_000);
        for (oldest, still) in [(None, false), (Some(9_941), false), (Some(9_940), true)] {
            assert_eq!(seen(&[], oldest).stands_still(now), still, "{oldest:?}");
        }
    }

    #[test]
    fn the_marks_of_a_data_directory_are_counted() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("pg_wal");
        assert!(wal_directory(data.path()).is_err());
        fs::create_dir_all(wal.join("archive_status")).unwrap();
        for (file, bytes, mark) in [
            ("000000010000000000000001", 1_000, "done"),
            ("000000010000000000000002", 1_000, "ready"),
            ("00000002.history", 50, "ready"),
            ("nonsense", 7, "ready"),
        ] {
            fs::write(wal.join(file), vec![0; bytes]).unwrap();
            fs::write(
                wal.join("archive_status").join(format!("{file}.{mark}")),
                "",
            )
            .unwrap();
        }
        let seen = wal_directory(data.path()).unwrap();
        assert_eq!((seen.pending, seen.pending_bytes), (2, 1_050));
        assert_eq!((seen.finished.len(), seen.segment_bytes), (2, 1_000));
        assert!(seen.oldest_pending.is_some() && seen.free_bytes > 0);
    }
}
