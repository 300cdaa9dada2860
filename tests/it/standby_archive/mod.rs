//! What a standby's archiver lets go, what it stores in the primary's place, and what no server stores after a failover.

mod bad_segment;

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Output, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(90);
const DB1: &str = "/var/lib/postgresql/17/main";
const DB2: &str = "/tmp/standby";
const BIN: &str = "/usr/lib/postgresql/17/bin";
const WAL: &str = "/srv/s3/walg-test/main/pg17/wal_005";
const MARK: &str = "/srv/s3/walg-test/xdb/main/archive/high-water.json";

/// db1, which leads, with a base backup; db2, which streams from it.
fn two_nodes() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\ndump = \"0 0 1 1 *\"",
    );
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("ALTER SYSTEM SET wal_keep_size = '256MB'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE kept (id int)");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    lab.sh_as_postgres(&format!(
        "PGPASSWORD=lab-password {BIN}/pg_basebackup -h 127.0.0.1 -U postgres -D {DB2} -X stream -c fast &&
         echo \"port = 5499
                archive_mode = always
                primary_conninfo = 'host=127.0.0.1 user=postgres password=lab-password'\" >>{DB2}/postgresql.conf &&
         touch {DB2}/standby.signal && mkdir -p /var/lib/postgresql/db2 &&
         {BIN}/pg_ctl -D {DB2} -l /tmp/standby.log -w start >/dev/null"
    ))
    .succeeded("the standby starts");
    lab
}

fn sql_on_db2(lab: &Lab, sql: &str) -> String {
    lab.sh_as_postgres(&format!("psql -p 5499 -XAtqc \"{sql}\""))
        .succeeded(sql)
}

/// `xdb` as it runs on db2.
fn on_db2(lab: &Lab, command: &str) -> Output {
    lab.sh_as_postgres(&format!(
        "XDB_NODE_HOSTNAME=db2 XDB_NODE_STATE_DIRECTORY=/var/lib/postgresql/db2 \
         XDB_POSTGRES_PORT=5499 XDB_POSTGRES_DATA_DIRECTORY={DB2} xdb {command}"
    ))
}

/// `archive_command` for one file, as PostgreSQL runs it.
fn push(lab: &Lab, data: &str, name: &str) -> Output {
    lab.sh_as_postgres(&format!("cd {data} && xdb wal-push pg_wal/{name}"))
}

/// Fills a segment of db1; gives its name.
fn filled(lab: &Lab) -> String {
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("INSERT INTO kept VALUES (1)");
    lab.sql("SELECT pg_switch_wal()");
    segment
}

fn stored(lab: &Lab, name: &str) -> bool {
    let full = lab.sh(&format!(
        "ls {WAL}/{name} {WAL}/{name}.lz4 2>/dev/null | grep ."
    ));
    full.code == 0
}

/// The files that wait for the archive in `data`.
fn waiting(lab: &Lab, data: &str) -> Vec<String> {
    let listed = lab.sh(&format!(
        "ls {data}/pg_wal/archive_status | sed -n 's/.ready$//p'"
    ));
    listed.stdout.lines().map(str::to_owned).collect()
}

fn wait_archived(lab: &Lab, segment: &str) {
    eventually("db1 takes it for archived", SOON, || {
        let last = lab.sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
        (last.get(..24) >= Some(segment)).then_some(())
    });
}

fn nothing_waits(lab: &Lab, data: &str) {
    eventually(&format!("nothing waits in {data}"), SOON * 2, || {
        waiting(lab, data).is_empty().then_some(())
    });
}

fn stop(daemon: Background<'_>) {
    daemon.signal("TERM");
    daemon.wait(SOON);
}

#[test]
fn a_standby_fills_gaps_lets_go_what_comes_no_more_and_stores_nothing_of_a_superseded_server() {
    let lab = two_nodes();
    let [.., last] = a_gap_is_filled_from_the_standby(&lab);
    what_is_acknowledged_is_let_go(&lab, &last);
    what_is_pruned_is_let_go(&lab);
    settings_that_would_lose_wal_are_critical(&lab);
    what_was_left_is_let_go_and_never_stored(&lab);
}

/// Four segments that db1's `archive_command` stored nowhere; db2's copy of the last one is damaged.
fn a_gap_is_filled_from_the_standby(lab: &Lab) -> [String; 4] {
    let daemon = lab.xdb_in_background(&["daemon"]);
    lab.sql("ALTER SYSTEM SET archive_command = '/bin/true'");
    lab.sql("SELECT pg_reload_conf()");
    eventually("it is in force", SOON, || {
        (lab.sql("SHOW archive_command") == "/bin/true").then_some(())
    });
    let lost = [filled(lab), filled(lab), filled(lab), filled(lab)];
    let [first, second, _, last] = &lost;
    wait_archived(lab, last);
    assert!(lost.iter().all(|name| !stored(lab, name)), "{lost:?}");
    let checked = lab.xdb(&["check", "archiver"]);
    assert!(
        checked.code == 1 && checked.stdout.contains("it stores nothing"),
        "{checked:?}"
    );
    lab.sql("ALTER SYSTEM RESET archive_command");
    lab.sql("SELECT pg_reload_conf()");
    let next = filled(lab);
    wait_archived(lab, &next);
    eventually("the mark is beyond", SOON, || {
        let mark: Value = serde_json::from_str(&lab.sh(&format!("cat {MARK}")).stdout).ok()?;
        (mark["segment"].as_str() >= Some(last)).then_some(())
    });
    eventually("db2 waits for them", SOON, || {
        let waiting = waiting(lab, DB2);
        lost.iter().all(|name| waiting.contains(name)).then_some(())
    });
    let kept = push(lab, DB2, first);
    kept.failed(1, "the primary has passed it");
    assert!(kept.stderr.contains("`xdb archive fill`"), "{kept:?}");

    // An upload that stored nothing is no copy: the standby keeps its own, and nothing writes over the object.
    for bytes in [0, 100] {
        lab.ok(&format!(
            "truncate -s {bytes} {WAL}/{second}.lz4 && test -e {WAL}/{second}.lz4"
        ));
        push(lab, DB2, second).failed(1, "is not stored");
        push(lab, DB1, second).failed(1, "is cut");
        let planned = on_db2(lab, "archive fill --dry-run");
        assert!(
            planned
                .stdout
                .contains(&format!("not stored: {second}: the archived copy of")),
            "{planned:?}"
        );
    }
    lab.ok(&format!("rm {WAL}/{second}.lz4"));

    // Within the first page's first record: its checksum is wrong, and every page header is as it was.
    lab.ok(&format!(
        "printf damaged | dd of={DB2}/pg_wal/{last} bs=1 seek=72 conv=notrunc status=none && ! cmp -s {DB1}/pg_wal/{last} {DB2}/pg_wal/{last}"
    ));
    let planned = on_db2(lab, "archive fill --dry-run");
    assert!(
        planned.stdout.contains(&format!("would store {second}")),
        "{planned:?}"
    );
    assert!(!stored(lab, second));
    let verified = on_db2(lab, "archive verify");
    assert!(
        verified.stdout.contains("pg_wal of this node holds 4 of 4"),
        "{verified:?}"
    );
    let done = on_db2(lab, "archive fill");
    assert!(
        done.code == 1 && done.stdout.contains(&format!("not stored: {last}: ")),
        "{done:?}"
    );
    for name in &lost[..3] {
        assert!(stored(lab, name), "{name}: {done:?}");
        lab.sh_as_postgres(&format!(
            "cd {DB1} && xdb wal-fetch {name} /tmp/fetched && cmp /tmp/fetched {DB2}/pg_wal/{name}"
        ))
        .succeeded("the same content");
    }
    assert!(!stored(lab, last));
    stop(daemon);
    lost
}

fn what_is_acknowledged_is_let_go(lab: &Lab, lost: &str) {
    assert_eq!(lab.xdb(&["archive", "verify"]).code, 1);
    let who = ["--why", "a test", "--until", "2999-01-01", "--by", "anna"];
    let known = lab.xdb(&[&["archive", "acknowledge", lost], who.as_slice()].concat());
    assert_eq!(known.code, 0, "{known:?}");
    let pushed = push(lab, DB2, lost);
    assert!(
        pushed.code == 0 && pushed.stderr.contains("anna has acknowledged its loss"),
        "{pushed:?}"
    );
    nothing_waits(lab, DB2);
    assert!(!stored(lab, lost));
}

fn what_is_pruned_is_let_go(lab: &Lab) {
    sql_on_db2(lab, "ALTER SYSTEM SET archive_command = '/bin/false'");
    sql_on_db2(lab, "SELECT pg_reload_conf()");
    let old = filled(lab);
    wait_archived(lab, &old);
    eventually("db2 has not confirmed it", SOON, || {
        waiting(lab, DB2).contains(&old).then_some(())
    });
    lab.config("[retention]\nwindow_days = 0\nfulls = 1");
    assert_eq!(lab.xdb(&["backup", "push", "--full"]).code, 0);
    let pruned = lab.xdb(&["prune"]);
    assert_eq!(pruned.code, 0, "{pruned:?}");
    assert!(!stored(lab, &old), "{pruned:?}");
    // Without S3 nothing is proven.
    lab.proxy_enabled(false);
    assert_eq!(push(lab, DB2, &old).code, 1);
    lab.proxy_enabled(true);
    let label = format!("{old}.00000028.backup");
    lab.ok(&format!("cp -a {DB2}/PG_VERSION {DB2}/pg_wal/{label}"));
    for name in [&old, &label] {
        let pushed = push(lab, DB2, name);
        assert!(
            pushed.code == 0
                && pushed
                    .stderr
                    .contains("retention has deleted all WAL before"),
            "{pushed:?}"
        );
    }
    sql_on_db2(lab, "ALTER SYSTEM RESET archive_command");
    sql_on_db2(lab, "SELECT pg_reload_conf()");
    nothing_waits(lab, DB2);
}

fn settings_that_would_lose_wal_are_critical(lab: &Lab) {
    let restart = |mode: &str| {
        lab.sh_as_postgres(&format!(
            "{BIN}/pg_ctl -D {DB2} -l /tmp/standby.log -w -o '-c archive_mode={mode}' restart >/dev/null"
        ))
        .succeeded("restart");
        assert_eq!(sql_on_db2(lab, "SHOW archive_mode"), mode);
        on_db2(lab, "check archiver")
    };
    let on = restart("on");
    assert!(
        on.code == 1 && on.stdout.contains("set archive_mode = always"),
        "{on:?}"
    );
    let always = restart("always");
    assert_eq!(always.code, 0, "{always:?}");
    sql_on_db2(lab, "ALTER SYSTEM SET archive_command = 'cp %p /tmp/'");
    sql_on_db2(lab, "SELECT pg_reload_conf()");
    eventually("another command is told", SOON, || {
        let other = on_db2(lab, "check archiver");
        (other.code == 1 && other.stdout.contains("warning")).then_some(())
    });
    sql_on_db2(lab, "ALTER SYSTEM RESET archive_command");
    sql_on_db2(lab, "SELECT pg_reload_conf()");
}

/// db2 is promoted, db1 writes on alone, rejoins by `pg_rewind`, and is promoted itself.
fn what_was_left_is_let_go_and_never_stored(lab: &Lab) {
    eventually("db2 streams", SOON, || {
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        (lab.sql(streaming) == "1").then_some(())
    });
    lab.sql("INSERT INTO kept VALUES (2)");
    lab.sh_as_postgres(&format!("{BIN}/pg_ctl -D {DB2} -w promote"))
        .succeeded("the promotion");
    eventually("the archive knows the new timeline", SOON, || {
        (lab.sh(&format!("ls {WAL}/00000002.history*")).code == 0).then_some(())
    });
    let left = [filled(lab), filled(lab)];
    eventually("db1 is superseded", SOON, || {
        (lab.sql("SELECT last_failed_wal FROM pg_stat_archiver") == left[0]).then_some(())
    });
    lab.ok(&format!(
        "mkdir /tmp/left && cp -a {DB1}/pg_wal/{{{},{}}} /tmp/left/",
        left[0], left[1]
    ));

    lab.service("postgres", Service::Down);
    lab.sh_as_postgres(&format!(
        "PGPASSWORD=lab-password {BIN}/pg_rewind -D {DB1} --source-server='host=127.0.0.1 port=5499 user=postgres' &&
         echo \"port = 5432
                primary_conninfo = 'host=127.0.0.1 port=5499 user=postgres password=lab-password'\" >>{DB1}/postgresql.auto.conf &&
         touch {DB1}/standby.signal"
    ))
    .succeeded("pg_rewind");
    lab.service("postgres", Service::Up);
    eventually("db1 follows db2", SOON, || {
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        (sql_on_db2(lab, streaming) == "1").then_some(())
    });
    // The file that no server will store is there: received up to the switch.
    assert_eq!(lab.sh(&format!("ls {DB1}/pg_wal/{}", left[0])).code, 0);
    for _ in 0..2 {
        sql_on_db2(lab, "INSERT INTO kept VALUES (3)");
        sql_on_db2(lab, "SELECT pg_switch_wal()");
        sql_on_db2(lab, "CHECKPOINT");
        eventually("db1 has replayed the checkpoint", SOON, || {
            let behind =
                "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < pg_current_wal_lsn()";
            (sql_on_db2(lab, behind) == "0").then_some(())
        });
        lab.sql("CHECKPOINT");
    }
    nothing_waits(lab, DB1);

    // What the superseded server wrote alone: let go as a standby, and not stored as a primary.
    let put_back = format!("cp -a /tmp/left/* {DB1}/pg_wal/");
    lab.ok(&put_back);
    for name in &left {
        let pushed = push(lab, DB1, name);
        assert!(
            pushed.code == 0 && pushed.stderr.contains("timeline 2 left timeline 1 at"),
            "{pushed:?}"
        );
    }
    lab.sh_as_postgres(&format!("{BIN}/pg_ctl -D {DB2} -m fast -w stop"))
        .succeeded("db2 is fenced");
    lab.sql("SELECT pg_promote()");
    eventually("timeline 3 is archived", SOON, || {
        (lab.sh(&format!("ls {WAL}/00000003.history*")).code == 0).then_some(())
    });
    let daemon = lab.xdb_in_background(&["daemon"]);
    lab.ok(&put_back);
    for name in &left {
        lab.ok(&format!("touch {DB1}/pg_wal/archive_status/{name}.ready"));
    }
    lab.sql("SELECT pg_switch_wal()");
    nothing_waits(lab, DB1);
    lab.ok(&put_back);
    let pushed = push(lab, DB1, &left[1]);
    assert!(
        pushed.code == 0 && pushed.stderr.contains("timeline 3 left timeline 1 at"),
        "{pushed:?}"
    );
    for name in &left {
        assert!(
            !stored(lab, name),
            "{name} of the superseded server is stored"
        );
    }
    stop(daemon);
    let verified = lab.xdb(&["archive", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
}
