//! Restore tests that fail disprove the backup, until one passes.

use serde_json::Value;

use super::{
    REPOSITORY, TARGET, archive_row, is_no_good, listed, plan_of, push, restore_plan, start, status,
};
use crate::harness::{Lab, Program};

const PROOFS: &str = "/srv/s3/walg-test/xdb/main/proofs";

pub(super) fn a_failed_restore_test_disproves_a_backup_until_one_passes(program: Program) {
    let lab = start(program);
    // wal-g sleeps a minute, two and four before it gives a part up that it would fetch beside nine others.
    lab.config(
        "[retention]\nwindow_days = 0\nfulls = 1\n[archive]\ndelta_max_steps = 3\n[archive.settings]\nWALG_DOWNLOAD_CONCURRENCY = 1",
    );
    let old = push(&lab, 1);
    // A full one, so that it stands alone.
    let pushed = lab.xdb_json(&["backup", "push", "--full"]);
    let new = pushed["backup"].as_str().unwrap().to_owned();
    archive_row(&lab, 2);
    let part = format!("{REPOSITORY}/basebackups_005/{new}/tar_partitions/part_001.tar.lz4");
    lab.ok(&format!("cp {part} /tmp/part"));
    let size = lab.ok(&format!("stat -c %s {part}"));
    lab.ok(&format!(
        "dd if=/dev/zero of={part} bs=1 count=64 conv=notrunc status=none seek=$(({size} / 2))"
    ));
    assert_eq!(lab.ok(&format!("stat -c %s {part}")), size);
    assert_eq!(status(&lab, &new), "complete", "a listing cannot see it");
    let tested = lab.xdb(&["restore-test"]);
    assert_eq!(tested.code, 1, "{tested:?}");
    assert_eq!(lab.ok(&format!("ls {PROOFS} | wc -l")), "1");
    is_no_good(&lab, (&old, &new), "disproved", "the restore test of ");
    let table = lab.xdb(&["backup", "list"]).stdout;
    assert!(
        table.contains(&format!("{new}: the restore test of ")),
        "{table}"
    );

    // Nothing builds on it, and it is tested again as the newest.
    let next = lab.xdb(&["backup", "push"]);
    assert_eq!(next.code, 0, "{next:?}");
    assert!(
        next.stdout.contains(": full, ") && next.stderr.contains("a full backup and no delta"),
        "{next:?}"
    );
    let names = lab.xdb_json(&["backup", "list"]);
    let last = names.as_array().unwrap().last().unwrap()["name"].clone();
    let last = last.as_str().unwrap();
    lab.ok(&format!("rm -r {REPOSITORY}/basebackups_005/{last}*"));

    // A delta of a disproved backup is none, either, and another cluster's or repository's proof says nothing.
    let failed = lab.ok(&format!("ls {PROOFS}"));
    for change in [
        ".repository = \"s3://walg-test/other\"",
        ".system_identifier = 7",
    ] {
        lab.ok(&format!(
            "jq -c '{change}' {PROOFS}/{failed} >/tmp/proof && cp {PROOFS}/{failed} /tmp/kept"
        ));
        let proof = lab.ok("cat /tmp/proof");
        lab.put_object(&format!("walg-test/xdb/main/proofs/{failed}"), &proof);
        lab.put_object(
            &format!("walg-test/xdb/main/proofs/20990101T000000.000000Z-{new}.json"),
            &proof,
        );
        lab.ok(&format!("rm {PROOFS}/{failed}"));
        assert_eq!(status(&lab, &new), "complete", "{change}");
        let kept = lab.ok("cat /tmp/kept");
        lab.put_object(&format!("walg-test/xdb/main/proofs/{failed}"), &kept);
        assert_eq!(status(&lab, &new), "disproved", "{change}");
        lab.ok(&format!("rm {PROOFS}/2099*"));
    }

    // A test that passes takes it back, and then it may replace the older one.
    lab.ok(&format!("cat /tmp/part >{part}"));
    let tested = lab.xdb(&["restore-test"]);
    assert_eq!(tested.code, 0, "{tested:?}");
    assert_eq!(status(&lab, &new), "complete");
    let shown = lab.xdb(&["backup", "show", "LATEST"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains(" passed"), "{shown:?}");
    // A target that cannot be reached says nothing of the backup.
    let missed = lab.xdb(&["restore-test", "--until", "no_such_restore_point"]);
    assert_eq!(missed.code, 1, "{missed:?}");
    assert_eq!(status(&lab, &new), "complete");
    let pruned = lab.xdb_json(&["prune"]);
    assert_eq!(plan_of(&pruned, &old)["action"], "delete", "{pruned}");

    // Damaged WAL is held against the backup that cannot be recovered through it, with its reason.
    let kept = push(&lab, 3);
    lab.xdb_json(&["backup", "push", "--full"]);
    archive_row(&lab, 4);
    let newest = lab.xdb_json(&["backup", "list"]);
    let newest = newest.as_array().unwrap().last().unwrap()["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let segment = lab.ok(&format!(
        "ls {REPOSITORY}/wal_005 | grep -E '^[0-9A-F]{{24}}.lz4$' | tail -1"
    ));
    damaged_wal_ends_the_archive_for_all(&lab, (&kept, &newest), &segment);
    lab.assert_nothing_left_behind();
}

fn damaged_wal_ends_the_archive_for_all(lab: &Lab, (kept, newest): (&str, &str), segment: &str) {
    let stored = format!("{REPOSITORY}/wal_005/{segment}");
    lab.ok(&format!("cp {stored} /tmp/segment"));
    lab.ok(&format!(
        "dd if=/dev/zero of={stored} bs=1 seek=100 count=64 conv=notrunc status=none"
    ));
    archive_row(lab, 5);
    let name = segment.trim_end_matches(".lz4");
    assert_eq!(listed(lab, kept)["window"]["gap"], Value::Null);
    let tested = lab.xdb(&["restore-test"]);
    assert_eq!(tested.code, 1, "{tested:?}");
    assert_eq!(status(lab, newest), "disproved");
    let dry = lab.xdb_json(&["prune", "--dry-run"]);
    assert_eq!(plan_of(&dry, kept)["action"], "keep", "{dry}");

    // The older backup's way ends there, too, and each verb says so.
    let window = &listed(lab, kept)["window"];
    assert!(window["gap"].to_string().contains(name), "{window}");
    let verified = lab.xdb(&["archive", "verify"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    assert!(
        verified.stdout.contains("is stored and damaged"),
        "{verified:?}"
    );
    let planned = restore_plan(lab);
    assert_eq!(planned.code, 1, "{planned:?}");
    let (_, until) = planned.stderr.split_once("with --until ").unwrap();
    let until = until.split(';').next().unwrap();
    let restored = lab.xdb(&["restore", "--target-dir", TARGET, "--until", until]);
    assert_eq!(restored.code, 0, "{restored:?}");
    lab.ok(&format!("rm -r {TARGET}"));

    // A test that fails because a segment is missing does not take the failure back.
    lab.ok(&format!("rm {stored}"));
    let tested = lab.xdb(&["restore-test"]);
    assert_eq!(tested.code, 1, "{tested:?}");
    assert!(tested.stderr.contains("WAL is missing"), "{tested:?}");
    assert_eq!(status(lab, newest), "disproved");
    lab.ok(&format!("cp /tmp/segment {stored}"));
    let window = &listed(lab, kept)["window"];
    assert_eq!(window["gap"], Value::Null, "it is stored anew: {window}");
    let tested = lab.xdb(&["restore-test"]);
    assert_eq!(tested.code, 0, "{tested:?}");
    assert_eq!(status(lab, newest), "complete");
}
