//! Tests that are refused or cannot be run, which says nothing of the backup.

use serde_json::{Value, json};

use super::{REPOSITORY, Tested, backed_up, restore_test};
use crate::harness::{Lab, Program, SCRATCH, Service};

#[test]
fn a_full_scratch_disk_is_no_verdict_on_the_backup() {
    let lab = Lab::setup(Program::Walrus).tmpfs(SCRATCH, "100m").start();
    backed_up(&lab, 1);
    // Enough at first sight, then somebody else takes the room.
    let mut tested = None;
    for filler in ["90M", "60M"] {
        lab.ok(&format!(
            "rm -f {SCRATCH}/filler && fallocate -l {filler} {SCRATCH}/filler"
        ));
        let now = Tested::of(lab.xdb(&["restore-test", "--json"]));
        now.not_passed(4, "free, the restore needs");
        tested = Some(now);
    }
    assert!(
        tested.is_some_and(|tested| tested.report["steps"] == json!([])),
        "nothing was fetched"
    );
    lab.ok(&format!("rm {SCRATCH}/filler"));
    restore_test(&lab, &[]).passed();

    // The backup's own numbers say too little: found by ENOSPC itself.
    let sentinel = lab.ok(&format!("ls {REPOSITORY}/basebackups_005/*_sentinel.json"));
    lab.ok(&format!(
        "jq -c '.UncompressedSize = 1000 | .DataCatalogSize = 1000' {sentinel} >/tmp/s && cat /tmp/s >{sentinel} &&
         fallocate -l 55M {SCRATCH}/filler"
    ));
    let tested = Tested::of(lab.xdb(&["restore-test", "--json"]));
    tested.not_passed(4, "the scratch disk became full");
    lab.ok(&format!("rm {SCRATCH}/filler"));
    lab.assert_nothing_left_behind();
}

#[test]
fn a_test_that_cannot_be_run_says_why() {
    let lab = Lab::start(Program::Walrus);
    restore_test(&lab, &[]).not_passed(4, "holds no finished backup");
    backed_up(&lab, 1);
    restore_test(&lab, &["--backup", "base_000000010000000000000099"])
        .not_passed(4, "no backup base_000000010000000000000099");
    restore_test(&lab, &["--repository", "s3://nowhere/x"]).not_passed(4, "no such bucket");
    lab.config("[archive]\nprogram = \"/usr/local/bin/no-wal-g\"");
    restore_test(&lab, &[]).not_passed(4, "there is no WAL-G program");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    restore_test(&lab, &[]).not_passed(4, "access denied");
    lab.config("[postgres]\nbin_directory = \"/usr/lib/postgresql/99/bin\"");
    restore_test(&lab, &[])
        .not_passed(4, "there is no program /usr/lib/postgresql/99/bin/postgres");
    lab.config("[restore_test]\ndirectory = \"/var/lib/postgresql/17/main/scratch\"");
    Tested::of(lab.xdb(&["restore-test", "--json"]))
        .not_passed(3, "overlaps the live data directory");
    lab.ok("rmdir /var/lib/postgresql/17/main/scratch");
    lab.ok("install -d -m 0777 /var/tmp/open");
    lab.config("[restore_test]\ndirectory = \"/var/tmp/open\"");
    restore_test(&lab, &[]).not_passed(3, "others may write to /var/tmp/open");
    lab.config("[restore_test]\ndirectory = \"/proc/xdb\"");
    restore_test(&lab, &[]).not_passed(4, "cannot make /proc/xdb");
    lab.config("[restore_test]\ntimeout = \"1s\"");
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 800}}),
    );
    restore_test(&lab, &[]).not_passed(4, "not done after 1 s");
    lab.remove_toxic("slow");
    lab.config("");
    let root = Tested::of(lab.sh("xdb restore-test --json"));
    root.not_passed(3, "as root");
    lab.proxy_enabled(false);
    restore_test(&lab, &[]).not_passed(4, "S3 does not answer");
    lab.proxy_enabled(true);
    // PostgreSQL down on this node: the backup is still judged, the loss is unknown.
    lab.service("postgres", Service::Down);
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(
        (&tested.report["rpo_secs"], tested.verdict("rpo")),
        (&Value::Null, "unknown")
    );
    // With a wrong password there is one to ask, and it was not asked: that is no pass.
    lab.service("postgres", Service::Up);
    lab.config("[postgres]\npassword = \"wrong\"");
    restore_test(&lab, &[]).not_passed(4, "password authentication failed");
}
