//! Dumps that cannot be made, fail, are interrupted or killed: what they say, and what they leave.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PG, SOON, fill, listed, push, stored};
use crate::harness::{Background, Lab, Program, Service, eventually};

/// The uploads of the second database that S3 holds unfinished.
fn unfinished(lab: &Lab) -> usize {
    let listing = lab.ok(
        "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key 'http://127.0.0.1:7070/pgdump-test?uploads='",
    );
    listing.matches("/postgres.dump</Key>").count()
}

/// Begins a push whose first database is stored, and whose second one is in the middle of its upload.
fn push_in_the_middle(lab: &Lab) -> Background<'_> {
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 2000}}),
    );
    let push = lab.xdb_in_background(&["dump", "push"]);
    eventually("the second database is being uploaded", SOON, || {
        (unfinished(lab) > 0 && stored(lab).contains("/a_first.dump")).then_some(())
    });
    push
}

/// A small database that comes before the one with `mebibytes` of random data.
fn two_databases(lab: &Lab, mebibytes: u32) {
    lab.sql("CREATE DATABASE a_first");
    fill(lab, mebibytes);
}

fn nothing_is_left(lab: &Lab) {
    lab.assert_nothing_left_behind();
    assert_eq!(stored(lab), "", "objects of a failed set are left");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'xdb%'";
    eventually("xdb's sessions end", SOON, || {
        (lab.sql(sessions) == "0").then_some(())
    });
}

#[test]
fn a_dump_that_cannot_be_made_says_why_and_leaves_nothing() {
    let lab = Lab::start(Program::Walrus);
    let push = || lab.xdb(&["dump", "push"]);
    lab.config("[postgres]\npassword = \"wrong\"");
    push().failed(4, "password authentication failed");
    lab.config("[postgres]\nbin_directory = \"/usr/lib/postgresql/99/bin\"");
    push().failed(4, "there is no program");
    lab.config("[dump]\nrepository = \"s3://nowhere/main\"");
    push().failed(4, "no such bucket");
    lab.config("[dump]\nrepository = \"s3://pgdump-{account}/{cluster}\"");
    push().failed(2, "{account} is not known");
    lab.xdb(&["dump", "list"]).failed(2, "dump.repository");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    push().failed(4, "access denied");
    lab.xdb(&["dump", "list"]).failed(4, "access denied");
    lab.config("[node]\nstate_directory = \"/nowhere\"");
    push().failed(4, "cannot use the lock");
    lab.config("");
    for name in ["nope", "template1"] {
        lab.xdb(&["dump", "push", "--database", name])
            .failed(2, "there is no database");
    }
    // Who may not read the roles' password hashes fails last, when all databases are stored.
    lab.sql("CREATE ROLE reader LOGIN PASSWORD 'reader' IN ROLE pg_monitor");
    lab.config("[postgres]\nuser = \"reader\"\npassword = \"reader\"");
    push().failed(1, "pg_dumpall of the globals failed");
    lab.config("");
    lab.proxy_enabled(false);
    push().failed(4, "S3 does not answer");
    lab.proxy_enabled(true);
    lab.service("postgres", Service::Down);
    push().failed(4, "cannot connect to PostgreSQL");
    lab.service("postgres", Service::Up);
    nothing_is_left(&lab);
    assert_eq!(push().code, 0);
}

#[test]
fn a_failed_database_fails_the_set() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);
    lab.sql("CREATE TABLE held AS SELECT 1 AS a");

    // Locked before the dump begins.
    lab.config("[dump]\nlock_timeout = \"1s\"");
    let hold = "BEGIN; LOCK TABLE held; SELECT pg_sleep(300)";
    let holder = lab.in_background(&[&format!("{PG}/psql"), "-Xq", "-c", hold]);
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'held'::regclass";
    eventually("the table is locked", SOON, || {
        (lab.sql(locked) == "1").then_some(())
    });
    let push = lab.xdb(&["dump", "push"]);
    push.failed(4, "cannot lock the table public.held");
    assert!(push.stderr.contains("lock timeout"), "{push:?}");
    nothing_is_left(&lab);
    lab.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'",
    );
    holder.wait(SOON);

    // pg_dump killed, its session killed, and the deadline: each in the middle of the second database.
    lab.config("");
    let push = push_in_the_middle(&lab);
    lab.ok("pkill -KILL -x pg_dump");
    let ended = push.wait(SOON);
    ended.failed(1, "pg_dump of database \"postgres\" failed");
    assert!(ended.stderr.contains("SIGKILL"), "{ended:?}");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);

    let push = push_in_the_middle(&lab);
    let ended = lab.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'xdb pg_dump'",
    );
    assert_eq!(ended, "1", "pg_dump's session was not found");
    push.wait(SOON)
        .failed(1, "pg_dump of database \"postgres\" failed");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);

    lab.config("[dump]\ntimeout = \"6s\"");
    let push = push_in_the_middle(&lab);
    push.wait(SOON).failed(4, "it was not done after 6 s");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);
    assert!(listed(&lab).is_empty());
}

#[test]
fn s3_cut_in_the_middle_of_an_upload_leaves_nothing_after_the_next_push() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);
    let push = push_in_the_middle(&lab);
    lab.proxy_enabled(false);
    let ended = push.wait(Duration::from_secs(120));
    ended.failed(4, "S3 does not answer");
    assert!(
        unfinished(&lab) > 0 && stored(&lab).contains("/a_first.dump"),
        "with S3 away nothing can be removed"
    );
    assert!(
        ended.stderr.contains("for the next push to remove"),
        "{ended:?}"
    );
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");
    assert_eq!(listed(&lab)[0]["status"], json!("incomplete"));

    let set = self::push(&lab);
    let list = listed(&lab);
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(
        (&list[0]["set"], &list[0]["status"]),
        (&set["set"], &json!("complete"))
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn a_killed_push_is_cleaned_up_by_the_next() {
    let lab = Lab::start(Program::Walrus);
    let kept = push(&lab);
    two_databases(&lab, 40);
    let push = push_in_the_middle(&lab);
    push.signal("KILL");
    assert_eq!(push.wait(SOON).code, 137);
    eventually("pg_dump died with xdb", SOON, || {
        (lab.sh("pgrep -x pg_dump").code == 1).then_some(())
    });
    assert!(
        unfinished(&lab) > 0,
        "the upload is left, as after any kill -9"
    );
    lab.remove_toxic("slow");
    assert_eq!(listed(&lab)[1]["status"], json!("incomplete"));

    let next = self::push(&lab);
    let sets: Vec<Value> = listed(&lab).iter().map(|it| it["set"].clone()).collect();
    assert_eq!(sets, [kept["set"].clone(), next["set"].clone()]);
    lab.assert_nothing_left_behind();
}

#[test]
fn an_interrupted_push_cleans_up_itself() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let push = push_in_the_middle(&lab);
        let processes = lab.ok("ps axww -o args");
        assert!(
            processes.contains("/pg_dump --format=custom"),
            "{processes}"
        );
        assert!(!processes.contains("lab-password"), "{processes}");
        // And one at a time.
        lab.xdb(&["dump", "push"])
            .failed(3, "another dump is being pushed");
        push.signal(signal);
        let ended = push.wait(SOON);
        assert_eq!((ended.code, ended.stderr.as_str()), (code, ""));
        lab.remove_toxic("slow");
        nothing_is_left(&lab);
    }
}
