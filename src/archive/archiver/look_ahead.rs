//! Which segments are pushed before PostgreSQL asks for them. It only reads `archive_status`.

use std::path::Path;

use crate::model::ArchiveFile;

/// The names of the segments that PostgreSQL has marked as ready.
pub(super) fn ready(wal_directory: &Path) -> Vec<String> {
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

/// The first `limit` of the `ready` segments that follow `asked` in its own timeline.
pub(super) fn plan_look_ahead(asked: &str, ready: Vec<String>, limit: usize) -> Vec<String> {
    let timeline = |name: &str| name.get(..8).map(str::to_owned);
    if ArchiveFile::of(asked) != Some(ArchiveFile::Segment) {
        return Vec::new();
    }
    let mut next: Vec<String> = ready
        .into_iter()
        .filter(|name| name.as_str() > asked && timeline(name) == timeline(asked))
        .collect();
    next.sort_unstable();
    next.truncate(limit);
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
        for (asked, limit, planned) in [
            (segment(1, 4), 2, vec![segment(1, 5), segment(1, 9)]),
            (segment(1, 2), 2, vec![segment(1, 3), segment(1, 4)]),
            (segment(1, 4), 0, vec![]),
            (segment(1, 9), 4, vec![]),
            ("00000002.history".to_owned(), 4, vec![]),
        ] {
            assert_eq!(
                plan_look_ahead(&asked, all.clone(), limit),
                planned,
                "{asked}"
            );
        }
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
