//! Which segments are pushed before PostgreSQL asks for them. It only reads `archive_status`.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procfs::{Current, Meminfo};

use crate::model::ArchiveFile;

/// What an upload may take: a segment that cannot be compressed, in a buffer that grew by doubling.
const UPLOAD: u64 = 32 << 20;

/// So many at once keep the processors busy where S3 is near; more would get into each other's way there.
const NEAR: usize = 4;

/// One more at once is worth it for this much that an answer of S3 takes.
const FARTHER: Duration = Duration::from_millis(5);

/// The quickest of so many answers is what the way takes; the others waited for a processor, too.
const ANSWERS: usize = 8;

/// The segments after the one that PostgreSQL asked for last, in order.
#[derive(Debug, Default)]
pub(super) struct LookAhead {
    queue: VecDeque<String>,
    /// After a failure one at a time, so that a slow link or a refusing S3 does not get many uploads at once.
    failed: bool,
}

impl LookAhead {
    /// PostgreSQL asked for `asked`.
    pub(super) fn follow(&mut self, asked: &str, wal_directory: &Path) {
        while self
            .queue
            .front()
            .is_some_and(|next| next.as_str() <= asked)
        {
            self.queue.pop_front();
        }
        if self.queue.is_empty() && !self.failed {
            self.queue = plan(asked, ready(wal_directory)).into();
        }
    }

    pub(super) fn next(&mut self) -> Option<String> {
        self.queue.pop_front()
    }

    /// After a segment that was asked for is stored.
    pub(super) fn allow(&mut self) {
        self.failed = false;
    }

    /// After a failure.
    pub(super) fn stop(&mut self) {
        self.failed = true;
        self.queue.clear();
    }
}

/// How far away S3 is, by how long it takes to answer small questions.
#[derive(Debug, Default)]
pub(super) struct S3Distance(Mutex<VecDeque<Duration>>);

impl S3Distance {
    /// S3 took `time` to answer.
    pub(super) fn answered_in(&self, time: Duration) {
        let mut answers = self.answers();
        answers.push_back(time);
        if answers.len() > ANSWERS {
            answers.pop_front();
        }
    }

    /// How many uploads may be under way: as the way to S3 is worth, at most as configured, and within an eighth of the
    /// memory that is free.
    pub(super) fn concurrency(&self, configured: u32) -> usize {
        let free = Meminfo::current()
            .ok()
            .and_then(|memory| memory.mem_available);
        let way = self.answers().iter().min().copied().unwrap_or_default();
        concurrency(configured, free, way)
    }

    fn answers(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `free` is bytes, `None` where it is not known; `way` is how long S3 takes to answer.
fn concurrency(configured: u32, free: Option<u64>, way: Duration) -> usize {
    let affordable = free.map_or(u64::MAX, |free| free / 8 / UPLOAD);
    let most = usize::try_from(u64::from(configured).min(affordable)).unwrap_or(1);
    let worth = way.as_millis() / FARTHER.as_millis();
    most.min(usize::try_from(worth).unwrap_or(most).max(NEAR))
        .max(1)
}

/// The names of the segments that PostgreSQL has marked as ready.
fn ready(wal_directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(wal_directory.join("archive_status")) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_suffix(".ready").map(str::to_owned))
        .filter(|name| ArchiveFile::of(name) == Some(ArchiveFile::Segment))
        .collect()
}

/// Those of the `ready` segments that follow `asked` in its own timeline.
fn plan(asked: &str, ready: Vec<String>) -> Vec<String> {
    let timeline = |name: &str| name.get(..8).map(str::to_owned);
    if ArchiveFile::of(asked) != Some(ArchiveFile::Segment) {
        return Vec::new();
    }
    let mut next: Vec<String> = ready
        .into_iter()
        .filter(|name| name.as_str() > asked && timeline(name) == timeline(asked))
        .collect();
    next.sort_unstable();
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_segments_of_the_same_timeline_are_planned_in_order() {
        let segment = |timeline: u32, number: u32| format!("{timeline:08X}00000000{number:08X}");
        let all = vec![
            segment(1, 9),
            segment(1, 3),
            segment(1, 5),
            segment(2, 5),
            segment(1, 4),
        ];
        for (asked, planned) in [
            (segment(1, 4), vec![segment(1, 5), segment(1, 9)]),
            (segment(1, 9), vec![]),
            (segment(2, 1), vec![segment(2, 5)]),
            ("00000002.history".to_owned(), vec![]),
        ] {
            assert_eq!(plan(&asked, all.clone()), planned, "{asked}");
        }
    }

    #[test]
    fn memory_and_the_way_to_s3_bound_what_is_under_way_and_one_always_may() {
        let gib = 1_u64 << 30;
        let far = Duration::from_millis(100);
        for (configured, free, way, at_once_may) in [
            (12, None, far, 12),
            (12, Some(16 * gib), far, 12),
            (12, Some(gib), far, 4),
            (12, Some(0), far, 1),
            (0, Some(gib), far, 1),
            (12, None, Duration::ZERO, 4),
            (12, None, Duration::from_millis(30), 6),
            (2, None, Duration::ZERO, 2),
        ] {
            assert_eq!(
                concurrency(configured, free, way),
                at_once_may,
                "{configured} {free:?} {way:?}"
            );
        }
    }

    #[test]
    fn after_a_failure_nothing_is_pushed_ahead_until_what_was_asked_for_is_stored() {
        let wal = tempfile::tempdir().unwrap();
        let status = wal.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let segment = |number: u32| format!("0000000100000000{number:08X}");
        for number in 3..7 {
            std::fs::write(status.join(segment(number) + ".ready"), "").unwrap();
        }
        let mut ahead = LookAhead::default();
        ahead.stop();
        ahead.follow(&segment(3), wal.path());
        assert_eq!(ahead.next(), None);
        ahead.allow();
        ahead.follow(&segment(3), wal.path());
        assert_eq!(ahead.next(), Some(segment(4)));
        ahead.follow(&segment(5), wal.path());
        assert_eq!(ahead.next(), Some(segment(6)));
        ahead.follow(&segment(3), wal.path());
        ahead.stop();
        assert_eq!(ahead.next(), None);
    }

    #[test]
    fn only_segments_that_are_marked_ready_count() {
        let wal = tempfile::tempdir().unwrap();
        let status = wal.path().join("archive_status");
        assert!(ready(wal.path()).is_empty());
        std::fs::create_dir(&status).unwrap();
        let segment = "000000010000000000000003";
        for name in [
            format!("{segment}.ready"),
            "000000010000000000000002.done".to_owned(),
            format!("{segment}.00000028.backup.ready"),
            "00000002.history.ready".to_owned(),
        ] {
            std::fs::write(status.join(name), "").unwrap();
        }
        assert_eq!(ready(wal.path()), [segment]);
    }
}
