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
    what_is_in_the_way_at_the_end_costs_no_restore(lab);
    a_lost_answer_to_the_last_commit_loses_no_database(lab);
    a_killed_restore_is_dropped_by_the_next(lab);
    the_disk_runs_full(lab);
    put_back(lab);
    nothing_is_left(lab);
    assert_eq!(databases(lab), before);
}

/// Begins a restore that is being read from S3 for 20 s.
fn in_the_middle<'a>(lab: &'a Lab, more: &[&str]) -> Background<'a> {
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 100}}),
    );
    let command = [&["dump", "restore", "z_slow"], more].concat();
    let restore = lab.xdb_in_background(&command);
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
        let asked = format!(
            "curl -sS -m 20 -o /tmp/cut --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key http://127.0.0.1:7000/pgdump-test/main/{}/z_slow.dump",
            set(lab)
        );
        // The whole object does not fit: the headers take a part of the last tenth, too.
        assert_ne!(lab.sh(&asked).code, 0, "nothing was cut");
        let report = restored(lab, &["z_slow"]);
        assert_eq!(report["checksum_verified"], true, "{report}");
        lab.remove_toxic("cut");
        drop_database(lab, "z_slow_restored");
    }
    let running = in_the_middle(lab, &[]);
    lab.proxy_enabled(false);
    let output = running.wait(SOON);
    output.failed(4, "S3 was lost while a dump was read");
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");
    nothing_is_left(lab);

    // 503 to everything, from the middle on.
    let running = in_the_middle(lab, &[]);
    lab.proxy_enabled(false);
    lab.answer_always(503);
    let output = running.wait(SOON);
    output.failed(4, "S3 was lost while a dump was read");
    assert!(output.stderr.contains("503"), "{output:?}");
    lab.upstream("127.0.0.1:7070");
    lab.remove_toxic("slow");
    nothing_is_left(lab);
}

fn programs_and_sessions_are_ended(lab: &Lab) {
    let running = in_the_middle(lab, &[]);
    lab.ok("pkill -KILL -x pg_restore");
    ended(lab, &running, 4, "signal: 9");
    let running = in_the_middle(lab, &[]);
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'xdb pg_restore'");
    ended(lab, &running, 4, "pg_restore: ");
    let running = in_the_middle(lab, &[]);
    running.signal("TERM");
    assert_eq!(running.wait(SOON).code, 143);
    lab.remove_toxic("slow");
    nothing_is_left(lab);
}

fn what_is_in_the_way_at_the_end_costs_no_restore(lab: &Lab) {
    // A program that connects to every database it sees.
    let running = in_the_middle(lab, &[]);
    let database = format!("PGDATABASE={}", own_databases(lab));
    let session = lab.in_background(&[
        "env",
        "PGHOST=127.0.0.1",
        "PGUSER=postgres",
        "PGPASSWORD=lab-password",
        &database,
        "/usr/lib/postgresql/17/bin/psql",
        "-Xc",
        "SELECT pg_sleep(600)",
    ]);
    eventually("a session is in the copy", SOON, || {
        let there = "SELECT count(*) FROM pg_stat_activity WHERE datname ~ '^xdb_restore_' AND query = 'SELECT pg_sleep(600)'";
        (lab.sql(there) == "1").then_some(())
    });
    lab.remove_toxic("slow");
    running
        .wait(SOON)
        .succeeded("a restore with a session in it");
    let ended = session.wait(SOON).stderr;
    assert!(ended.contains("terminating connection"), "{ended}");
    drop_database(lab, "z_slow_restored");

    let running = in_the_middle(lab, &[]);
    lab.sql("CREATE DATABASE z_slow_restored");
    lab.remove_toxic("slow");
    let output = running.wait(SOON);
    output.failed(
        3,
        "what was restored is complete, in the database z_slow_restored_",
    );
    let named = databases(lab);
    let beside = named
        .split(',')
        .find(|it| it.starts_with("z_slow_restored_"));
    drop_database(lab, beside.expect("it is kept"));
    drop_database(lab, "z_slow_restored");
    nothing_is_left(lab);
}

/// A COMMIT that waits for a standby that is not there is carried out, and its answer is lost with the session.
fn a_lost_answer_to_the_last_commit_loses_no_database(lab: &Lab) {
    let waiting = |query: &str, then: &str| {
        eventually(query, SOON, || {
            let sql = format!(
                "SELECT count({then}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '{query}'"
            );
            (lab.sql(&sql) == "1").then_some(())
        });
    };
    let running = in_the_middle(lab, &["--into", "z_slow", "--clean", "--json"]);
    lab.sql("ALTER SYSTEM SET synchronous_standby_names = 'absent'");
    lab.sql("SELECT pg_reload_conf()");
    lab.remove_toxic("slow");
    // The statement before the transaction waits, too, and goes on.
    waiting(
        "ALTER DATABASE%ALLOW_CONNECTIONS false",
        "pg_cancel_backend",
    );
    waiting("COMMIT", "pg_terminate_backend");
    let said = running.wait(SOON).succeeded("a lost answer");
    lab.sql("ALTER SYSTEM RESET synchronous_standby_names");
    lab.sql("SELECT pg_reload_conf()");
    assert!(
        said.contains("the connection was lost at the end"),
        "{said}"
    );
    assert!(own_databases(lab).starts_with("xdb_replaced_"));
    assert!(databases(lab).split(',').any(|it| it == "z_slow"));
    let next = restored(lab, &["empty"]);
    assert!(
        next["dropped_leftovers"]
            .to_string()
            .contains("xdb_replaced_"),
        "{next}"
    );
    drop_database(lab, "empty_restored");
    nothing_is_left(lab);
}

fn a_killed_restore_is_dropped_by_the_next(lab: &Lab) {
    // Somebody else's, whatever its name.
    lab.sql("CREATE DATABASE xdb_restore_0123456789abcdef");
    let running = in_the_middle(lab, &[]);
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
