//! Restores that are killed, interrupted or cut off from S3 in the middle.

use serde_json::json;

use super::{SOON, TARGET, archive_all, ask_restored, moments, restore};
use crate::harness::{Background, Lab, Program, eventually};

/// A restore in the middle of its replay, which S3's slowness makes long.
fn restore_in_replay(lab: &Lab) -> Background<'_> {
    lab.config(
        "[archive]\nfetch_timeout = \"10s\"\n[archive.settings]\nWALG_DOWNLOAD_CONCURRENCY = 1",
    );
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 300}}),
    );
    let restoring = lab.xdb_in_background(&["restore", "--target-dir", TARGET]);
    eventually("WAL is being replayed", SOON, || {
        let log = lab.sh(&format!("cat {TARGET}/xdb-restore/postgresql.log"));
        log.stdout.contains("restored log file").then_some(())
    });
    assert!(restoring.is_running());
    restoring
}

fn mended(lab: &Lab) {
    lab.remove_toxic("slow");
    lab.config("");
}

#[test]
fn a_restore_that_is_cut_off_leaves_nothing_and_one_that_is_killed_says_what_it_is() {
    let lab = Lab::start_quiet(Program::Walrus);
    moments(&lab, 1);
    for id in 2..=6 {
        lab.sql(&format!("INSERT INTO marker VALUES ({id})"));
        archive_all(&lab);
    }

    let restoring = restore_in_replay(&lab);
    restore(&lab, &[]).failed(3, "another restore is running");
    lab.proxy_enabled(false);
    restoring
        .wait(SOON)
        .failed(4, "S3 was lost while WAL was replayed");
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0, "something is left");
    lab.assert_nothing_left_behind();
    lab.proxy_enabled(true);
    mended(&lab);

    // Interrupted, it takes away what it made, and leaves the directory that was there.
    lab.ok(&format!("install -d -o postgres {TARGET}"));
    let restoring = restore_in_replay(&lab);
    // A closed terminal is no reason to end it.
    restoring.signal("HUP");
    restore(&lab, &[]).failed(3, "another restore is running");
    assert!(restoring.is_running());
    restoring.signal("TERM");
    assert_eq!(restoring.wait(SOON).code, 143);
    assert_eq!(lab.ok(&format!("ls -A {TARGET}")), "");
    lab.assert_nothing_left_behind();
    mended(&lab);

    let restoring = restore_in_replay(&lab);
    restoring.signal("KILL");
    assert_eq!(restoring.wait(SOON).code, 137);
    assert_eq!(
        lab.ok(&format!("ls -A {TARGET}")),
        "xdb-restore",
        "it is marked"
    );
    mended(&lab);
    // The server dies with it; nothing that was begun is gone on with or taken for whole.
    lab.assert_nothing_left_behind();
    let refused = restore(&lab, &[]);
    refused.failed(3, "holds a restore of xdb's that did not end");
    let (_, command) = refused.stderr.split_once('`').expect("a HINT");
    let command = command.split('`').next().unwrap();
    lab.sh_as_postgres(command).succeeded(command);
    let restored = restore(&lab, &[]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(ask_restored(&lab, "SELECT count(*) FROM marker"), "6");
}

/// A restore whose replay is over, and whose checkpoint on the new timeline waits for its process, which is stopped.
fn restore_before_its_checkpoint(lab: &Lab) -> Background<'_> {
    let restoring = restore_in_replay(lab);
    lab.ok("pkill -STOP -f '^postgres: xdb restore: checkpointer'");
    lab.remove_toxic("slow");
    eventually("the replay is over", SOON, || {
        let log = lab.ok(&format!("cat {TARGET}/xdb-restore/postgresql.log"));
        log.contains("archive recovery complete").then_some(())
    });
    let signal = lab.sh(&format!("ls {TARGET}/xdb-restore/data/recovery.signal"));
    assert_ne!(signal.code, 0, "{signal:?}");
    assert!(restoring.is_running());
    restoring
}

/// A start would replay the old timeline again, past a target.
#[test]
fn a_cluster_without_the_checkpoint_on_its_new_timeline_has_not_recovered() {
    let lab = Lab::start_quiet(Program::Walrus);
    moments(&lab, 1);
    for id in 2..=6 {
        lab.sql(&format!("INSERT INTO marker VALUES ({id})"));
        archive_all(&lab);
    }

    let restoring = restore_before_its_checkpoint(&lab);
    restoring.signal("TERM");
    assert_eq!(restoring.wait(SOON).code, 143);
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0, "something is left");
    lab.config("");

    let restoring = restore_before_its_checkpoint(&lab);
    restoring.signal("KILL");
    assert_eq!(restoring.wait(SOON).code, 137);
    lab.config("");
    restore(&lab, &["--finish"]).failed(3, "was stopped before the end of its recovery");
    restore(&lab, &[]).failed(3, "holds a restore of xdb's that did not end");
    assert_ne!(lab.sh(&format!("ls {TARGET}/PG_VERSION")).code, 0);
}
