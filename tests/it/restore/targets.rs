//! Targets at the ends of segments, what looks like a target, and gaps that are uploads under way.

use serde_json::{Value, json};

use super::{REPOSITORY, TARGET, archive_all, ask_restored, forget, restore};
use crate::harness::{Lab, Program, eventually};

fn restored_ids(lab: &Lab, until: &str) -> String {
    let restored = lab.xdb_json(&["restore", "--target-dir", TARGET, "--until", until]);
    assert_eq!(restored["reason"], Value::Null, "{until}: {restored}");
    let ids = ask_restored(lab, "SELECT array_agg(id) FROM marker");
    forget(lab);
    ids
}

fn tested(lab: &Lab, until: &str, ids: &str) {
    let rows = format!("SELECT array_agg(id) = '{ids}' FROM public.marker");
    let tested = lab.xdb_json(&["restore-test", "--until", until, "--sql", &rows]);
    assert_eq!(tested["passed"], json!(true), "{until}: {tested}");
}

#[test]
fn the_end_of_a_switched_segment_is_a_target_and_what_looks_like_a_time_is_no_name() {
    let lab = Lab::start_quiet(Program::Walrus);
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    lab.xdb_json(&["backup", "push"]);
    lab.sql("INSERT INTO marker VALUES (1)");
    let switched = lab.sql("SELECT pg_switch_wal()");
    let segment = lab.sql(&format!("SELECT pg_walfile_name('{switched}')"));
    eventually("the segment is stored", super::SOON, || {
        let listed = lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"));
        (listed.code == 0).then_some(())
    });
    let size = "16777216";
    let ends = |lsn: &str, more: u32| {
        lab.sql(&format!(
            "SELECT '0/0'::pg_lsn + (ceil(('{lsn}'::pg_lsn - '0/0') / {size}) * {size} + {more})"
        ))
    };
    let (end, header) = (ends(&switched, 0), ends(&switched, 40));
    assert_ne!(end, switched, "the rest of the segment is empty");

    // Nothing follows in the archive but an empty segment's end.
    assert_eq!(restored_ids(&lab, &switched), "{1}");
    tested(&lab, &switched, "{1}");
    let last = lab.sql("SELECT pg_switch_wal()");
    for id in 2..=3 {
        lab.sql(&format!("INSERT INTO marker VALUES ({id})"));
        archive_all(&lab);
    }
    for until in [&switched, &end, &header] {
        tested(&lab, until, "{1}");
    }
    assert_eq!(restored_ids(&lab, &switched), "{1}");
    assert_eq!(restored_ids(&lab, &last), "{1}");
    // The end of the archive, and the page header behind it.
    let header = lab.sql(&format!(
        "SELECT '0/0'::pg_lsn + (floor((pg_current_wal_lsn() - '0/0') / {size}) * {size} + 40)"
    ));
    assert_eq!(restored_ids(&lab, &header), "{1,2,3}");

    for until in [
        "10 minutes ago",
        "yesterday",
        "-1h",
        "1795713562",
        "Fri Nov 27 10:42:00 UTC 2026",
        "2026-02-30 10:00:00Z",
        "20261121T094260Z",
        "10:42",
    ] {
        let refused = restore(&lab, &["--plan", "--until", until]);
        refused.failed(2, "--until: ");
        let tested = lab.xdb(&["restore-test", "--until", until]);
        tested.failed(2, "--until: ");
    }
    // A slip is no name either: the archive holds no such restore point.
    restore(&lab, &["--plan", "--until", "nobody_made_it"])
        .failed(1, "the restore point nobody_made_it is not in the WAL");
    // A name that is said to be one is one, whatever it looks like.
    lab.sql("INSERT INTO marker VALUES (4)");
    lab.sql("SELECT pg_create_restore_point('yesterday')");
    lab.sql("INSERT INTO marker VALUES (5)");
    archive_all(&lab);
    assert_eq!(restored_ids(&lab, "name:yesterday"), "{1,2,3,4}");
    lab.sql("SELECT pg_create_restore_point('bare')");
    archive_all(&lab);
    let planned = restore(&lab, &["--plan", "--until", "bare"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_segment_that_is_listed_before_the_one_before_is_no_gap() {
    let lab = Lab::start_quiet(Program::Walrus);
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    lab.xdb_json(&["backup", "push"]);
    lab.sql("INSERT INTO marker VALUES (1)");
    let late = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    archive_all(&lab);
    lab.sql("INSERT INTO marker VALUES (2)");
    let last = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    archive_all(&lab);
    let object = format!("{REPOSITORY}/wal_005/{late}.lz4");
    let hide = || lab.ok(&format!("mv {object} /srv/late"));
    for arguments in [
        &["restore", "--target-dir", TARGET, "--plan", "--json"][..],
        &["restore-test", "--json"],
    ] {
        hide();
        // It is not there at the first look, and there at a later one.
        let listing = lab.sh_as_postgres(&format!("xdb archive verify; ls {object}"));
        assert_ne!(listing.code, 0, "{listing:?}");
        lab.ok(&format!(
            "setsid sh -c 'sleep 4; mv /srv/late {object}' >/dev/null 2>&1 &"
        ));
        let output = lab.xdb(arguments);
        assert!(output.code == 0, "{arguments:?}: {output:?}");
        let json: Value = serde_json::from_str(&output.stdout).expect("JSON");
        if let Some(wal) = json.get("wal") {
            assert_eq!(wal["last"], json!(last), "{json}");
        } else {
            assert_eq!(json["passed"], json!(true), "{json}");
        }
        lab.ok(&format!("ls {object}"));
    }

    // One that stays away is missing, however many come in behind it: the server says that it was archived.
    hide();
    let listing = lab.sh_as_postgres(&format!("ls {object}"));
    assert_ne!(listing.code, 0, "{listing:?}");
    let newest = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.ok(
        "setsid sh -c 'for i in $(seq 30); do sleep 2; runuser -u postgres -- psql -Xqc \"SELECT pg_logical_emit_message(true, chr(120), chr(120))\" -c \"SELECT pg_switch_wal()\"; done' >/dev/null 2>&1 &",
    );
    let tested = lab.xdb(&["restore-test", "--level", "start"]);
    tested.failed(1, &format!("WAL is missing: {late}; nothing after it"));
    let all = format!("{}{}", tested.stdout, tested.stderr);
    assert!(!all.contains("still be uploading"), "{all}");
    lab.ok(&format!("ls {REPOSITORY}/wal_005/{newest}.lz4"));
}
