//! The judgement of a whole archive, on archives made by hand.

use jiff::Timestamp;

use super::super::Wal;
use super::super::wal::Stored;
use super::*;
use crate::model::Lsn;
use crate::repository::HighWater;
use crate::storage::Location;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A backup that starts and finishes in the segment `number`.
fn backup(timeline: u32, number: u64) -> Backup {
    Backup::sample(timeline, number, r#","SystemIdentifier":7"#)
}

fn catalog(
    backups: Vec<Backup>,
    segments: &[(u32, std::ops::RangeInclusive<u64>)],
    histories: &[(u32, &str)],
) -> Catalog {
    let mut wal = Wal::default();
    let stored = Stored {
        size: 100,
        last_modified: at(100),
    };
    for (timeline, numbers) in segments {
        for number in numbers.clone() {
            let timeline = Timeline(*timeline);
            wal.add(WalSegment { timeline, number }, stored);
        }
    }
    wal.histories = histories
        .iter()
        .map(|(id, text)| (Timeline(*id), text.parse().map_err(|_| "bad".to_owned())))
        .collect();
    Catalog { backups, wal }
}

fn name(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

fn known(first: u64, last: u64, until: i64) -> Acknowledgement {
    let (first, last) = (name(1, first), name(1, last));
    Acknowledgement::new(
        "s3://b/p",
        (&first, &last),
        ("anna", "known"),
        at(1),
        at(until),
    )
}

fn gaps(verified: &Verified) -> Vec<(String, usize)> {
    let gaps = verified.gaps.iter();
    gaps.map(|gap| (gap.named(), gap.cuts_off.len())).collect()
}

#[test]
fn what_is_missing_is_named_with_the_backups_that_it_cuts_off() {
    let (two, four) = (vec![backup(1, 2)], vec![backup(1, 2), backup(1, 4)]);
    let switch = "1\t0/70000A0\tno recovery target specified\n";
    let short = "1\t0/70000A0\tr\n2\t0/7000200\tr\n";
    for (what, catalog, expected) in [
        ("whole", catalog(two.clone(), &[(1, 1..=9)], &[]), vec![]),
        (
            "a hole",
            catalog(four.clone(), &[(1, 1..=5), (1, 8..=9)], &[]),
            vec![(format!("{} to {}", name(1, 6), name(1, 7)), 2)],
        ),
        (
            "a hole before the second backup",
            catalog(four.clone(), &[(1, 1..=2), (1, 4..=9)], &[]),
            vec![(name(1, 3), 1)],
        ),
        (
            "a hole that no backup needs",
            catalog(four.clone(), &[(1, 0..=0), (1, 2..=9)], &[]),
            vec![],
        ),
        (
            "a switch inside a segment (wal-g#1390)",
            catalog(two.clone(), &[(1, 1..=6), (2, 7..=9)], &[(2, switch)]),
            vec![],
        ),
        (
            "two switches inside one segment (wal-g#1590)",
            catalog(
                two.clone(),
                &[(1, 1..=6), (3, 7..=9)],
                &[(2, switch), (3, short)],
            ),
            vec![],
        ),
        (
            "what the old primary wrote after the switch is not needed",
            catalog(
                two.clone(),
                &[(1, 1..=7), (1, 9..=9), (2, 7..=8)],
                &[(2, switch)],
            ),
            vec![],
        ),
        (
            "lost in the failover",
            catalog(two.clone(), &[(1, 1..=5), (2, 7..=8)], &[(2, switch)]),
            vec![(name(1, 6), 1)],
        ),
        (
            "not stored to the backup's finish",
            catalog(two.clone(), &[(1, 1..=1)], &[]),
            vec![(name(1, 2), 1)],
        ),
    ] {
        let verified = catalog.verify(&[], at(200));
        assert_eq!(gaps(&verified), expected, "{what}");
        assert_eq!(
            verified.is_good(),
            expected.is_empty(),
            "{what}: {verified:?}"
        );
    }
}

#[test]
fn a_gap_that_somebody_knows_of_stays_and_is_good_until_its_end() {
    let cut = catalog(vec![backup(1, 2)], &[(1, 1..=5), (1, 8..=9)], &[]);
    let both = [known(6, 6, 300), known(7, 7, 250)];
    for (what, known, now, until) in [
        ("nobody", vec![], 200, None),
        ("all of it", vec![known(6, 7, 300)], 200, Some(300)),
        ("more than it", vec![known(5, 9, 300)], 200, Some(300)),
        ("it ended", vec![known(6, 7, 300)], 300, None),
        ("a part of it", vec![known(6, 6, 300)], 200, None),
        ("its parts", both.to_vec(), 200, Some(250)),
        (
            "again, for longer",
            vec![known(6, 7, 300), known(6, 7, 400)],
            200,
            Some(400),
        ),
    ] {
        let verified = cut.verify(&known, at(now));
        assert_eq!(verified.gaps.len(), 1, "{what}");
        let acknowledged = verified.gaps[0].acknowledged.as_ref();
        assert_eq!(acknowledged.map(|one| one.until), until.map(at), "{what}");
        assert_eq!(verified.is_good(), until.is_some(), "{what}");
    }
    for (first, last, lacks) in [(6, 7, true), (7, 7, true), (5, 6, false), (7, 6, false)] {
        assert_eq!(
            cut.covers_gap_of(&known(first, last, 300)),
            lacks,
            "{first} to {last}"
        );
    }
    // No backup needs segment 1, and a standby may wait for it once the primary has passed it.
    let mut early = catalog(vec![backup(1, 2)], &[(1, 2..=9)], &[]);
    assert!(!early.covers_gap_of(&known(1, 1, 300)));
    early.wal.end = End::Marked(WalSegment {
        timeline: Timeline(1),
        number: 9,
    });
    assert!(early.covers_gap_of(&known(1, 1, 300)) && !early.covers_gap_of(&known(1, 2, 300)));
    assert!(!early.covers_gap_of(&known(10, 10, 300)));
    let odd = Acknowledgement::new("s3://b/p", ("x", "x"), ("a", "w"), at(1), at(2));
    assert!(!cut.covers_gap_of(&odd));
}

#[test]
fn what_else_is_wrong_is_told() {
    let mut damaged = backup(1, 3);
    (damaged.sentinel, damaged.damage) = (None, Some("cut".to_owned()));
    let mut stranger = backup(1, 3);
    let sentinel = stranger.sentinel.as_mut();
    sentinel
        .map(|sentinel| sentinel.system_identifier = Some(8))
        .unwrap();
    for (what, backups, segments, histories, words) in [
        (
            "none",
            vec![],
            vec![(1, 1..=9)],
            vec![],
            "there is no base backup",
        ),
        (
            "damage",
            vec![backup(1, 2), damaged],
            vec![(1, 1..=9)],
            vec![],
            "damaged: cut",
        ),
        (
            "two clusters",
            vec![backup(1, 2), stranger],
            vec![(1, 1..=9)],
            vec![],
            "7 and 8",
        ),
        (
            "no history",
            vec![backup(1, 2)],
            vec![(1, 1..=6), (2, 7..=8)],
            vec![],
            "timeline 2 has WAL and no history",
        ),
        (
            "an unreadable history",
            vec![backup(1, 2)],
            vec![(1, 1..=6), (2, 7..=8)],
            vec![(2, "nonsense")],
            "the history of timeline 2 cannot be read",
        ),
    ] {
        let verified = catalog(backups, &segments, &histories).verify(&[], at(200));
        assert!(!verified.is_good(), "{what}");
        let [problem] = verified.problems.as_slice() else {
            panic!("{what}: {verified:?}");
        };
        assert!(problem.contains(words), "{what}: {problem}");
    }
    // No backup needs it, each that is on the timeline before would: it is named once.
    for backups in [vec![backup(2, 8)], vec![backup(1, 2), backup(1, 3)]] {
        let mut catalog = catalog(backups, &[(1, 1..=6), (2, 7..=9)], &[]);
        let empty = Err(EMPTY_HISTORY.to_owned());
        catalog.wal.histories.insert(Timeline(2), empty);
        let verified = catalog.verify(&[], at(200));
        let [problem] = verified.problems.as_slice() else {
            panic!("{verified:?}");
        };
        assert!(problem.contains("the history of timeline 2"), "{problem}");
        assert!(catalog.wanted().1.contains(&Timeline(2)));
    }
    let mut unfinished = backup(1, 3);
    (unfinished.sentinel, unfinished.finished_at) = (None, None);
    let verified = catalog(vec![backup(1, 2), unfinished], &[(1, 1..=9)], &[]).verify(&[], at(200));
    assert!(verified.is_good() && verified.unfinished.len() == 1);
}

#[test]
fn what_is_stored_is_listed_in_ranges() {
    let catalog = catalog(vec![], &[(1, 1..=5), (1, 8..=8), (2, 8..=9)], &[]);
    let ranges = catalog.verify(&[], at(200)).wal;
    let shown: Vec<_> = ranges
        .iter()
        .map(|range| (range.first.as_str(), range.segments, range.bytes))
        .collect();
    let names = [name(1, 1), name(1, 8), name(2, 8)];
    assert_eq!(
        shown,
        [
            (&*names[0], 5, 500),
            (&*names[1], 1, 100),
            (&*names[2], 2, 200)
        ]
    );
}

#[test]
fn a_backup_has_a_window_on_each_timeline_that_left_its_own_after_it() {
    let switch = "1\t0/70000A0\tr\n";
    let catalog = catalog(
        vec![backup(1, 2), backup(1, 8)],
        &[(1, 1..=9), (2, 7..=8)],
        &[(2, switch)],
    );
    let windows = |at: usize| -> Vec<_> {
        let windows = catalog.windows(&catalog.backups[at]).into_iter();
        windows
            .map(|window| (window.timeline.0, window.to_lsn.to_string()))
            .collect()
    };
    assert_eq!(
        windows(0),
        [(1, "0/A000000".to_owned()), (2, "0/9000000".to_owned())]
    );
    assert_eq!(windows(1), [(1, "0/A000000".to_owned())]);
}

fn marked(timeline: u32, number: u64) -> End {
    let timeline = Timeline(timeline);
    End::Marked(WalSegment { timeline, number })
}

#[test]
fn what_was_archived_last_and_is_not_there_is_a_gap_at_the_end() {
    let switch = "1\t0/70000A0\tr\n";
    for (what, segments, histories, mark, expected) in [
        ("there", vec![(1, 1..=9)], vec![], marked(1, 9), vec![]),
        ("behind", vec![(1, 1..=9)], vec![], marked(1, 5), vec![]),
        (
            "lost",
            vec![(1, 1..=7)],
            vec![],
            marked(1, 9),
            vec![(format!("{} to {}", name(1, 8), name(1, 9)), true)],
        ),
        (
            "lost behind another hole",
            vec![(1, 1..=3), (1, 5..=8)],
            vec![],
            marked(1, 9),
            vec![(name(1, 4), false), (name(1, 9), true)],
        ),
        (
            "the timeline was left before the mark",
            vec![(1, 1..=6), (2, 7..=7)],
            vec![(2, switch)],
            marked(1, 9),
            vec![],
        ),
        (
            "nothing of the new timeline is there",
            vec![(1, 1..=6)],
            vec![(2, switch)],
            marked(2, 7),
            vec![(name(2, 7), true)],
        ),
    ] {
        let mut catalog = catalog(vec![backup(1, 2)], &segments, &histories);
        catalog.wal.end = mark;
        let verified = catalog.verify(&[], at(200));
        let gaps = verified.gaps.iter();
        let gaps: Vec<_> = gaps.map(|gap| (gap.named(), gap.at_end)).collect();
        assert_eq!(gaps, expected, "{what}");
        assert_eq!(verified.is_good(), expected.is_empty(), "{what}");
        let lost = expected.last().is_some_and(|(_, at_end)| *at_end);
        assert_eq!(
            catalog.lost_end().map(|lost| lost.is_some()),
            Ok(lost),
            "{what}"
        );
        assert_eq!(verified.end_unverified, None, "{what}");
    }
    // Its timeline is not even begun in the bucket.
    let mut unknown = catalog(vec![backup(1, 2)], &[(1, 1..=6)], &[]);
    unknown.wal.end = marked(2, 7);
    let verified = unknown.verify(&[], at(200));
    assert!(verified.problems[0].contains("timeline 2"), "{verified:?}");
    // A backup that was taken after the loss needs nothing of it.
    let mut later = catalog(
        vec![backup(1, 2), backup(1, 12)],
        &[(1, 1..=9), (1, 12..=12)],
        &[],
    );
    later.wal.end = marked(1, 11);
    assert_eq!(later.verify(&[], at(200)).gaps[0].cuts_off.len(), 1);
    // What is known to be lost is no alarm, and stays.
    let mut known_loss = catalog(vec![backup(1, 2)], &[(1, 1..=7)], &[]);
    known_loss.wal.end = marked(1, 9);
    assert!(known_loss.covers_gap_of(&known(8, 9, 300)));
    assert!(known_loss.verify(&[known(8, 9, 300)], at(200)).is_good());
}

#[test]
fn a_mark_of_another_cluster_or_repository_says_nothing() {
    let repository = Location {
        bucket: "b".to_owned(),
        prefix: "p".to_owned(),
    };
    let mark = |identifier: u64, repository: &str, segment: &str| {
        let to = (Timeline(1), segment, Lsn(0));
        Ok(HighWater::new((identifier, repository), to, "db1", at(100)))
    };
    for (what, mark, words) in [
        ("its own", mark(7, "s3://b/p", &name(1, 9)), None),
        (
            "another cluster's",
            mark(8, "s3://b/p", &name(1, 9)),
            Some("system identifier 8"),
        ),
        (
            "another prefix's",
            mark(7, "s3://b/q", &name(1, 9)),
            Some("s3://b/q"),
        ),
        ("no segment's", mark(7, "s3://b/p", "x"), Some("x")),
        (
            "none",
            Err("nobody set one".to_owned()),
            Some("nobody set one"),
        ),
    ] {
        let mut catalog = catalog(vec![backup(1, 2)], &[(1, 1..=7)], &[]);
        catalog.apply_high_water(mark, &repository);
        let verified = catalog.verify(&[], at(200));
        assert_eq!(verified.is_good(), words.is_some(), "{what}");
        let reason = verified.end_unverified;
        assert_eq!(reason.is_some(), words.is_some(), "{what}");
        assert!(
            words.is_none_or(|words| reason.unwrap().contains(words)),
            "{what}"
        );
    }
}
