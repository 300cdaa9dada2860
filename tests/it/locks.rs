//! The cluster's locks in the bucket: one node at a time, and none for ever.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Background, Lab, Output, Program, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(60);

for_each_program!(a_base_backup_is_refused_while_another_node_holds_the_lock);

/// Puts the lock of a process that is not there.
fn held_by(lab: &Lab, hostname: &str, work: &str, expires: &str) {
    let expires = lab.ok(&format!("date -u -d '{expires}' +%FT%TZ"));
    let lock = json!({ "v": 1, "hostname": hostname, "pid": 7, "since": "2026-01-01T00:00:00Z", "expires": expires });
    lab.put_object(
        &format!("walg-test/xdb/main/locks/{work}"),
        &lock.to_string(),
    );
}

fn lock(lab: &Lab, work: &str) -> Option<String> {
    let read = lab.sh(&format!("cat /srv/s3/walg-test/xdb/main/locks/{work}"));
    (read.code == 0).then_some(read.stdout)
}

/// xdb as it runs on another node of the same cluster.
fn on_db2(lab: &Lab, command: &str) -> Output {
    let state = "/var/lib/postgresql/db2";
    lab.sh_as_postgres(&format!(
        "mkdir -p {state} && XDB_NODE_HOSTNAME=db2 XDB_NODE_STATE_DIRECTORY={state} xdb {command}"
    ))
}

fn refused(output: &Output, words: &str) {
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains(words), "{words:?}: {output:?}");
    assert!(output.stderr.contains("HINT:"), "{output:?}");
}

/// A dump that waits for a table which another session keeps, and so holds the lock until it is stopped.
fn dump_that_waits(lab: &Lab) -> Background<'_> {
    lab.sql("CREATE TABLE kept (a int)");
    lab.in_background(&[
        "psql",
        "-Xc",
        "BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)",
    ]);
    eventually("the table is kept", SOON, || {
        let held = lab.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'kept'::regclass AND granted");
        (held == "1").then_some(())
    });
    let dump = lab.xdb_in_background(&["dump", "push"]);
    eventually("the lock is held", SOON, || lock(lab, "dump"));
    dump
}

/// Ends the session that keeps the table.
fn let_dumps_go_on(lab: &Lab) {
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'kept'::regclass AND granted");
}

fn a_base_backup_is_refused_while_another_node_holds_the_lock(program: Program) {
    let lab = Lab::start(program);
    held_by(&lab, "db9", "base-backup", "1 hour");
    let pushed = lab.xdb(&["backup", "push"]);
    refused(
        &pushed,
        "base-backup is held by db9 since 2026-01-01 00:00:00 UTC",
    );
    assert!(
        lock(&lab, "base-backup").unwrap().contains("db9"),
        "it was taken"
    );

    // Its holder was killed: the lock expires, and is taken over.
    held_by(&lab, "db9", "base-backup", "1 second ago");
    let pushed = lab.xdb(&["backup", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    lab.assert_nothing_left_behind();
}

#[test]
fn one_node_dumps_at_a_time_and_a_killed_one_keeps_the_others_out_only_until_its_lock_expires() {
    let lab = Lab::start(Program::Walrus);
    let dump = dump_that_waits(&lab);
    refused(
        &lab.xdb(&["dump", "push"]),
        "another dump is being pushed from this node",
    );
    refused(&on_db2(&lab, "dump push"), "dump is held by ");

    dump.signal("KILL");
    assert_eq!(dump.wait(SOON).code, 137);
    assert!(
        lock(&lab, "dump").is_some(),
        "the lock went with its holder"
    );
    let_dumps_go_on(&lab);
    refused(&on_db2(&lab, "dump push"), "its lock expires at ");

    let name = lab.ok("hostname");
    held_by(&lab, &name, "dump", "1 second ago");
    let dumped = on_db2(&lab, "dump push");
    assert_eq!(dumped.code, 0, "{dumped:?}");
    assert_eq!(lock(&lab, "dump"), None);
    // The node that was killed clears its own remains away.
    let dumped = lab.xdb(&["dump", "push"]);
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let listed = lab.xdb(&["dump", "list"]).stdout;
    assert!(!listed.contains("incomplete"), "{listed}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_node_takes_its_own_lock_back_at_once_and_gives_it_up_when_it_is_told_to_end() {
    let lab = Lab::start(Program::Walrus);
    let name = lab.ok("hostname");
    held_by(&lab, &name, "dump", "1 hour");
    let dump = dump_that_waits(&lab);
    eventually("the lock is the dump's own", SOON, || {
        (!lock(&lab, "dump")?.contains("2026-01-01")).then_some(())
    });
    dump.signal("TERM");
    assert_eq!(dump.wait(SOON).code, 143);
    assert_eq!(lock(&lab, "dump"), None);
    let_dumps_go_on(&lab);
    lab.assert_nothing_left_behind();
}

#[test]
fn a_dump_whose_lock_was_taken_over_gives_up_and_leaves_the_new_holder_alone() {
    let lab = Lab::start(Program::Walrus);
    lab.config("[dump]\nlock_timeout = \"10m\"");
    let dump = dump_that_waits(&lab);
    held_by(&lab, "db9", "dump", "1 hour");
    let ended = dump.wait(SOON);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(
        ended.stderr.contains("the lock for dump was lost"),
        "{ended:?}"
    );
    assert!(lock(&lab, "dump").unwrap().contains("db9"));
    assert_eq!(lab.xdb(&["dump", "list", "--json"]).stdout.trim(), "[]");
}

#[test]
fn a_daemon_that_is_told_to_end_gives_its_lock_up() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.toxic(
        "slow",
        json!({ "type": "bandwidth", "stream": "upstream", "attributes": { "rate": 200 } }),
    );
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the first base backup holds the lock", SOON, || {
        lock(&lab, "base-backup")
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    lab.assert_nothing_left_behind();
}

#[test]
fn a_lock_that_cannot_be_asked_for_is_no_refusal() {
    let lab = Lab::start(Program::Walrus);
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -sS -m 5 http://127.0.0.1:7000/").code, 0);
    for verb in ["backup", "dump"] {
        let pushed = lab.xdb(&[verb, "push"]);
        assert_eq!(pushed.code, 4, "{pushed:?}");
        assert!(pushed.stderr.contains("S3 does not answer"), "{pushed:?}");
        assert!(pushed.stderr.contains("HINT:"), "{pushed:?}");
    }
    lab.proxy_enabled(true);
    lab.assert_nothing_left_behind();
}
