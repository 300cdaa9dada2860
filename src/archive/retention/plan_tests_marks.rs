//! Keepers and permanent backups, by the same hand-made repositories.

use super::*;

#[test]
fn keepers_are_the_last_full_backups_of_their_periods_and_keep_their_own_wal_only() {
    // Day 31 is the last of January, 59 of February, 90 of March; weeks begin on day 5, 12, …
    let all = fulls(&[20, 31, 40, 59, 80, 89, 98, 99, 100]);
    for (what, policy, marked) in [
        (
            "months",
            Retention {
                monthly: 4,
                ..NOTHING
            },
            &[31, 59, 89][..],
        ),
        (
            "the newest of them",
            Retention {
                monthly: 2,
                ..NOTHING
            },
            &[89],
        ),
        (
            "days with a backup",
            Retention {
                daily: 4,
                ..NOTHING
            },
            &[89, 98, 99],
        ),
        (
            "weeks",
            Retention {
                weekly: 2,
                ..NOTHING
            },
            &[89],
        ),
        (
            "the year, whose last one is the newest",
            Retention {
                yearly: 3,
                ..NOTHING
            },
            &[],
        ),
        (
            "what is in the window needs no mark",
            Retention {
                monthly: 2,
                window_days: Some(20),
                ..NOTHING
            },
            &[],
        ),
    ] {
        let planned = plan(&all, policy);
        assert_eq!(with(&planned, Action::Mark), names(marked), "{what}");
        for day in marked {
            let own = planned
                .wal
                .iter()
                .find(|it| it.keep && it.numbers == (*day, *day));
            // Side by side, spans of two keepers stay two.
            assert!(
                own.is_some_and(|own| own.reason.contains(&name(*day))),
                "{what}: {planned:?}"
            );
        }
    }
    let planned = plan(
        &all,
        Retention {
            monthly: 4,
            ..NOTHING
        },
    );
    assert_eq!(
        reason(&planned, &name(59)),
        "the last full backup of the month 2026-02, to its own end only"
    );
    assert_eq!(with(&planned, Action::Delete), names(&[20, 40, 80, 98, 99]));
    assert_eq!(
        deleted_wal(&planned),
        [(1, 30), (32, 58), (60, 88), (90, 99)]
    );
}

#[test]
fn xdbs_own_marks_come_off_and_a_persons_stay() {
    let mut all = fulls(&[20, 31, 40, 59, 100]);
    for day in [20, 31, 40] {
        all.marks.insert(name(day), Mark::Spared);
    }
    all.keepers = [name(31), name(20)].into();
    let planned = plan(
        &all,
        Retention {
            monthly: 2,
            ..NOTHING
        },
    );
    assert_eq!(with(&planned, Action::UnmarkAndDelete), names(&[20, 31]));
    assert_eq!(with(&planned, Action::Mark), names(&[59]));
    assert_eq!(reason(&planned, &name(40)), "marked permanent by a person");
    assert_eq!(deleted_wal(&planned), [(1, 39), (41, 58), (60, 99)]);

    // Marked where this program does not look: it would delete it, so nothing from there on goes.
    all.marks.insert(name(40), Mark::Elsewhere);
    let careful = plan(&all, NOTHING);
    assert_eq!(deleted_wal(&careful), [(1, 39)]);
    // A record whose mark was never made, or taken away: made again while it is wanted.
    all.marks.remove(&name(31));
    let again = plan(
        &all,
        Retention {
            monthly: 4,
            ..NOTHING
        },
    );
    assert_eq!(with(&again, Action::Mark), names(&[31, 59]));
    // And where it is not wanted any more, there is none to take off.
    let unwanted = plan(&all, NOTHING);
    assert_eq!(with(&unwanted, Action::Delete), names(&[31, 59]));
    assert_eq!(with(&unwanted, Action::UnmarkAndDelete), names(&[20]));
}

#[test]
fn a_permanent_delta_keeps_what_it_builds_on() {
    let child = delta(50, 40);
    let mut all = state(vec![
        full(&name(40)),
        delta_of(&child, &name(40)),
        full(&name(100)),
    ]);
    all.marks.insert(child.clone(), Mark::Spared);
    // walrus marks the delta alone: its full backup bounds what may go.
    let planned = plan(&all, NOTHING);
    assert_eq!(deleted_wal(&planned), [(1, 39)]);
    assert_eq!(reason(&planned, &name(40)), format!("{child} builds on it"));
    // wal-g marks the chain.
    all.marks.insert(name(40), Mark::Spared);
    let planned = plan(&all, NOTHING);
    assert_eq!(
        (with(&planned, Action::Delete).len(), deleted_wal(&planned)),
        (0, vec![(1, 39), (41, 49), (51, 99)])
    );
}
