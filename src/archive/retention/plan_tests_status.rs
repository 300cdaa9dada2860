//! Backups that do not count, by the same hand-made repositories.

use super::*;
use crate::repository::catalog::Tested;

fn tested(passed: bool, spares_backup: bool) -> Tests {
    Tests {
        newest: Some(Tested {
            at: at(100),
            node: "db2".to_owned(),
            passed,
            reason: Some("tables: bad page".to_owned()),
            spares_backup,
            damaged_wal: None,
        }),
        ..Tests::default()
    }
}

/// Days 10, 40 and 90, with restore tests of the newest.
fn newest_tested(tests: Tests) -> ArchiveState {
    let mut all = fulls(&[10, 40, 90]);
    all.catalog.backups[2].tests = tests;
    all
}

const ONE: Retention = Retention {
    fulls: 1,
    ..NOTHING
};

#[test]
fn a_backup_that_does_not_count_lets_no_other_be_deleted() {
    let mut cut = fulls(&[10, 40, 90]);
    cut.catalog.backups[2].stored = Some(crate::repository::catalog::StoredParts::default());
    for (what, all, words) in [
        (
            "its parts are gone",
            cut,
            "does not count (unusable: the tar parts of ",
        ),
        (
            "its test failed",
            newest_tested(tested(false, false)),
            "does not count (disproved: the restore test of ",
        ),
        (
            "its test failed for other reasons",
            newest_tested(tested(false, true)),
            "does not count (the restore test of ",
        ),
    ] {
        let planned = plan(&all, ONE);
        assert_eq!(with(&planned, Action::Delete), names(&[10]), "{what}");
        assert_eq!(deleted_wal(&planned), [(1, 39)], "{what}");
        assert!(
            reason(&planned, &name(90)).starts_with(words),
            "{what}: {planned:?}"
        );
        assert_eq!(
            reason(&planned, &name(40)),
            "the newest complete backup",
            "{what}"
        );
    }
    let planned = plan(&newest_tested(tested(true, false)), ONE);
    assert_eq!(with(&planned, Action::Delete), names(&[10, 40]));
}

#[test]
fn where_no_backup_counts_nothing_is_deleted() {
    let mut all = fulls(&[10, 40, 90]);
    for backup in &mut all.catalog.backups {
        backup.tests = tested(false, false);
    }
    let planned = plan(&all, ONE);
    assert!(
        planned.deletes_nothing() && planned.before.is_none(),
        "{planned:?}"
    );
    let words = "; no backup can be restored, so nothing is deleted";
    assert!(
        planned
            .backups
            .iter()
            .all(|backup| backup.reason.ends_with(words)),
        "{planned:?}"
    );
}

#[test]
fn a_name_of_another_segment_size_stops_every_deletion() {
    let mut all = fulls(&[10, 40, 90]);
    all.catalog.wal.size = SegmentSize::new(64 << 20).unwrap();
    let refused = plan_retention(&all, ONE, at(101)).unwrap_err();
    assert!(
        refused.contains("does not fit its start LSN with WAL segments of 64 MiB"),
        "{refused}"
    );
}

#[test]
fn a_mark_that_may_be_there_keeps_a_backup_unless_its_deletion_was_begun() {
    let mut all = fulls(&[10, 40, 90]);
    all.marks.insert(name(10), Mark::Unknown);
    let planned = plan(&all, ONE);
    assert_eq!(with(&planned, Action::Delete), names(&[40]));
    assert!(
        reason(&planned, &name(10)).contains("a permanent mark is not ruled out"),
        "{planned:?}"
    );
    assert_eq!(deleted_wal(&planned), [(1, 9)]);
    all.deleting = [name(10)].into();
    assert_eq!(with(&plan(&all, ONE), Action::Delete), names(&[10, 40]));
}

/// Beside what is there, a full backup a day and all of its WAL.
fn add_timeline_2(all: &mut ArchiveState, days: &[u64]) {
    for &number in days {
        let stored = Stored {
            size: 1,
            last_modified: at(number),
        };
        let timeline = Timeline(2);
        all.catalog.wal.add(WalSegment { timeline, number }, stored);
        all.catalog.backups.push(full(&on(2, number)));
    }
}

fn history(all: &mut ArchiveState, timeline: u32, text: &str) {
    let histories = &mut all.catalog.wal.histories;
    histories.insert(Timeline(timeline), Ok(text.parse().unwrap()));
}

#[test]
fn backups_that_a_recovery_to_an_earlier_time_left_replace_none() {
    let mut all = fulls(&[]);
    add_timeline_2(&mut all, &[88, 96, 97, 98, 99, 100]);
    let two = Retention {
        fulls: 2,
        ..NOTHING
    };
    let newest = [on(2, 99), on(2, 100)];
    let all_but = |kept: &[String]| -> Vec<String> {
        let names = all.catalog.backups.iter().map(|backup| &backup.name);
        names.filter(|name| !kept.contains(name)).cloned().collect()
    };
    let (before, deleted) = (
        all_but(&newest),
        all_but(&[97, 98, 99, 100].map(|day| on(2, day))),
    );
    assert_eq!(with(&plan(&all, two), Action::Delete), before);
    // To just after the backup of day 98: what followed it leads nowhere.
    history(
        &mut all,
        3,
        &format!("1\t0/100\tr\n2\t0/{:X}\tr\n", 98 * SEGMENT + 90),
    );
    let planned = plan(&all, two);
    assert_eq!(with(&planned, Action::Delete), deleted);
    assert_eq!(reason(&planned, &on(2, 98)), "the newest complete backup");
    assert_eq!(planned.before.unwrap().0, on(2, 97));
    // The base of the window, too, is one that leads there.
    let days = Retention {
        window_days: Some(2),
        ..NOTHING
    };
    let planned = plan(&all, days);
    assert_eq!(
        with(&planned, Action::Delete),
        [on(2, 88), on(2, 96), on(2, 97)]
    );
    assert_eq!(reason(&planned, &on(2, 99)), "within the window of 2 days");
    // By its age it goes as any other.
    for backup in &mut all.catalog.backups[4..] {
        backup.finished_at = Some(at(50));
    }
    assert!(with(&plan(&all, two), Action::Delete).contains(&on(2, 100)));
}

#[test]
fn a_backup_that_straddles_a_failover_replaces_none() {
    let mut all = fulls(&[10, 40, 90]);
    history(&mut all, 2, &format!("1\t0/{:X}\tr\n", 90 * SEGMENT + 60));
    let planned = plan(&all, ONE);
    assert_eq!(with(&planned, Action::Delete), names(&[10]));
    assert_eq!(deleted_wal(&planned), [(1, 39)]);
    // Until the new timeline has a backup of its own.
    add_timeline_2(&mut all, &[95]);
    let planned = plan(&all, ONE);
    assert_eq!(with(&planned, Action::Delete), names(&[10, 40, 90]));
}

#[test]
fn where_all_backups_were_left_the_newest_of_them_counts() {
    let mut all = fulls(&[10, 40, 90]);
    history(&mut all, 2, "1\t0/100\tr\n");
    assert_eq!(with(&plan(&all, ONE), Action::Delete), names(&[10, 40]));
}

#[test]
fn a_complete_backup_whose_test_failed_is_not_replaced_by_one_that_was_left() {
    let mut all = newest_tested(tested(true, false));
    all.catalog.backups.truncate(2);
    all.catalog.backups[0].tests = tested(false, true);
    history(&mut all, 2, &format!("1\t0/{:X}\tr\n", 20 * SEGMENT));
    assert!(plan(&all, ONE).deletes_nothing());
}
