//! Where the replay stops within the last segment, and the loss that is measured from there.

use serde_json::Value;

use super::{REPOSITORY, SOON, push, restore_test};
use crate::harness::{Lab, Program, Service, eventually};

const SEGMENT: u64 = 16 << 20;

/// Fills the rest of the segment with commits, until it is archived; returns its name.
fn fill_segment(lab: &Lab) -> String {
    let at = lab.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_insert_lsn() - '0/0'::pg_lsn");
    let (segment, at) = at.split_once('|').unwrap();
    let left = SEGMENT - at.parse::<u64>().unwrap() % SEGMENT;
    // Up to half a MiB before its end by one message, then by small transactions.
    if left > 1 << 20 {
        let message = left - (1 << 19);
        lab.sql(&format!(
            "SELECT pg_logical_emit_message(false, 'x', repeat('x', {message}))"
        ));
    }
    lab.write_file(
        "/tmp/fill.sql",
        &format!(
            "SET synchronous_commit = off;
             DO $$ BEGIN
               WHILE pg_walfile_name(pg_current_wal_insert_lsn()) = '{segment}' LOOP
                 INSERT INTO filler VALUES (1, repeat('x', 200)); COMMIT;
               END LOOP;
             END $$;"
        ),
        "postgres:postgres",
        "0600",
    );
    lab.sh_as_postgres("psql -Xq -v ON_ERROR_STOP=1 -f /tmp/fill.sql")
        .succeeded("fill the segment");
    eventually("the segment is stored", SOON, || {
        let listed = lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"));
        (listed.code == 0).then_some(())
    });
    segment.to_owned()
}

/// The LSN at which the segment of this name ends.
fn end_of(segment: &str) -> String {
    let number = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
    let per_log = (1 << 32) / SEGMENT;
    let end = (number(&segment[8..16]) * per_log + number(&segment[16..]) + 1) * SEGMENT;
    format!("{:X}/{:X}", end >> 32, end & 0xFFFF_FFFF)
}

#[test]
fn damage_within_the_last_segment_and_a_clock_that_is_behind_are_seen() {
    let lab = Lab::start_quiet(Program::Walrus);
    // It commits, too.
    lab.sql("ALTER SYSTEM SET autovacuum = off");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE filler (id int, pad text)");
    let backup = push(&lab);
    // In the segment that the backup ended in little room may be left.
    lab.sql("SELECT pg_switch_wal()");
    let segment = fill_segment(&lab);
    // The last record continues in the next segment, which is not archived.
    restore_test(&lab, &[]).passed();
    // Once a test failed, the backup is taken only where it is named.
    let end = end_of(&segment);
    let end = ["--until", &end, "--level", "start", "--backup", &backup];
    restore_test(&lab, &end).passed();

    let stored = format!("{REPOSITORY}/wal_005/{segment}.lz4");
    let damage = SEGMENT - 100_000;
    lab.ok(&format!(
        "cp -a {stored} /tmp/whole && lz4 -dcq {stored} >/tmp/wal && dd if=/dev/zero of=/tmp/wal bs=1 count=64 seek={damage} conv=notrunc status=none && lz4 -cq /tmp/wal >{stored}"
    ));
    assert_ne!(
        lab.sh(&format!("cmp <(lz4 -dcq /tmp/whole) <(lz4 -dcq {stored})"))
            .code,
        0
    );
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "before the end of the segment");
    assert!(
        tested.reason().contains("differs from this server's own"),
        "{}",
        tested.reason()
    );
    assert!(
        tested.report["rpo_secs"].as_f64() > Some(0.0),
        "{}",
        tested.report
    );
    // What was to be replayed before an LSN is not all there.
    let tested = restore_test(&lab, &end);
    tested.not_passed(1, "differs from this server's own");
    assert_eq!(tested.verdict("end_reached"), "critical");
    // Without a server here the record itself tells. From now on nothing is archived.
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.service("postgres", Service::Down);
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "the archived copy is damaged there");
    restore_test(&lab, &end).not_passed(1, "the archived copy is damaged there");
    lab.ok(&format!("cat /tmp/whole >{stored}"));

    // What follows is archived; what follows that is not, and is of a clock that is an hour ahead of the one that this
    // node has later.
    lab.service("postgres", Service::Up);
    lab.sql("ALTER SYSTEM RESET archive_command");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("SELECT pg_switch_wal()");
    eventually("all is stored", SOON, || {
        let ready = "ls /var/lib/postgresql/17/main/pg_wal/archive_status/*.ready";
        (lab.sh(ready).code != 0).then_some(())
    });
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.service("postgres", Service::Down);
    let run = "setpriv --reuid=postgres --regid=postgres --init-groups env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 \
               FAKETIME=+1h FAKETIME_DONT_FAKE_MONOTONIC=1 /usr/lib/postgresql/17/bin/pg_ctl -D /var/lib/postgresql/17/main -w";
    lab.ok(&format!(
        "cd /var/lib/postgresql && {run} -l /tmp/ahead.log start"
    ));
    lab.sql("INSERT INTO filler VALUES (2)");
    let ahead = lab.sql("SELECT extract(epoch FROM now())::bigint");
    lab.ok(&format!(
        "cd /var/lib/postgresql && {run} -m immediate stop"
    ));
    let now: i64 = lab.ok("date +%s").parse().unwrap();
    assert!(ahead.parse::<i64>().unwrap() > now + 1800, "{ahead} {now}");
    lab.service("postgres", Service::Up);
    let tested = restore_test(&lab, &[]);
    // There is a server to ask, and what it lost could not be told: that is no pass, and nothing bad.
    tested.not_passed(4, "the end of the archive is unverified");
    assert_eq!(tested.report["conclusion"], "incomplete");
    assert_eq!(
        (&tested.report["rpo_secs"], tested.verdict("rpo")),
        (&Value::Null, "unknown"),
        "{}",
        tested.report
    );
    assert!(
        tested.report.to_string().contains("behind the primary's"),
        "{}",
        tested.report
    );
}
