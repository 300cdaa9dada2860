//! Backups that do not count, by the same hand-made repositories.

use super::*;
use crate::archive::catalog::Tested;

fn tested(passed: bool, spares_backup: bool) -> Tests {
    Tests {
        newest: Some(Tested {
            at: at(100),
            node: "db2".to_owned(),
            passed,
            reason: Some("tables: bad page".to_owned()),
            spares_backup,
        }),
        ..Tests::default()
    }
}

/// Days 10, 40 and 90, with restore tests of the newest.
fn newest_tested(tests: Tests) -> Seen {
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
    cut.catalog.backups[2].stored = Some(crate::archive::catalog::StoredParts::default());
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
