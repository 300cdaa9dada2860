//! Plans over sets made by hand. A set's number is its day in 2026; `now` is day 101 at noon.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::*;
use crate::dump::{DumpSet, SetTest, StoredObject};
use crate::repository::BegunDump;
use crate::storage::{Location, Object};

const NOTHING: Retention = Retention {
    window_days: Some(0),
    fulls: 1,
    daily: 0,
    weekly: 0,
    monthly: 0,
    yearly: 0,
};
const OWN: u64 = 7;

fn at(day: i64) -> Timestamp {
    let begin = date(2026, 1, 1).to_zoned(TimeZone::UTC).unwrap();
    begin.timestamp() + SignedDuration::from_hours(24 * (day - 1) + 12)
}

fn name(day: i64, node: &str) -> String {
    SetName::new(at(day), node).to_string()
}

fn object(key: String, modified: Timestamp) -> Object {
    Object {
        key,
        size: 5,
        last_modified: modified,
        tag: String::new(),
    }
}

/// A set of `day` by `node` whose manifest is of `cluster`, if it has one.
fn set(day: i64, node: &str, status: Status, cluster: Option<(&str, u64)>) -> SeenSet {
    let set = name(day, node);
    let mut listed = Listed::sample(&set, status);
    if status != Status::Complete {
        listed.reason = Some("it is bad".to_owned());
    }
    let stored = StoredObject {
        key: format!("main/{set}/globals.sql"),
        bytes: 5,
        sha256: String::new(),
        encryption: None,
    };
    listed.manifest = cluster.map(|(cluster, system_identifier)| {
        let json = serde_json::json!({
            "v": 1, "set": set, "cluster": cluster, "node": node, "in_recovery": true,
            "system_identifier": system_identifier, "server_version": 170_011, "started_at": at(day),
            "finished_at": at(day), "databases": [], "globals": stored, "partial": false,
        });
        serde_json::from_value::<DumpSet>(json).unwrap()
    });
    SeenSet {
        name: SetName::parse(&set).unwrap(),
        listed,
        objects: vec![object(stored.key, at(day))],
    }
}

fn own(day: i64) -> SeenSet {
    set(day, "db2", Status::Complete, Some(("main", OWN)))
}

fn bad(day: i64, status: Status) -> SeenSet {
    set(day, "db2", status, Some(("main", OWN)))
}

fn tested(set: SeenSet, passed: bool) -> SeenSet {
    let test = SetTest {
        at: at(100),
        node: "db2".to_owned(),
        passed,
        reason: None,
    };
    let listed = Listed {
        tested: Some(test),
        ..set.listed
    };
    SeenSet { listed, ..set }
}

fn partial(day: i64) -> SeenSet {
    let set = own(day);
    let listed = Listed {
        partial: true,
        ..set.listed
    };
    SeenSet { listed, ..set }
}

fn seen(sets: Vec<SeenSet>) -> Seen {
    Seen {
        now: at(101),
        location: Location {
            bucket: "b".to_owned(),
            prefix: "main".to_owned(),
        },
        cluster: "main".to_owned(),
        system_identifier: OWN,
        hostname: "db1".to_owned(),
        sets,
        others: Vec::new(),
        uploads: Vec::new(),
        begun: None,
        deleting: BTreeSet::new(),
    }
}

/// The days of the sets that are deleted, and each set's reason.
fn planned(seen: &Seen, policy: Retention) -> (Vec<String>, String) {
    let plan = plan_dumps(seen, policy);
    let deleted = plan.deleted().map(|set| set.set.clone()).collect();
    let reasons = plan
        .sets
        .iter()
        .map(|set| format!("{}: {}", set.set, set.reason));
    (deleted, reasons.collect::<Vec<_>>().join("\n"))
}

#[test]
fn what_is_kept_and_why() {
    let window = Retention {
        window_days: Some(10),
        ..NOTHING
    };
    let monthly = Retention {
        monthly: 2,
        ..NOTHING
    };
    for (what, sets, policy, deleted, words) in [
        (
            "the newest",
            vec![own(1), own(2)],
            NOTHING,
            vec![1],
            "the newest complete dump",
        ),
        (
            "the newest proven",
            vec![tested(own(1), true), tested(own(2), true), own(3), own(4)],
            NOTHING,
            vec![1, 3],
            "the newest that a dump test proved",
        ),
        (
            "the window and what it begins after",
            vec![own(1), own(80), own(95), own(100)],
            window,
            vec![1],
            "the window of 10 days begins after it",
        ),
        (
            "keepers",
            vec![own(10), own(20), own(40), own(50)],
            monthly,
            vec![10, 40],
            "the last full dump of the month 2026-01",
        ),
        (
            "a newer partial one does not count",
            vec![own(1), own(2), partial(3)],
            NOTHING,
            vec![1],
            "does not count (partial); not older than the newest 1 full dumps",
        ),
        (
            "an old partial one goes",
            vec![partial(1), own(2), own(3)],
            NOTHING,
            vec![1, 2],
            "older than the window of 0 days and the newest 1 full dumps; does not count (partial)",
        ),
        (
            "a damaged newest one does not count",
            vec![own(1), own(2), bad(3, Status::Damaged)],
            NOTHING,
            vec![1],
            "does not count (damaged: it is bad)",
        ),
        (
            "nor one whose test failed",
            vec![own(1), own(2), bad(3, Status::Disproved)],
            NOTHING,
            vec![1],
            "does not count (disproved: it is bad)",
        ),
        (
            "nothing counts",
            vec![
                bad(1, Status::Damaged),
                partial(2),
                bad(3, Status::Disproved),
            ],
            NOTHING,
            vec![],
            "no complete dump of every database counts, so nothing is deleted",
        ),
        (
            "of the future",
            vec![own(1), own(2), own(200)],
            NOTHING,
            vec![1],
            "its time lies in the future",
        ),
        (
            "all of the future: this node's clock is behind",
            vec![own(150), own(200)],
            NOTHING,
            vec![],
            "no complete dump of every database counts",
        ),
    ] {
        let (found, reasons) = planned(&seen(sets), policy);
        let deleted: Vec<String> = deleted.into_iter().map(|day| name(day, "db2")).collect();
        assert_eq!(found, deleted, "{what}: {reasons}");
        assert!(reasons.contains(words), "{what}: {reasons}");
    }
}

#[test]
fn after_a_dump_that_failed_nothing_goes() {
    let mut seen = seen(vec![own(1), own(2), own(3)]);
    let begun = |day| {
        Some(BegunDump::new(
            "s3://b/main",
            &name(day, "db2"),
            "db2",
            at(day),
        ))
    };
    seen.begun = begun(3);
    assert_eq!(planned(&seen, NOTHING).0.len(), 2);
    seen.begun = begun(4);
    let (deleted, reasons) = planned(&seen, NOTHING);
    assert_eq!(deleted, Vec::<String>::new());
    assert!(reasons.contains("the last dump failed"), "{reasons}");
    // What of it is there is no dump, and an old upload stays, too.
    seen.sets.push(set(4, "db2", Status::Incomplete, None));
    let key = format!("main/{}/app.dump", name(1, "db2"));
    seen.uploads.push(upload(&key, 1));
    let plan = plan_dumps(&seen, NOTHING);
    assert_eq!((plan.deleted().count(), plan.aborted().count()), (0, 0));
    assert!(plan.held.is_some());
}

#[test]
fn an_unfinished_set_goes_after_a_day_where_it_is_this_clusters() {
    let unfinished = |day, node: &str| set(day, node, Status::Incomplete, None);
    let day = 90;
    for (what, node, others, modified, begun, deleted) in [
        (
            "of a node of this cluster",
            "db2",
            vec![own(80)],
            day,
            None,
            true,
        ),
        ("of this node", "db1", vec![own(80)], day, None, true),
        ("still written", "db2", vec![own(80)], 101, None, false),
        ("of an unknown node", "db9", vec![own(80)], day, None, false),
        (
            "of the last dump",
            "db9",
            vec![own(80)],
            day,
            Some(80),
            true,
        ),
        (
            "of a node that two clusters have",
            "db2",
            vec![
                own(80),
                set(81, "db2", Status::Complete, Some(("other", 8))),
            ],
            day,
            None,
            false,
        ),
    ] {
        let mut it = unfinished(day, node);
        it.objects[0].last_modified = at(modified);
        let mut sets = others;
        sets.push(it);
        sets.push(own(100));
        let mut seen = seen(sets);
        if begun.is_some() {
            seen.deleting = BTreeSet::from([name(day, node)]);
        }
        let (found, reasons) = planned(&seen, NOTHING);
        assert_eq!(
            found.contains(&name(day, node)),
            deleted,
            "{what}: {reasons}"
        );
    }
}

#[test]
fn what_is_not_this_clusters_is_named_and_left_alone() {
    let mut copy = own(5);
    copy.listed.manifest.as_mut().unwrap().set = name(6, "db2");
    let mut unreadable = bad(6, Status::Damaged);
    unreadable.listed.manifest = None;
    let mut seen = seen(vec![
        set(1, "db2", Status::Complete, Some(("other", OWN))),
        set(2, "db2", Status::Complete, Some(("main", 8))),
        set(3, "db9", Status::Incomplete, None),
        copy,
        unreadable,
        own(99),
        own(100),
    ]);
    for path in [
        "notes.txt",
        "other/20260101T000000.000Z-db2/app.dump",
        "other/x",
    ] {
        seen.others.push(object(format!("main/{path}"), at(1)));
    }
    let ours = format!("main/{}/app.dump", name(99, "db2"));
    let theirs = format!("main/{}/app.dump", name(2, "db2"));
    seen.uploads = vec![
        upload(&ours, 98),
        upload(&format!("{ours}2"), 101),
        upload(&theirs, 1),
        upload("main/notes.txt", 1),
    ];
    let plan = plan_dumps(&seen, NOTHING);
    let deleted: Vec<&str> = plan.deleted().map(|set| &*set.set).collect();
    assert_eq!(deleted, [name(99, "db2")]);
    assert_eq!(plan.sets.len(), 2, "{plan:?}");
    let aborted: Vec<&str> = plan.aborted().map(|upload| &*upload.key).collect();
    assert_eq!(aborted, [ours]);
    for (name, words, objects) in [
        (
            format!("{}/", name(1, "db2")),
            "of the cluster \"other\"",
            1,
        ),
        (
            format!("{}/", name(2, "db2")),
            "its system identifier is 8",
            1,
        ),
        (
            format!("{}/", name(3, "db9")),
            "no finished dump of a node db9",
            1,
        ),
        (
            format!("{}/", name(5, "db2")),
            "its manifest is of the set",
            1,
        ),
        (format!("{}/", name(6, "db2")), "whose it is is unknown", 1),
        ("notes.txt".to_owned(), "it is no dump set", 1),
        ("other/".to_owned(), "it is no dump set", 2),
        (
            format!("{}/app.dump", name(2, "db2")),
            "an unfinished upload: it is of another cluster",
            0,
        ),
        (
            "notes.txt".to_owned(),
            "an unfinished upload: it is of no dump set",
            0,
        ),
    ] {
        let mut named = plan.foreign.iter().filter(|it| it.name == name);
        assert!(
            named.any(|it| it.reason.contains(words) && it.objects == objects),
            "{name}, {words}: {plan:?}"
        );
    }
    assert_eq!(plan.foreign.len(), 9);
}

fn upload(key: &str, day: i64) -> UnfinishedUpload {
    UnfinishedUpload {
        key: key.to_owned(),
        upload_id: key.to_owned(),
        initiated: at(day),
    }
}
