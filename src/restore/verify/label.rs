//! `backup_label`: where the recovery must begin. Without it PostgreSQL would begin elsewhere, and come up rotten.

use crate::model::{Lsn, Verdict};
use crate::repository::catalog::{Backup, Sentinel};

/// Holds the label that was restored, `None` where none was, against the backup.
pub(crate) fn judge_label(label: Option<&str>, backup: &Backup, sentinel: &Sentinel) -> Verdict {
    let Some(label) = label else {
        let reason = "no backup_label was restored: PostgreSQL would not know where to begin, and take a torn copy for whole";
        return Verdict::Critical(reason.to_owned());
    };
    let value = |name: &str| {
        let line = label.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()
    };
    let start: Option<Lsn> = value("START WAL LOCATION:").and_then(|lsn| lsn.parse().ok());
    if start != Some(sentinel.start_lsn) {
        let start = start.map_or_else(|| "nowhere".to_owned(), |start| start.to_string());
        return Verdict::Critical(format!(
            "backup_label begins at {start}, the backup at {}",
            sentinel.start_lsn
        ));
    }
    let timeline: Option<u32> = value("START TIMELINE:").and_then(|id| id.parse().ok());
    // Before PostgreSQL 11 it was not written.
    match timeline.filter(|timeline| *timeline != backup.timeline.0) {
        Some(timeline) => Verdict::Critical(format!(
            "backup_label is of timeline {timeline}, the backup of timeline {}",
            backup.timeline
        )),
        None => Verdict::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;
    use crate::repository::catalog::Tests;

    const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n\
        CHECKPOINT LOCATION: 0/3000080\nBACKUP METHOD: streamed\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_that_is_missing_or_of_another_place_is_found() {
        let sentinel = Sentinel::parse(br#"{"LSN":50331688,"FinishLSN":50331936}"#).unwrap();
        let backup = Backup {
            name: "base_000000010000000000000003".to_owned(),
            timeline: Timeline(1),
            sentinel: None,
            damage: None,
            finished_at: None,
            stored: None,
            tests: Tests::default(),
        };
        let other_place = LABEL.replace("0/3000028", "0/2000028");
        let other_timeline = LABEL.replace("TIMELINE: 1", "TIMELINE: 2");
        for (label, words) in [
            (Some(LABEL), ""),
            (None, "no backup_label was restored"),
            (Some(""), "begins at nowhere, the backup at 0/3000028"),
            (Some(&other_place), "begins at 0/2000028"),
            (
                Some(&other_timeline),
                "is of timeline 2, the backup of timeline 1",
            ),
        ] {
            let judged = judge_label(label, &backup, &sentinel);
            assert_eq!(judged == Verdict::Ok, words.is_empty(), "{judged:?}");
            assert!(
                judged.reason().unwrap_or_default().contains(words),
                "{judged:?}"
            );
        }
    }
}
