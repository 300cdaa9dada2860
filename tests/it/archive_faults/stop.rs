//! PostgreSQL goes down while it archives.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{SOON, start};
use crate::harness::{Lab, eventually};

/// Stops the S3 server's process: connections are taken and get no answer.
fn hang(lab: &Lab) {
    lab.ok("kill -STOP $(cat /run/service/s3/supervise/pid)");
    let ask = "curl -s -m 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:7000/walg-test";
    // Its threads stop one after the other.
    eventually("S3 answers no more", SOON, || {
        (lab.sh(ask).stdout == "000").then_some(())
    });
}

fn archives_now(lab: &Lab) {
    eventually("archive_command is at work", SOON, || {
        (lab.sh("pgrep -f '^xdb wal-push'").code == 0).then_some(())
    });
}

#[test]
fn a_fast_shutdown_ends_though_s3_hangs_and_all_is_archived_afterwards() {
    let lab = start("push_timeout = \"4s\"");
    let writer = lab.writer();
    lab.end_segments(&writer, 1);
    hang(&lab);
    lab.end_segments(&writer, 3);
    archives_now(&lab);
    assert!(lab.waiting().len() >= 3, "{:?}", lab.waiting());

    let began = Instant::now();
    lab.ok("sv -w 60 down postgres");
    assert_eq!(lab.sh("pgrep -x postgres").code, 1, "it is not down");
    // The archiver tries one file three times at most before it lets the shutdown go on: three times the deadline.
    assert!(began.elapsed() < Duration::from_secs(45));
    let log = lab.ok("cat /var/log/postgresql/lab.log");
    assert!(log.contains("received fast shutdown request"), "{log}");
    assert!(log.contains("database system is shut down"), "{log}");
    assert_eq!(lab.sh("pgrep -x 'xdb|walrus'").code, 1);
    assert!(lab.waiting().len() >= 3, "{:?}", lab.waiting());
    assert_eq!(lab.lies(), "");

    lab.ok("kill -CONT $(cat /run/service/s3/supervise/pid)");
    lab.ok("sv -w 30 start postgres");
    lab.judge_archive(writer);
}

#[test]
fn a_crash_in_the_middle_of_archiving_leaves_nothing_marked_that_is_not_stored() {
    let lab = start("push_timeout = \"20s\"");
    let writer = lab.writer();
    lab.end_segments(&writer, 1);
    // A segment takes a second or two.
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 60}}),
    );
    // A backend that dies makes the server begin anew; a killed postmaster is started again by runit.
    let kills = [
        "kill -9 $(pgrep -f '^postgres: checkpointer')",
        "kill -9 $(cat /run/service/postgres/supervise/pid)",
    ];
    for (crash, kill) in kills.into_iter().enumerate() {
        lab.end_segments(&writer, 3);
        archives_now(&lab);
        lab.ok(kill);
        eventually("the server recovered from a crash", SOON, || {
            let log = lab.ok("cat /var/log/postgresql/lab.log");
            let crashes = log.matches("automatic recovery in progress").count();
            let up = lab.sh_as_postgres("psql -XAtqc 'SELECT 1'").code == 0;
            (crashes > crash && up).then_some(())
        });
        assert_eq!(lab.lies(), "");
    }
    lab.remove_toxic("slow");
    lab.judge_archive(writer);
}
