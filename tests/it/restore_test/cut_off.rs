//! Tests that are killed, interrupted or cut off from S3 in the middle.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SOON, Tested, backed_up, markers, restore_test};
use crate::harness::{Background, Lab, Program, SCRATCH, eventually, for_each_program};

for_each_program!(
    s3_cut_in_the_middle_of_replay_is_no_end_of_the_archive,
    a_killed_test_leaves_nothing_after_the_next_start,
);

/// The log of the scratch server that runs now.
fn scratch_log(lab: &Lab) -> String {
    lab.sh(&format!("cat {SCRATCH}/run-*/postgresql.log"))
        .stdout
}

/// A restore test in the middle of its replay, which S3's slowness makes long.
fn test_in_replay(lab: &Lab) -> Background<'_> {
    // One segment at a time, nothing fetched ahead.
    lab.config(
        "[archive]\nfetch_timeout = \"10s\"\n[archive.settings]\nWALG_DOWNLOAD_CONCURRENCY = 1",
    );
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 300}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("WAL is being replayed", SOON, || {
        scratch_log(lab).contains("restored log file").then_some(())
    });
    assert!(test.is_running());
    test
}

fn s3_cut_in_the_middle_of_replay_is_no_end_of_the_archive(program: Program) {
    let lab = Lab::start(program);
    let segments = backed_up(&lab, 6);
    let test = test_in_replay(&lab);
    lab.proxy_enabled(false);
    let log = scratch_log(&lab);
    assert!(
        !log.contains(&format!("restored log file \"{}\"", segments[5])),
        "cut too late: {log}"
    );
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "S3 was lost while WAL was replayed");
    assert_eq!(tested.report["recovered_lsn"], Value::Null);
    lab.assert_nothing_left_behind();
    lab.remove_toxic("slow");
    lab.proxy_enabled(true);
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
}

fn a_killed_test_leaves_nothing_after_the_next_start(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 6);
    // In the middle of the replay, with a server running; and in the middle of the fetch.
    let replaying = test_in_replay(&lab);
    replaying.signal("KILL");
    assert_eq!(replaying.wait(SOON).code, 137);
    assert_eq!(
        lab.sh(&format!("ls -d {SCRATCH}/run-*/data")).code,
        0,
        "the scratch cluster is left"
    );

    lab.toxic(
        "trickle",
        json!({"type": "bandwidth", "attributes": {"rate": 200}}),
    );
    let fetching = lab.xdb_in_background(&["restore-test", "--json"]);
    let program_runs = format!("pgrep -f '^{} backup-fetch'", program.path());
    eventually("the backup is being fetched", SOON, || {
        (lab.sh(&program_runs).code == 0).then_some(())
    });
    fetching.signal("KILL");
    assert_eq!(fetching.wait(SOON).code, 137);
    eventually("the program died with xdb", SOON, || {
        (lab.sh(&program_runs).code == 1).then_some(())
    });
    assert_eq!(
        lab.sh(&format!("ls -d {SCRATCH}/run-*/data")).code,
        0,
        "the half-fetched cluster is left"
    );

    lab.remove_toxic("trickle");
    lab.remove_toxic("slow");
    lab.config("");
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
    // Only the live server's shared memory is there.
    assert_eq!(lab.ok("ipcs -m | grep -c '^0x'"), "1");
}

#[test]
fn what_a_killed_test_still_runs_is_ended_by_the_next_start() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 6);
    // With a limit the program fetches ahead, and not xdb; its prefetch outlives everybody: its own process group, no
    // parent, slow S3.
    lab.config("[restore_test]\nnetwork_limit_mib = 1000");
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 1500}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    let prefetch = "pgrep -f '^/usr/local/bin/walrus wal-prefetch'";
    eventually("a prefetch runs", SOON, || {
        (lab.sh(prefetch).code == 0).then_some(())
    });
    test.signal("KILL");
    assert_eq!(test.wait(SOON).code, 137);
    let orphan = lab.ok(&format!("{prefetch} | head -1"));
    // Stopped, so that it is still there when the next test starts.
    lab.ok(&format!("kill -STOP {orphan}"));
    lab.remove_toxic("slow");
    assert_eq!(
        lab.sh(&format!("kill -0 {orphan}")).code,
        0,
        "the orphan is there"
    );
    restore_test(&lab, &[]).passed();
    assert_eq!(lab.sh(&format!("kill -0 {orphan}")).code, 1);
}

#[test]
fn an_interrupted_test_cleans_up_itself_and_two_never_run_at_once() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 6);
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 143)] {
        let test = test_in_replay(&lab);
        let second = Tested::of(lab.xdb(&["restore-test", "--json"]));
        second.not_passed(3, "another restore is running");
        assert!(test.is_running(), "the second test disturbed the first");
        test.signal(signal);
        assert_eq!(test.wait(SOON).code, code);
        lab.assert_nothing_left_behind();
        assert_eq!(
            lab.ok("ipcs -m | grep -c '^0x'"),
            "1",
            "shared memory of the scratch server is left"
        );
        lab.remove_toxic("slow");
    }
}

#[test]
fn what_goes_wrong_on_the_way_is_told_for_what_it_is_and_no_verdict_on_the_backup() {
    let lab = Lab::setup(Program::Walrus).tmpfs(SCRATCH, "300m").start();
    let last = backed_up(&lab, 6).pop().unwrap();
    let replaying = |what: &str| {
        let log = scratch_log(&lab);
        let over = log.contains(&format!("restored log file \"{last}\""));
        assert!(!over, "{what}: too late: {log}");
    };
    let ended = |test: Background, words: &str| {
        let tested = Tested::of(test.wait(SOON));
        tested.not_passed(4, words);
        assert_eq!(tested.report["recovered_lsn"], Value::Null);
        lab.remove_toxic("slow");
    };

    for (whom, words) in [
        (
            "pgrep -f '^postgres: xdb restore: startup'",
            "terminated by signal 9",
        ),
        (
            "head -1 /var/lib/xdb/restore-test/run-*/data/postmaster.pid",
            "it was killed, signal: 9",
        ),
    ] {
        let test = test_in_replay(&lab);
        let process = lab.ok(whom);
        lab.ok(&format!("kill -KILL {process}"));
        replaying(whom);
        ended(test, words);
        lab.assert_nothing_left_behind();
    }

    let test = test_in_replay(&lab);
    // Whatever is free now, and what is freed while it is filled.
    lab.sh(&format!(
        "cat /dev/zero >{SCRATCH}/filler; cat /dev/zero >>{SCRATCH}/filler"
    ));
    assert_eq!(
        lab.ok(&format!(
            "df --output=avail {SCRATCH} | tail -1 | tr -d ' '"
        )),
        "0"
    );
    replaying("full");
    ended(test, "the scratch disk became full while WAL was replayed");
    lab.ok(&format!("rm {SCRATCH}/filler"));

    let test = test_in_replay(&lab);
    lab.answer_always(403);
    replaying("403");
    ended(test, "access denied");
    lab.upstream("127.0.0.1:7070");

    // The same in the fetch: xdb looks for itself, and cannot.
    let trickle = json!({"type": "bandwidth", "attributes": {"rate": 200}});
    lab.toxic("slow", trickle);
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("the backup is being fetched", SOON, || {
        (lab.sh("pgrep -f '^/usr/local/bin/walrus backup-fetch'")
            .code
            == 0)
            .then_some(())
    });
    lab.proxy_enabled(false);
    assert!(test.is_running());
    ended(test, "S3 was lost while the backup was fetched");
    lab.proxy_enabled(true);
    lab.assert_nothing_left_behind();
    lab.config("");
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
}

#[test]
fn what_is_fetched_ahead_hides_neither_the_end_of_the_archive_nor_a_lost_s3() {
    const CALLS: &str = "/tmp/calls.log";
    let lab = Lab::start(Program::Walrus);
    let segments = backed_up(&lab, 24);
    lab.write_file(
        "/usr/local/bin/walrus-spy",
        &format!("#!/bin/sh\necho \"$*\" >>{CALLS}\nexec walrus \"$@\"\n"),
        "root:root",
        "0755",
    );
    lab.ok(&format!("install -m 0666 /dev/null {CALLS}"));
    lab.config("[archive]\nprogram = \"/usr/local/bin/walrus-spy\"\nfetch_timeout = \"10s\"");
    let all: Vec<String> = (1..=24).map(|id| id.to_string()).collect();
    restore_test(&lab, &["--sql", &markers(&all.join(","))]).passed();
    let by_program = || {
        let calls = lab.ok(&format!("cat {CALLS}"));
        let called = |name: &&String| calls.contains(&format!("wal-fetch {name}"));
        segments.iter().filter(called).count()
    };
    assert!(by_program() < 4, "xdb fetches ahead, and takes that");

    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 700}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("WAL is being replayed", SOON, || {
        scratch_log(&lab)
            .contains("restored log file")
            .then_some(())
    });
    lab.proxy_enabled(false);
    let log = scratch_log(&lab);
    assert!(!log.contains(&segments[23]), "cut too late: {log}");
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "S3 was lost while WAL was replayed");
    lab.assert_nothing_left_behind();

    // An S3 that comes back is fetched ahead from again.
    lab.proxy_enabled(true);
    lab.config("[archive]\nprogram = \"/usr/local/bin/walrus-spy\"\nfetch_timeout = \"60s\"");
    lab.ok(&format!("truncate -s 0 {CALLS}"));
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("WAL is being replayed", SOON, || {
        scratch_log(&lab)
            .contains("restored log file")
            .then_some(())
    });
    let before = by_program();
    lab.proxy_enabled(false);
    eventually("the program is asked, too", SOON, || {
        (by_program() > before).then_some(())
    });
    lab.proxy_enabled(true);
    Tested::of(test.wait(Duration::from_secs(120))).passed();
    let after = by_program();
    assert!(after < 8, "{after} of {} by the program", segments.len());
}

#[test]
fn what_goes_wrong_behind_the_replay_is_no_verdict_on_the_backup_either() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 6);
    // The server goes away under a question of the operator's: nobody knows what the answer would have been.
    let slow = "-- database: postgres\nSELECT pg_catalog.pg_sleep(60) IS NULL, 'slept'";
    lab.ok("install -d /etc/xdb/restore-checks");
    lab.write_file(
        "/etc/xdb/restore-checks/slow.sql",
        slow,
        "root:postgres",
        "0640",
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("the assertion is asked", SOON, || {
        let answered = lab.sh_as_postgres(&format!(
            "psql -h {SCRATCH}/run-*/socket -U postgres -XAtqd template1 -c \"SELECT count(*) FROM pg_stat_activity
               WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()\""
        ));
        (answered.stdout.trim() == "1").then_some(())
    });
    let server = lab.ok(&format!("head -1 {SCRATCH}/run-*/data/postmaster.pid"));
    lab.ok(&format!("kill -KILL {server}"));
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "slow.sql");
    assert_eq!(tested.verdict("assertion: slow.sql"), "unknown");
    assert_eq!(lab.sh(&format!("kill -0 {server}")).code, 1);
    lab.assert_nothing_left_behind();
    lab.ok("rm /etc/xdb/restore-checks/slow.sql");

    // A directory that cannot be removed: the test is told as it went, and that its room is taken.
    let test = test_in_replay(&lab);
    lab.ok(&format!(
        "cd {SCRATCH}/run-* && install -d -o root -m 0755 held && touch held/file"
    ));
    lab.remove_toxic("slow");
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "cannot remove");
    assert_eq!(tested.verdict("row_counts"), "ok");
    assert_eq!(lab.sh(&format!("ls {SCRATCH}/run-*/held/file")).code, 0);
    assert_eq!(lab.sh("pgrep -f '^postgres: xdb restore'").code, 1);
    lab.ok(&format!("rm -r {SCRATCH}/run-*/held"));
    lab.config("");
    // The next start removes what is left.
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
}
