//! Plans over repositories made by hand. A backup's number is its day in 2026 and its segment; `now` is day 101 at noon.

use jiff::SignedDuration;
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::super::{Folder, Mark};
use super::*;
use crate::model::{SegmentSize, Timeline};
use crate::repository::catalog::{Catalog, Stored, Tests, Wal};

#[path = "plan_tests_marks.rs"]
mod marks;
#[path = "plan_tests_status.rs"]
mod status;

const SEGMENT: u64 = 16 << 20;
const NOTHING: Retention = Retention {
    window_days: Some(0),
    fulls: 0,
    daily: 0,
    weekly: 0,
    monthly: 0,
    yearly: 0,
};

fn at(day: u64) -> Timestamp {
    let begin = date(2026, 1, 1)
        .to_zoned(TimeZone::UTC)
        .unwrap()
        .timestamp();
    begin + SignedDuration::from_hours(24 * (i64::try_from(day).unwrap() - 1) + 12)
}

fn name(day: u64) -> String {
    on(1, day)
}

fn on(timeline: u32, day: u64) -> String {
    format!("base_{timeline:08X}00000000{day:08X}")
}

fn delta(day: u64, from: u64) -> String {
    format!("{}_D_00000001{from:016X}", name(day))
}

fn segment(timeline: u32, number: u64) -> String {
    let timeline = Timeline(timeline);
    WalSegment { timeline, number }.name(SegmentSize::default())
}

fn backup(name: &str, sentinel: &str) -> Backup {
    let start = WalSegment::parse(Backup::segment_of(name).unwrap(), SegmentSize::default());
    let WalSegment { timeline, number } = start.unwrap();
    Backup {
        name: name.to_owned(),
        finished_at: Some(at(number)),
        ..Backup::sample(timeline.0, number, sentinel)
    }
}

fn full(name: &str) -> Backup {
    backup(name, r#","SystemIdentifier":7"#)
}

fn unfinished(day: u64) -> Backup {
    Backup {
        sentinel: None,
        finished_at: None,
        ..full(&name(day))
    }
}

fn delta_of(name: &str, from: &str) -> Backup {
    let chain = format!(
        r#","SystemIdentifier":7,"DeltaFrom":"{from}","DeltaFullName":"{from}","DeltaCount":1"#
    );
    backup(name, &chain)
}

/// WAL on timeline 1 from day 1 to 100, 100 bytes a segment; 1000 bytes a backup.
fn state(backups: Vec<Backup>) -> ArchiveState {
    let mut wal = Wal::default();
    for number in 1..=100 {
        let stored = Stored {
            size: 100,
            last_modified: at(number),
        };
        wal.add(
            WalSegment {
                timeline: Timeline(1),
                number,
            },
            stored,
        );
    }
    let folder = |backup: &Backup| {
        let day = position(backup, wal.size).unwrap().number;
        (
            backup.name.clone(),
            Folder {
                objects: BTreeSet::new(),
                bytes: 1000,
                newest: at(day),
            },
        )
    };
    ArchiveState {
        system_identifier: 7,
        folders: backups.iter().map(folder).collect(),
        marks: BTreeMap::new(),
        keepers: BTreeSet::new(),
        deleting: BTreeSet::new(),
        proven: BTreeSet::new(),
        catalog: Catalog { backups, wal },
    }
}

fn fulls(days: &[u64]) -> ArchiveState {
    state(days.iter().map(|day| full(&name(*day))).collect())
}

fn plan(state: &ArchiveState, policy: Retention) -> PrunePlan {
    plan_retention(state, policy, at(101)).unwrap()
}

/// The days of the backups that go, or that are marked.
fn with(plan: &PrunePlan, action: Action) -> Vec<String> {
    let found = plan.backups.iter().filter(|it| it.action == action);
    found.map(|it| it.name.clone()).collect()
}

fn reason<'a>(plan: &'a PrunePlan, name: &str) -> &'a str {
    let found = plan.backups.iter().find(|it| it.name == name);
    &found.unwrap().reason
}

fn names(days: &[u64]) -> Vec<String> {
    days.iter().map(|day| name(*day)).collect()
}

/// The numbers of timeline 1 that go, as spans.
fn deleted_wal(plan: &PrunePlan) -> Vec<(u64, u64)> {
    let gone = plan.wal.iter().filter(|it| !it.keep);
    gone.map(|it| it.numbers).collect()
}

#[test]
fn the_window_and_the_number_of_full_backups_say_what_goes() {
    let policy = |window_days, fulls| Retention {
        window_days: Some(window_days),
        fulls,
        ..NOTHING
    };
    let all = fulls(&[10, 40, 70, 80, 90, 99]);
    for (what, policy, gone) in [
        (
            "the one before the window's begin is its base",
            policy(26, 0),
            &[10, 40][..],
        ),
        (
            "one that finished as the window begins is in it, and the one before its base",
            policy(21, 0),
            &[10, 40],
        ),
        ("a window longer than all", policy(365, 0), &[]),
        ("full backups alone", policy(0, 2), &[10, 40, 70, 80]),
        (
            "more of them than the window needs",
            policy(5, 4),
            &[10, 40],
        ),
        (
            "fewer of them than the window needs",
            policy(26, 1),
            &[10, 40],
        ),
        ("more of them than there are", policy(0, 9), &[]),
        (
            "neither keeps any: the newest stays",
            policy(0, 0),
            &[10, 40, 70, 80, 90],
        ),
    ] {
        let planned = plan(&all, policy);
        assert_eq!(with(&planned, Action::Delete), names(gone), "{what}");
        let first = [10, 40, 70, 80, 90, 99]
            .into_iter()
            .find(|day| !gone.contains(day))
            .unwrap();
        assert_eq!(deleted_wal(&planned), [(1, first - 1)], "{what}");
        assert_eq!(planned.before.as_ref().unwrap().0, name(first), "{what}");
    }
    let planned = plan(&all, policy(26, 0));
    assert_eq!(
        reason(&planned, &name(70)),
        "the window of 26 days begins after it"
    );
    assert_eq!(reason(&planned, &name(80)), "within the window of 26 days");
    assert_eq!(
        reason(&planned, &name(10)),
        "older than the window of 26 days and the newest 0 full backups"
    );
    assert_eq!(planned.bytes(), (2 * 1000 + 69 * 100, 4 * 1000 + 31 * 100));
}

#[test]
fn a_kept_delta_keeps_its_chain_and_a_full_backup_goes_only_with_all_its_deltas() {
    let window = |window_days| Retention {
        window_days: Some(window_days),
        ..NOTHING
    };
    let (d50, d60, d95) = (delta(50, 40), delta(60, 50), delta(95, 90));
    let chain = state(vec![
        full(&name(40)),
        delta_of(&d50, &name(40)),
        delta_of(&d60, &d50),
        full(&name(90)),
        delta_of(&d95, &name(90)),
    ]);
    // Day 60 is the base of the window.
    let kept = plan(&chain, window(30));
    assert_eq!(with(&kept, Action::Delete), Vec::<String>::new());
    assert_eq!(reason(&kept, &name(40)), format!("{d60} builds on it"));
    assert_eq!(deleted_wal(&kept), [(1, 39)]);
    let gone = plan(&chain, window(7));
    assert_eq!(
        with(&gone, Action::Delete),
        [name(40), d50.clone(), d60.clone()]
    );
    assert_eq!(
        reason(&gone, &name(90)),
        "the window of 7 days begins after it"
    );

    // A delta that nothing kept builds on goes alone, and the WAL stays from its full backup on.
    let (side, tip) = (delta(50, 40), delta(90, 40));
    let star = state(vec![
        full(&name(40)),
        delta_of(&side, &name(40)),
        delta_of(&tip, &name(40)),
    ]);
    let planned = plan(&star, NOTHING);
    assert_eq!(with(&planned, Action::Delete), [side]);
    assert_eq!(
        (
            planned.before.as_ref().unwrap().0.clone(),
            deleted_wal(&planned)
        ),
        (name(40), vec![(1, 39)])
    );
}

#[test]
fn what_is_never_deleted() {
    let only = |all: &ArchiveState, name: &str, why: &str| {
        let planned = plan(all, NOTHING);
        assert!(
            with(&planned, Action::Delete)
                .iter()
                .all(|gone| gone != name),
            "{planned:?}"
        );
        assert!(reason(&planned, name).contains(why), "{planned:?}");
    };
    // The newest proven one, though older than a newer one that nobody tested; and all its WAL.
    let mut proven = fulls(&[10, 40, 90]);
    proven.proven = [name(40)].into();
    let why = "the newest that a restore test proved";
    only(&proven, &name(40), why);
    assert_eq!(deleted_wal(&plan(&proven, NOTHING)), [(1, 39)]);
    // An older one that was tested since takes nothing away from it, nor one that is gone.
    proven.proven = [name(10), name(40), name(99)].into();
    only(&proven, &name(40), why);

    // The last complete one: the newer one lacks its WAL.
    let mut last = fulls(&[10, 40, 90]);
    let mut wal = Wal::default();
    for number in 1..90 {
        let stored = Stored {
            size: 1,
            last_modified: at(number),
        };
        wal.add(
            WalSegment {
                timeline: Timeline(1),
                number,
            },
            stored,
        );
    }
    last.catalog.wal = wal;
    only(&last, &name(40), "the newest complete backup");
    // None that can be restored: nothing goes.
    last.catalog.wal = Wal::default();
    for day in [10, 40, 90] {
        only(&last, &name(day), "no backup can be restored");
    }

    // An old primary finished one after the promotion.
    let mut late = fulls(&[95]);
    let switched = "1\t0/3C000028\tr\n".parse().map_err(|_| String::new());
    late.catalog.wal.histories.insert(Timeline(2), switched);
    let stored = Stored {
        size: 1,
        last_modified: at(70),
    };
    let start = WalSegment {
        timeline: Timeline(2),
        number: 70,
    };
    late.catalog.wal.add(start, stored);
    late.catalog.backups.push(full(&on(2, 70)));
    only(&late, &on(2, 70), "the newest complete backup");
    assert_eq!(with(&plan(&late, NOTHING), Action::Delete), names(&[95]));

    // An unfinished one that may be at work, and what lies after it; an older one goes.
    let mut at_work = state(vec![
        full(&name(40)),
        unfinished(60),
        unfinished(70),
        full(&name(80)),
    ]);
    at_work.folders.insert(
        name(60),
        Folder {
            objects: BTreeSet::new(),
            bytes: 1,
            newest: at(100) + SignedDuration::from_secs(1),
        },
    );
    only(&at_work, &name(60), "younger than a day");
    let planned = plan(&at_work, NOTHING);
    assert_eq!(with(&planned, Action::Delete), names(&[40, 70]));
    // Only a full backup can bound a deletion.
    assert_eq!(planned.before.as_ref().unwrap().0, name(40));

    let unknown = state(vec![backup(&name(40), ""), full(&name(90))]);
    only(&unknown, &name(40), "of which cluster");
}

#[test]
fn what_a_stopped_run_began_to_delete_counts_no_more() {
    let mut all = fulls(&[10, 40, 90]);
    all.deleting = [name(10), name(40)].into();
    all.catalog.wal.pruned_before = Some(WalSegment {
        timeline: Timeline(1),
        number: 90,
    });
    // Even where the policy would keep it by now: parts of it may be gone.
    let planned = plan(
        &all,
        Retention {
            window_days: Some(365),
            fulls: 3,
            ..NOTHING
        },
    );
    assert_eq!(with(&planned, Action::Delete), names(&[10, 40]));
    assert!(reason(&planned, &name(40)).contains("was begun"));
    // A keeper from below is no base of a longer window: what followed it is gone.
    let mut kept = fulls(&[10, 40, 90]);
    kept.catalog.wal.pruned_before = all.catalog.wal.pruned_before;
    kept.marks.insert(name(40), Mark::Spared);
    let planned = plan(
        &kept,
        Retention {
            fulls: 2,
            ..NOTHING
        },
    );
    assert_eq!(reason(&planned, &name(40)), "marked permanent by a person");
    assert_eq!(planned.before.as_ref().unwrap().0, name(90));
}

#[test]
fn wal_of_older_timelines_goes_only_when_no_kept_backup_begins_there() {
    let mut all = fulls(&[10, 40]);
    all.catalog.backups.push(full(&on(2, 90)));
    for number in 60..=95 {
        let stored = Stored {
            size: 1,
            last_modified: at(number),
        };
        all.catalog.wal.add(
            WalSegment {
                timeline: Timeline(2),
                number,
            },
            stored,
        );
    }
    all.catalog.wal.histories.insert(
        Timeline(2),
        "1\t0/3C000028\tr\n".parse().map_err(|_| String::new()),
    );
    let older = plan(
        &all,
        Retention {
            fulls: 2,
            ..NOTHING
        },
    );
    assert_eq!(deleted_wal(&older), [(1, 39)]);
    let newer = plan(&all, NOTHING);
    let gone: Vec<_> = newer
        .wal
        .iter()
        .filter(|it| !it.keep)
        .map(|it| (it.first.clone(), it.last.clone()))
        .collect();
    assert_eq!(
        gone,
        [
            (segment(1, 1), segment(1, 100)),
            (segment(2, 60), segment(2, 89))
        ]
    );
}

#[test]
fn nothing_is_planned_over_a_repository_that_is_not_whole_or_not_ours_alone() {
    let foreign = state(vec![
        full(&name(10)),
        backup(&name(20), r#","SystemIdentifier":8"#),
    ]);
    let mut damaged = fulls(&[10, 20]);
    damaged.catalog.backups[0].damage = Some("cut".to_owned());
    let mut history = fulls(&[10, 20]);
    history
        .catalog
        .wal
        .histories
        .insert(Timeline(2), Err("encrypted".to_owned()));
    let mut elsewhere = fulls(&[10, 20]);
    elsewhere.system_identifier = 9;
    for (state, words) in [
        (
            foreign,
            "is of another cluster: its system identifier is 8, this node's 7",
        ),
        (
            damaged,
            "the sentinel of base_00000001000000000000000A is damaged: cut",
        ),
        (
            history,
            "the history of timeline 2 cannot be read: encrypted",
        ),
        (elsewhere, "its system identifier is 7, this node's 9"),
    ] {
        let refused = plan_retention(&state, NOTHING, at(101)).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}
