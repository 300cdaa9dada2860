//! Restores that are cut, killed, or meet a full disk.

use serde_json::json;

use super::super::{SOON, put_back, set};
use super::{
    databases, drop_database, in_database, nothing_is_left, own_databases, restore, restored,
};
use crate::harness::{Background, Lab, eventually};

pub(super) fn each_leaves_nothing_under_any_name(lab: &Lab) {
    let before = databases(lab);
    s3_is_cut_in_every_tenth(lab);
    programs_and_sessions_are_ended(lab);
    a_killed_restore_is_dropped_by_the_next(lab);
    the_disk_runs_full(lab);
    put_back(lab);
    nothing_is_left(lab);
    assert_eq!(databases(lab), before);
}

/// Begins a restore that is being read from S3 for 20 s.
fn in_the_middle(lab: &Lab) -> Background<'_> {
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 100}}),
    );
    let restore = lab.xdb_in_background(&["dump", "restore", "z_slow"]);
    eventually("pg_restore works", SOON, || {
        let works = "SELECT count(*) FROM pg_stat_activity WHERE datname ~ '^xdb_restore_' AND application_name = 'xdb pg_restore'";
        (lab.sql(works) == "1").then_some(())
    });
    assert!(!databases(lab).contains("z_slow_restored"));
    restore
}

fn ended(lab: &Lab, running: &Background<'_>, code: i32, words: &str) {
    let output = running.wait(SOON);
    output.failed(code, words);
    lab.remove_toxic("slow");
    nothing_is_left(lab);
    assert!(!databases(lab).contains("z_slow_restored"));
}

fn s3_is_cut_in_every_tenth(lab: &Lab) {
    let size: u64 = lab
        .ok(&format!(
            "stat -c %s /srv/s3/pgdump-test/main/{}/z_slow.dump",
            set(lab)
        ))
        .parse()
        .unwrap();
    for tenth in 1..=10 {
        let attributes = json!({"bytes": size * tenth / 10});
        lab.toxic(
            "cut",
            json!({"type": "limit_data", "stream": "downstream", "attributes": attributes}),
        );
        // The whole object does not fit, but for the headers of the last.
        let report = restored(lab, &["z_slow"]);
        assert_eq!(report["checksum_verified"], true, "{report}");
        lab.remove_toxic("cut");
        drop_database(lab, "z_slow_restored");
    }
    let running = in_the_middle(lab);
    lab.proxy_enabled(false);
    let output = running.wait(SOON);
    output.failed(4, "S3 was lost while a dump was read");
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");
    nothing_is_left(lab);

    // 503 to everything, from the middle on.
    let running = in_the_middle(lab);
    lab.proxy_enabled(false);
    lab.answer_always(503);
    running
        .wait(SOON)
        .failed(4, "S3 was lost while a dump was read");
    lab.upstream("127.0.0.1:7070");
    lab.remove_toxic("slow");
    nothing_is_left(lab);
}

fn programs_and_sessions_are_ended(lab: &Lab) {
    let running = in_the_middle(lab);
    lab.ok("pkill -KILL -x pg_restore");
    ended(lab, &running, 4, "signal: 9");
    let running = in_the_middle(lab);
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'xdb pg_restore'");
    ended(lab, &running, 4, "pg_restore: ");
    let running = in_the_middle(lab);
    running.signal("TERM");
    assert_eq!(running.wait(SOON).code, 143);
    lab.remove_toxic("slow");
    nothing_is_left(lab);
}

fn a_killed_restore_is_dropped_by_the_next(lab: &Lab) {
    // Somebody else's, whatever its name.
    lab.sql("CREATE DATABASE xdb_restore_0123456789abcdef");
    let running = in_the_middle(lab);
    assert_eq!(own_databases(lab).lines().count(), 2);
    // One that works is left alone.
    let other = restore(lab, &["empty", "--json"]).succeeded("a restore beside it");
    assert!(other.contains("\"dropped_leftovers\": []"), "{other}");
    assert_eq!(own_databases(lab).lines().count(), 2);
    drop_database(lab, "empty_restored");
    running.signal("KILL");
    assert_eq!(running.wait(SOON).code, 137);
    lab.remove_toxic("slow");
    assert_eq!(own_databases(lab).lines().count(), 2, "nothing was left");
    eventually("the sessions of the killed restore end", SOON, || {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'xdb%'";
        (lab.sql(sessions) == "0").then_some(())
    });
    let next = restore(lab, &["empty", "--json"]).succeeded("the next restore");
    assert!(next.contains("xdb_restore_"), "{next}");
    assert_eq!(own_databases(lab), "xdb_restore_0123456789abcdef");
    drop_database(lab, "xdb_restore_0123456789abcdef");
    drop_database(lab, "empty_restored");
}

fn the_disk_runs_full(lab: &Lab) {
    let left = "$(( $(stat -f -c '%a*%S' /srv/tablespace) - (2<<20) ))";
    lab.ok(&format!("fallocate -l {left} /srv/tablespace/filler"));
    let output = restore(lab, &["parts", "--table", "aside"]);
    output.failed(4, "No space left on device");
    lab.ok("rm /srv/tablespace/filler");
    let rows = in_database(
        lab,
        "parts",
        "SET statement_timeout = 0; SELECT count(*) > 0 FROM aside",
    );
    assert_eq!(rows, "t");
}
