//! What is kept of a listing, and where the next one begins.

use super::{Backup, *};
use crate::model::{Lsn, TimelineHistory};

fn object(name: &str, size: u64) -> Object {
    Object {
        key: name.to_owned(),
        size,
        last_modified: Timestamp::UNIX_EPOCH,
        tag: "\"e\"".to_owned(),
    }
}

fn snapshot(names: &[&str]) -> KeptCatalog {
    let mut wal = Wal::default();
    for name in names {
        take(&mut wal, name, &object(name, 1 << 20), 16 << 20);
    }
    let history: Result<TimelineHistory, String> = Ok("1\t0/3000000\tr\n".parse().unwrap());
    wal.histories.insert(Timeline(2), history);
    wal.histories.insert(Timeline(3), Err("cut".to_owned()));
    let more = r#","SystemIdentifier":18446744073709551615,"DeltaFrom":"base_x""#;
    let backup = Backup::sample(1, 0, more);
    KeptCatalog {
        v: VERSION,
        listed_at: Timestamp::UNIX_EPOCH,
        catalog: Catalog {
            backups: vec![backup],
            wal,
        },
        sized_by: SizedBy::Header,
        versions: ObjectVersions::from([(
            "base_000000010000000000000000".to_owned(),
            "t".to_owned(),
        )]),
    }
}

#[test]
fn a_snapshot_is_read_as_it_was_kept_and_another_versions_is_none() {
    let kept = snapshot(&[
        "000000010000000000000000.lz4",
        "000000020000000000000003.lz4",
    ]);
    let json = kept.to_json();
    let read = KeptCatalog::of_json(&json).unwrap();
    assert_eq!(read.to_json(), json);
    assert_eq!(read.catalog.backups, kept.catalog.backups);
    let switched = read.catalog.wal.histories[&Timeline(2)].as_ref().unwrap();
    assert_eq!(switched.switched_from(Timeline(1)), Some(Lsn(0x300_0000)));
    for damaged in [
        "",
        "{}",
        &json[..json.len() / 2],
        &json.replacen("\"v\":4", "\"v\":5", 1),
    ] {
        assert!(KeptCatalog::of_json(damaged).is_none(), "{damaged:?}");
    }
}

#[test]
fn a_segment_that_is_too_small_to_be_whole_is_missing() {
    let name = "000000010000000000000003";
    let (whole, small, empty) = (70_000, 100, 0);
    for (what, objects, sized, is_there, cut) in [
        ("whole", &[(".lz4", whole)][..], true, true, None),
        ("empty", &[(".lz4", empty)], true, false, Some(empty)),
        (
            "cut to 100 bytes",
            &[(".lz4", small)],
            true,
            false,
            Some(small),
        ),
        (
            "the same as zstd",
            &[(".zst", small)],
            true,
            false,
            Some(small),
        ),
        (
            "the same without compression",
            &[("", whole)],
            true,
            false,
            Some(whole),
        ),
        ("of an unknown size", &[(".lz4", small)], false, true, None),
        (
            "empty, of an unknown size",
            &[(".lz4", empty)],
            false,
            false,
            Some(empty),
        ),
        (
            "cut, and whole",
            &[(".lz4", small), (".zst", whole)],
            true,
            true,
            None,
        ),
        (
            "whole, and cut",
            &[(".lz4", whole), (".zst", small)],
            true,
            true,
            None,
        ),
    ] {
        let mut wal = Wal::default();
        let bytes = if sized { wal.size.bytes() } else { 1 };
        for (suffix, size) in objects {
            let key = format!("{name}{suffix}");
            take(&mut wal, &key, &object(&key, *size), bytes);
        }
        let segment = WalSegment::parse(name, wal.size).unwrap();
        assert_eq!(wal.get(segment).is_some(), is_there, "{what}");
        assert_eq!(wal.cut.get(name).copied(), cut, "{what}");
    }
}

#[test]
fn a_million_segments_are_one_run_and_a_short_text() {
    let mut wal = Wal::default();
    for number in 0..1_000_000 {
        let timeline = Timeline(1);
        let name = WalSegment { timeline, number }.name(wal.size);
        take(&mut wal, &name, &object(&name, 1 << 20), 1 << 20);
    }
    assert_eq!(wal.runs[&Timeline(1)].len(), 1);
    assert!(serde_json::to_string(&wal).unwrap().len() < 300);
}

#[test]
fn a_listing_around_a_hole_begins_and_ends_where_the_hole_does() {
    let snapshot = snapshot(&[]);
    for (first, last, after, until) in [
        (0, 0, "00000001", "000000010000000000000000/"),
        (
            1,
            3,
            "000000010000000000000000/",
            "000000010000000000000003/",
        ),
        (
            256,
            256,
            "0000000100000000000000FF/",
            "000000010000000100000000/",
        ),
    ] {
        let range = snapshot.around(SegmentRange::of(Timeline(1), first, last));
        assert_eq!(range, (Some(after.to_owned()), Some(until.to_owned())));
    }
    // All names of a segment lie on one side, and its history on the other side of a timeline's first.
    let past = "000000010000000000000003/";
    for (name, behind) in [
        ("000000010000000000000003", false),
        ("000000010000000000000003.lz4", false),
        ("000000010000000000000003.00000028.backup.lz4", false),
        ("000000010000000000000003.partial.lz4", false),
        ("000000010000000000000004", true),
        ("00000002.history", true),
    ] {
        assert_eq!(name > past, behind, "{name}");
    }
    let (after, until) = around_history(Timeline(2));
    let (after, until) = (after.unwrap(), until.unwrap());
    for (name, inside) in [
        ("0000000100000000000000FF", false),
        ("00000002.history", true),
        ("00000002.history.lz4", true),
        ("000000020000000000000001", false),
    ] {
        assert_eq!(*name > *after && *name <= *until, inside, "{name}");
    }
}

#[test]
fn all_is_listed_again_after_a_day_and_when_the_clock_went_back() {
    for (seconds, caught_up) in [(0, true), (86_399, true), (86_400, false), (-1, false)] {
        let now = Timestamp::from_second(seconds).unwrap();
        assert_eq!(snapshot(&[]).may_be_caught_up(now), caught_up, "{seconds}");
    }
}
