//! The timelines that lead to the one that a server is on, as its own `pg_wal` shows them.

use std::path::Path;

use super::{catalog, segment_header};
use crate::model::{ArchiveFile, Lsn, Timeline, TimelineHistory, WalSegment};
use crate::repository::Repository;

/// A timeline and where it left each of its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ancestry {
    pub timeline: Timeline,
    pub history: TimelineHistory,
}

/// Where a timeline stands to an [`Ancestry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the timeline itself, or a newer one, of which nothing is known here.
    Current,
    /// An ancestor, left there.
    LeftAt(Lsn),
    /// An older timeline that does not lead here.
    Elsewhere,
}

impl Ancestry {
    pub(crate) fn place(&self, timeline: Timeline) -> Place {
        if timeline >= self.timeline {
            return Place::Current;
        }
        let left = self.history.switched_from(timeline);
        left.map_or(Place::Elsewhere, Place::LeftAt)
    }

    /// Whether all of `segment`, which ends at `end`, belongs to this ancestry.
    pub(crate) fn holds(&self, segment: WalSegment, end: Lsn) -> bool {
        match self.place(segment.timeline) {
            Place::Current => segment.timeline == self.timeline,
            Place::LeftAt(switch) => end <= switch,
            Place::Elsewhere => false,
        }
    }
}

/// The ancestry of the newest timeline of which `pg_wal` in `data_directory` holds WAL of the cluster with this system
/// identifier: a standby receives that of the timeline that it follows. `None` where it holds none, or not the history.
pub(crate) fn followed(data_directory: &Path, cluster: u64) -> Option<Ancestry> {
    let wal = data_directory.join("pg_wal");
    let mut names = segments(data_directory);
    // The oldest first: what PostgreSQL keeps for later use has the newest names, and other content.
    names.sort_unstable();
    let mut newest: Option<Timeline> = None;
    for name in names {
        let timeline = timeline_of(&name);
        if timeline > newest
            && segment_header::judge_file(&name, &wal.join(&name), Some(cluster)).is_ok()
        {
            newest = timeline;
        }
    }
    of_timeline(data_directory, newest?)
}

/// The ancestry of `timeline` by the history in `pg_wal`; `None` where that is not there, or cannot be read.
pub(crate) fn of_timeline(data_directory: &Path, timeline: Timeline) -> Option<Ancestry> {
    let history = if timeline == Timeline(1) {
        TimelineHistory::default()
    } else {
        let file = data_directory.join("pg_wal").join(timeline.history_file());
        std::fs::read_to_string(file).ok()?.parse().ok()?
    };
    Some(Ancestry { timeline, history })
}

/// The ancestry of `timeline` by the history in the bucket; `None` where that is not there, or cannot be read.
///
/// # Errors
/// When the bucket cannot be asked.
pub(crate) async fn stored(
    repository: &Repository,
    timeline: Timeline,
) -> Result<Option<Ancestry>, super::RepositoryError> {
    let name = timeline.history_file();
    for object in repository.stored_as(&name).await? {
        let content = repository.bucket.get(&object.key).await?;
        let text = catalog::decompressed(&object.key, &content).ok();
        let text = text.and_then(|text| String::from_utf8(text).ok());
        if let Some(history) = text.and_then(|text| text.parse().ok()) {
            return Ok(Some(Ancestry { timeline, history }));
        }
    }
    Ok(None)
}

/// Whether `pg_wal` holds the history of a timeline after that of the file `name`: then `name` may be one that was left.
pub(crate) fn may_be_left(data_directory: &Path, name: &str) -> bool {
    let own = timeline_of(name);
    let newer = |other: &String| {
        ArchiveFile::of(other) == Some(ArchiveFile::TimelineHistory) && timeline_of(other) > own
    };
    files(data_directory).iter().any(newer)
}

/// The names of the segments in `pg_wal`.
pub(crate) fn segments(data_directory: &Path) -> Vec<String> {
    let mut names = files(data_directory);
    names.retain(|name| ArchiveFile::of(name) == Some(ArchiveFile::Segment));
    names
}

fn files(data_directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data_directory.join("pg_wal"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The timeline that the name of a file that PostgreSQL archives begins with.
pub(crate) fn timeline_of(name: &str) -> Option<Timeline> {
    let timeline = u32::from_str_radix(name.get(..8)?, 16).ok()?;
    Some(Timeline(timeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    /// Timeline 4, which left 3 within segment 24 and 1 where segment 9 ends; 2 leads elsewhere.
    fn ancestry() -> Ancestry {
        Ancestry {
            timeline: Timeline(4),
            history: "1\t0/A000000\tr\n3\t0/180000A0\tr\n".parse().unwrap(),
        }
    }

    #[test]
    fn a_segment_belongs_to_the_ancestry_up_to_the_switch() {
        let holds = |timeline, number: u64| {
            let timeline = Timeline(timeline);
            ancestry().holds(WalSegment { timeline, number }, Lsn((number + 1) * SEGMENT))
        };
        for (timeline, number, expected) in [
            (1, 9, true),
            (1, 10, false),
            (2, 5, false),
            (3, 23, true),
            (3, 24, false),
            (3, 25, false),
            (4, 24, true),
            (5, 30, false),
        ] {
            assert_eq!(holds(timeline, number), expected, "{timeline} {number}");
        }
    }

    #[test]
    fn the_timeline_that_is_followed_is_that_of_the_newest_wal_of_the_own_cluster() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("pg_wal");
        assert_eq!(followed(data.path(), 7), None);
        std::fs::create_dir(&wal).unwrap();
        let segment = |timeline: u32, number: u64, cluster: u64| {
            let mut bytes = vec![0; 1 << 20];
            bytes[..4].copy_from_slice(&[0x16, 0xD1, 2, 0]);
            bytes[4..8].copy_from_slice(&1_u32.to_ne_bytes());
            bytes[8..16].copy_from_slice(&(number << 20).to_ne_bytes());
            bytes[24..32].copy_from_slice(&cluster.to_ne_bytes());
            bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
            bytes[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
            std::fs::write(
                wal.join(format!("{timeline:08X}00000000{number:08X}")),
                bytes,
            )
            .unwrap();
        };
        segment(1, 3, 7);
        let name = "000000010000000000000003";
        let of = |timeline: u32| {
            followed(data.path(), 7).map(|it| it.timeline) == Some(Timeline(timeline))
        };
        assert!(of(1) && !may_be_left(data.path(), name));
        // A history alone, and another cluster's WAL, say nothing.
        std::fs::write(wal.join("00000002.history"), "1\t0/380000\tr\n").unwrap();
        segment(2, 3, 8);
        assert!(of(1) && may_be_left(data.path(), name));
        segment(2, 4, 7);
        let found = followed(data.path(), 7).unwrap();
        assert_eq!(found.place(Timeline(1)), Place::LeftAt(Lsn(0x38_0000)));
        // Without the history of what is followed nothing is known.
        segment(3, 5, 7);
        assert_eq!(followed(data.path(), 7), None);
    }
}
