//! Sets judged by their objects and manifests.

use super::*;
use crate::dump::{Contents, DumpedDatabase, StoredObject};

fn judged(objects: &[(&str, u64)], manifest: Option<&str>) -> (Status, String) {
    let set = SetName::parse("20260513T101429.123Z-db2").unwrap();
    let objects: Vec<Object> = objects
        .iter()
        .map(|(key, size)| Object {
            key: (*key).to_owned(),
            size: *size,
            last_modified: Timestamp::UNIX_EPOCH,
            tag: String::new(),
        })
        .collect();
    let manifest = manifest.map(|text| read(text.as_bytes()));
    let listed = judge(&set, &objects, manifest, &mut LastFull::default());
    assert_eq!(listed.started_at, set.begun_at());
    (listed.status, listed.reason.unwrap_or_default())
}

#[test]
fn a_set_is_judged_by_its_manifest_and_its_objects() {
    let manifest = r#"{"v": 1, "set": "s", "cluster": "main", "node": "db2", "in_recovery": false,
        "system_identifier": 7, "server_version": 170011,
        "started_at": "2026-05-13T10:14:29Z", "finished_at": "2026-05-13T10:14:30Z", "databases": [],
        "globals": {"key": "p/globals.sql", "bytes": 5, "sha256": "ab"}}"#;
    let newer = manifest.replace(r#""v": 1"#, r#""v": 4"#);
    let globals = [("p/globals.sql", 5)];
    for (objects, manifest, status, reason) in [
        (&globals[..], Some(manifest), Status::Complete, ""),
        (&globals, None, Status::Incomplete, "no manifest"),
        (&globals, Some("{"), Status::Damaged, "cannot be read"),
        (&globals, Some(&newer), Status::Unknown, "of version 4"),
        (
            &[],
            Some(manifest),
            Status::Damaged,
            "globals.sql is missing",
        ),
        (
            &[("p/globals.sql", 4)],
            Some(manifest),
            Status::Damaged,
            "has 4 bytes, its manifest says 5",
        ),
    ] {
        let judged = judged(objects, manifest);
        assert_eq!(judged.0, status, "{judged:?}");
        assert!(judged.1.contains(reason), "{judged:?}");
    }
}

#[test]
fn a_partial_set_is_known_by_its_mark_or_by_what_it_lacks() {
    let mut last = LastFull::default();
    for (cluster, partial, databases, expected) in [
        (7, None, &["a", "b"][..], false),
        // Written by an older xdb with --database.
        (7, None, &["b"], true),
        (7, None, &["a", "b", "c"], false),
        (7, Some(true), &["c"], true),
        // b was dropped: the mark says that nothing is missing.
        (7, Some(false), &["a", "c"], false),
        (7, None, &["a", "c"], false),
        (7, None, &["d"], true),
        // Another cluster's.
        (8, None, &["d"], false),
    ] {
        let databases = databases.iter().map(|name| DumpedDatabase {
            name: (*name).to_owned(),
            dump: object(),
            snapshot_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            database_bytes: None,
            rows: BTreeMap::new(),
            contents: Contents::default(),
        });
        let set = DumpSet {
            v: 1,
            set: "s".to_owned(),
            cluster: "main".to_owned(),
            node: "db2".to_owned(),
            in_recovery: true,
            system_identifier: cluster,
            server_version: 170_011,
            server_version_text: None,
            pg_dump_version: None,
            superuser: None,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            databases: databases.collect(),
            globals: object(),
            partial,
            left_out: Vec::new(),
        };
        assert_eq!(last.judge(&set), expected, "{set:?}");
    }
}

fn object() -> StoredObject {
    StoredObject {
        key: "k".to_owned(),
        bytes: 0,
        sha256: String::new(),
        encryption: None,
    }
}
