//! A state store that the daemon cannot use: it serves, runs its jobs and tells its alerts all the same.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Service, Setup, eventually};

const SOON: Duration = Duration::from_secs(90);
const STORE: &str = "/var/lib/xdb/xdb.db";

/// A node whose state directory is small, with a base backup that is due once a day.
fn lab() -> Lab {
    let setup: Setup = Lab::setup(Program::Walrus).with_daemon();
    let lab = setup.tmpfs("/var/lib/xdb", "16m").start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\nchecks = \"1s\"",
    );
    lab
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the primary is served", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
    daemon
}

fn alert(lab: &Lab, check: &str) -> Option<Value> {
    let shown = lab.redis(&format!("HGET xdb:main:alerts:active {check}/$(hostname)/"));
    serde_json::from_str(shown.trim()).ok()
}

/// How often `kind` of the check's alert stands in the stream.
fn told(lab: &Lab, check: &str, kind: &str) -> usize {
    let stream = lab.redis("XRANGE xdb:main:alerts:events - +");
    let events = stream
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["check"] == check && event["kind"] == kind)
        .count()
}

fn raised(lab: &Lab, check: &str, words: &str) {
    eventually(&format!("{check} is raised: {words}"), SOON, || {
        let alert = alert(lab, check)?;
        let reason = alert["reason"].as_str()?;
        (alert["severity"] == "critical" && reason.contains(words)).then_some(())
    });
}

fn resolved(lab: &Lab, check: &str) {
    eventually(&format!("{check} is over"), SOON, || {
        alert(lab, check).is_none().then_some(())
    });
}

/// `xdb status` says that the store cannot be used.
fn status_says_so(lab: &Lab) {
    eventually("status says so", SOON, || {
        let said = lab.xdb(&["status"]);
        let mut lines = said.stdout.lines();
        let store = lines.find(|line| line.contains("state-store/"))?;
        let named = store.starts_with("CRITICAL") && store.contains("runbooks/state-store.md");
        (said.code == 1 && named).then_some(())
    });
}

fn backups(lab: &Lab) -> usize {
    let list = lab.xdb(&["backup", "list", "--json"]).stdout;
    serde_json::from_str::<Vec<Value>>(&list).map_or(0, |all| all.len())
}

/// The verdict of the last base backup in the file's history.
fn recorded_backup(lab: &Lab) -> Option<String> {
    let jobs = lab.xdb(&["jobs", "--json"]).stdout;
    let jobs: Value = serde_json::from_str(&jobs).ok()?;
    let run = &jobs[0]["last_run"];
    Some(run["verdict"].as_str()?.to_owned())
}

/// As another process that never ends its transaction: a lock on all of the file.
fn lock(lab: &Lab) -> Background<'_> {
    let perl = "use Fcntl qw(:DEFAULT :seek); open(F, '+<', $ARGV[0]) or die; \
        my $all = pack('s s x4 q q i x4', F_WRLCK, SEEK_SET, 0, 0, 0); \
        fcntl(F, F_SETLKW, $all) or die; sleep 3600";
    let holder = lab.in_background(&["perl", "-e", perl, STORE]);
    eventually("the file is locked", SOON, || {
        let locks = lab.sh("cat /proc/locks").stdout;
        locks.contains("POSIX  ADVISORY  WRITE").then_some(())
    });
    holder
}

fn fill(lab: &Lab) {
    lab.sh(
        "dd if=/dev/zero of=/var/lib/xdb/fill bs=64k; dd if=/dev/zero of=/var/lib/xdb/rest bs=1k",
    );
    let full = lab.sh("head -c 8192 /dev/zero >/var/lib/xdb/more");
    assert_ne!(full.code, 0, "the disk is not full: {full:?}");
}

#[test]
fn the_daemon_serves_works_and_tells_without_its_store_and_takes_it_back() {
    let lab = lab();
    locked_from_the_start(&lab);
    full_disk(&lab);
    newer_version(&lab);
}

/// Also: what cannot be recorded is not repeated, and is recorded later.
fn locked_from_the_start(lab: &Lab) {
    lab.xdb(&["run", "checks"]);
    lab.ok(&format!("test -s {STORE}"));
    let holder = lock(lab);
    let daemon = start(lab);
    raised(lab, "state-store", "locked");
    status_says_so(lab);
    eventually("the base backup that is due is made", SOON, || {
        (backups(lab) == 1).then_some(())
    });

    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    raised(lab, "postgresql-up", "");
    assert_eq!(told(lab, "postgresql-up", "raised"), 1);
    lab.service("postgres", Service::Up);
    resolved(lab, "postgresql-up");
    eventually("the primary is served again", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
    let said = lab.sh("cat /tmp/background.*/stdout").stdout;
    assert!(said.contains("the state store cannot be used"), "{said}");
    assert!(!said.contains("wait for Redis"), "{said}");
    assert_eq!(backups(lab), 1, "the same run was repeated");

    holder.signal("KILL");
    resolved(lab, "state-store");
    assert_eq!(recorded_backup(lab).as_deref(), Some("ok"));
    assert_eq!(told(lab, "postgresql-up", "resolved"), 1);

    // Its files go away under it: it writes them again.
    lab.ok("rm /var/lib/xdb/xdb.db*");
    eventually("the history is in a new file", SOON, || {
        let there = lab.sh(&format!("test -s {STORE}")).code == 0;
        (there && recorded_backup(lab).as_deref() == Some("ok")).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    assert_eq!(backups(lab), 1);
}

fn full_disk(lab: &Lab) {
    fill(lab);
    let daemon = start(lab);
    lab.service("pgbouncer", Service::Down);
    eventually("the primary is not served", SOON, || {
        (lab.http("primary").0 == 503).then_some(())
    });
    eventually("PgBouncer's alert is told", SOON, || {
        let all = lab.redis("HKEYS xdb:main:alerts:active");
        all.contains("pgbouncer").then_some(())
    });
    raised(lab, "state-store", "full");
    status_says_so(lab);
    lab.service("pgbouncer", Service::Up);

    // Killed and started again on the full disk: it serves, and nothing is told twice.
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);
    let before = told(lab, "state-store", "raised");
    let daemon = start(lab);
    raised(lab, "state-store", "");
    assert_eq!(told(lab, "state-store", "raised"), before);

    lab.ok("rm /var/lib/xdb/fill /var/lib/xdb/rest /var/lib/xdb/more");
    resolved(lab, "state-store");
    assert_eq!(recorded_backup(lab).as_deref(), Some("ok"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    assert_eq!(backups(lab), 1);
}

/// `user_version` is at byte 60 of SQLite's header.
fn newer_version(lab: &Lab) {
    let set = |bytes: &str| {
        lab.ok(&format!(
            "printf '{bytes}' | dd of={STORE} bs=1 seek=60 conv=notrunc status=none"
        ));
    };
    let known = lab.ok(&format!("od -An -tx1 -j60 -N4 {STORE}"));
    assert!(known.trim().starts_with("00 00 00 0"), "{known}");
    set(r"\x00\x00\x12\x67");
    let daemon = start(lab);
    raised(lab, "state-store", "is of version 4711");
    status_says_so(lab);
    assert_eq!(
        lab.ok(&format!("od -An -tx1 -j60 -N4 {STORE}")).trim(),
        "00 00 12 67"
    );
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
