//! The log files in /var/log/xeroops: nothing is lost when they are rotated, nothing stops when they cannot be written.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Setup, eventually};

const SOON: Duration = Duration::from_secs(60);
const LOGS: &str = "/var/log/xeroops";

/// A daemon that has something to say each second: this primary is without a standby.
fn lab(setup: Setup) -> Lab {
    let lab = setup.with_daemon().start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n[schedule]\nchecks = \"1s\"",
    );
    lab
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon serves", SOON, || serves(lab).then_some(()));
    daemon
}

fn serves(lab: &Lab) -> bool {
    lab.sh("curl -sf -m 5 -o /dev/null http://127.0.0.1:8009/healthz")
        .code
        == 0
}

/// Waits until `count` more lines than now are in the file.
fn grows(lab: &Lab, file: &str, count: usize) {
    let lines = || lab.sh(&format!("cat {LOGS}/{file}")).stdout.lines().count();
    let before = lines();
    eventually(&format!("{file} grows"), SOON, || {
        (lines() >= before + count).then_some(())
    });
}

/// What the daemon has said on standard error.
fn complaints(lab: &Lab) -> String {
    lab.sh("cat /tmp/background.*/stderr").stdout
}

#[test]
fn no_line_is_lost_when_the_files_are_rotated() {
    let lab = lab(Lab::setup(Program::Walrus));
    let daemon = start(&lab);
    for round in 1..=3 {
        grows(&lab, "xdb-checks.log", 2);
        lab.ok(&format!(
            "cd {LOGS} && for log in *.log; do mv $log $log.{round}; done && ! ls *.log"
        ));
        // Still to the old one.
        grows(&lab, &format!("xdb-checks.log.{round}"), 1);
        daemon.signal("HUP");
        eventually("a new file is there", SOON, || {
            (lab.sh(&format!("test -s {LOGS}/xdb-checks.log")).code == 0).then_some(())
        });
    }
    assert_eq!(
        lab.ok(&format!(
            "stat -c '%U %a' {LOGS}/xdb-checks.log {LOGS}/xdb-daemon.log"
        )),
        "postgres 640\npostgres 640"
    );
    daemon.signal("TERM");
    let ended = daemon.wait(SOON);
    assert_eq!(ended.code, 143);
    let written = lab.ok(&format!("cat {LOGS}/*"));
    let set = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    assert_eq!(set(&ended.stdout), set(&written));
    assert_eq!(ended.stdout.lines().count(), written.lines().count());
    // Each component's lines are in its own file.
    for component in ["daemon", "checks", "base-backup"] {
        let lines = lab.ok(&format!("cat {LOGS}/xdb-{component}.log*"));
        for line in lines.lines() {
            let read: Value = serde_json::from_str(line).unwrap();
            assert_eq!(read["component"], component, "{line}");
        }
    }
}

#[test]
fn a_full_log_volume_stops_nothing_and_spoils_no_later_line() {
    let lab = lab(Lab::setup(Program::Walrus).tmpfs(LOGS, "64k"));
    let daemon = start(&lab);
    grows(&lab, "xdb-checks.log", 1);
    // Full to the last byte, between two lines or within one.
    let fill = format!("cat /dev/zero >>{LOGS}/fill");
    eventually("the daemon meets the full disk", SOON, || {
        assert!(lab.sh(&fill).stderr.contains("No space left"));
        complaints(&lab).contains("xdb-checks.log: ").then_some(())
    });
    let said = lab
        .sh("cat /tmp/background.*/stdout")
        .stdout
        .lines()
        .count();
    eventually("the daemon goes on", SOON, || {
        let now = lab
            .sh("cat /tmp/background.*/stdout")
            .stdout
            .lines()
            .count();
        (now > said + 2 && serves(&lab)).then_some(())
    });
    let told = complaints(&lab);
    assert_eq!(told.matches("xdb-checks.log: ").count(), 1, "{told}");

    lab.ok(&format!("rm {LOGS}/fill"));
    eventually("the daemon says that it writes again", SOON, || {
        complaints(&lab)
            .contains("xdb-checks.log is written again; lines that are missing there: ")
            .then_some(())
    });
    grows(&lab, "xdb-checks.log", 2);
    daemon.signal("TERM");
    let ended = daemon.wait(SOON);
    assert_eq!(ended.code, 143, "{ended:?}");
    let written = lab.ok(&format!("cat {LOGS}/xdb-checks.log"));
    let whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
    let cut = written.lines().filter(|line| !whole(line)).count();
    assert!(cut <= 1, "{written}");
    assert!(
        written.lines().all(|line| line.len() < 4096),
        "two lines in one"
    );
}

#[test]
fn a_log_directory_that_is_missing_is_told_once_with_what_to_do() {
    let lab = lab(Lab::setup(Program::Walrus));
    lab.ok(&format!("rmdir {LOGS}"));
    let daemon = start(&lab);
    eventually("the daemon speaks of its checks", SOON, || {
        let said = lab.sh("cat /tmp/background.*/stdout").stdout;
        said.contains("\"component\":\"checks\"").then_some(())
    });
    daemon.signal("TERM");
    let ended = daemon.wait(SOON);
    assert_eq!(ended.code, 143);
    for component in ["daemon", "checks"] {
        let told = format!(
            "xdb: {LOGS}/xdb-{component}.log: No such file or directory (os error 2); until it can be written, what is logged is on \
             standard output only\nHINT: {LOGS} must be a directory that this user may write to\n"
        );
        assert_eq!(ended.stderr.matches(&told).count(), 1, "{}", ended.stderr);
    }
    assert_eq!(lab.sh(&format!("ls {LOGS}")).code, 2, "it was made");
}

#[test]
fn what_wal_push_fails_at_is_in_the_archives_log_and_what_it_stores_is_not() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("SELECT pg_switch_wal()");
    eventually("a segment is archived", SOON, || {
        (lab.sql("SELECT archived_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    assert_eq!(lab.ok(&format!("ls {LOGS}")), "");
    lab.proxy_enabled(false);
    let pushed = lab.sh_as_postgres(
        "cd /var/lib/postgresql/17/main && xdb wal-push pg_wal/$(ls pg_wal | grep -m 1 '^0')",
    );
    assert_eq!(pushed.code, 1, "{pushed:?}");
    let log = lab.ok(&format!("cat {LOGS}/xdb-archive.log"));
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let message = line["message"].as_str().unwrap();
    assert_eq!(
        (&line["component"], &line["level"]),
        (&"archive".into(), &"error".into())
    );
    assert!(message.starts_with("wal-push: "), "{message}");
    assert!(
        pushed.stderr.starts_with(&format!("xdb {message}\n")),
        "{pushed:?}"
    );
    assert!(
        !log.contains("lab-secret-key") && !log.contains("lab-password"),
        "{log}"
    );
}
