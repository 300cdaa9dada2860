//! What a backup is worth is one judgement: `list`, `show`, `verify`, `prune`, `restore`, `status` and the next push agree.

mod disproved;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, eventually, for_each_program};
use disproved::a_failed_restore_test_disproves_a_backup_until_one_passes;

const SOON: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";
const TARGET: &str = "/var/lib/postgresql/restored";

for_each_program!(
    a_broken_backup_is_never_complete_and_no_reason_to_delete_another,
    a_failed_restore_test_disproves_a_backup_until_one_passes,
);

/// A lab that keeps one full backup; segments end only where a test ends them.
fn start(program: Program) -> Lab {
    let lab = Lab::start_quiet(program);
    lab.config("[retention]\nwindow_days = 0\nfulls = 1\n[archive]\npush_timeout = \"8s\"");
    lab.sql("CREATE TABLE kept (at int)");
    lab
}

fn archive_row(lab: &Lab, row: usize) {
    lab.sql(&format!("INSERT INTO kept VALUES ({row})"));
    let segment = lab.sql("SELECT pg_walfile_name(pg_switch_wal())");
    eventually("the segment is archived", SOON, || {
        let listed = lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"));
        (listed.code == 0).then_some(())
    });
}

fn push(lab: &Lab, row: usize) -> String {
    let pushed = lab.xdb_json(&["backup", "push"]);
    archive_row(lab, row);
    pushed["backup"].as_str().unwrap().to_owned()
}

/// The backup as `backup list --json` shows it.
fn listed(lab: &Lab, name: &str) -> Value {
    let listed = lab.xdb_json(&["backup", "list"]);
    let mut all = listed.as_array().unwrap().iter();
    let found = all.find(|backup| backup["name"] == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {listed}"))
        .clone()
}

fn status(lab: &Lab, name: &str) -> String {
    listed(lab, name)["status"].as_str().unwrap().to_owned()
}

fn plan_of<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let mut all = plan["backups"].as_array().unwrap().iter();
    all.find(|backup| backup["name"] == name).unwrap()
}

fn restore_plan(lab: &Lab) -> Output {
    lab.xdb(&["restore", "--target-dir", TARGET, "--plan", "--json"])
}

/// That every verb holds `words` against `new`, and that `old` takes its place.
fn is_no_good(lab: &Lab, (old, new): (&str, &str), state: &str, words: &str) {
    let seen = listed(lab, new);
    assert_eq!(seen["status"], state, "{words}: {seen}");
    assert!(
        seen["reason"].to_string().contains(words),
        "{words}: {seen}"
    );
    assert_eq!(status(lab, old), "complete", "{words}");
    let shown = lab.xdb(&["backup", "show", new]);
    assert_eq!(shown.code, 1, "{words}: {shown:?}");
    assert!(shown.stdout.contains(words), "{shown:?}");
    let verified = lab.xdb(&["archive", "verify", "--json"]);
    assert_eq!(verified.code, 1, "{words}: {verified:?}");
    assert!(verified.stdout.contains(words), "{verified:?}");

    let planned = restore_plan(lab);
    assert_eq!(planned.code, 0, "{words}: {planned:?}");
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(plan["backup"], old, "{words}: {plan}");
    let told = format!("{new} is {state}: ");
    assert!(planned.stderr.contains(&told), "{planned:?}");

    let dry = lab.xdb_json(&["prune", "--dry-run"]);
    assert_eq!(plan_of(&dry, old)["action"], "keep", "{words}: {dry}");
    let kept = plan_of(&dry, new);
    assert_eq!(kept["action"], "keep", "{words}: {dry}");
    let reason = kept["reason"].as_str().unwrap();
    assert!(
        reason.contains("does not count") && reason.contains(words),
        "{dry}"
    );
    let wal = dry["wal"].as_array().unwrap().iter();
    let own = old.strip_prefix("base_").unwrap();
    assert!(
        wal.clone()
            .all(|range| range["keep"] == json!(true) || range["last"].as_str() < Some(own)),
        "{dry}"
    );

    let status = lab.xdb(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let findings = status["findings"].as_array().unwrap().iter();
    let mut told = findings.filter(|finding| finding["check"] == "backup-incomplete");
    let told = told.next().unwrap_or_else(|| panic!("{words}: {status}"));
    assert_eq!(told["verdict"], "warning", "{told}");
    assert!(
        told["reason"]
            .as_str()
            .unwrap()
            .contains(&format!("{new}, the newest")),
        "{told}"
    );
}

fn a_broken_backup_is_never_complete_and_no_reason_to_delete_another(program: Program) {
    let lab = start(program);
    let (old, new) = (push(&lab, 1), push(&lab, 2));
    let parts = format!("{REPOSITORY}/basebackups_005/{new}/tar_partitions");
    let sentinel = format!("{REPOSITORY}/basebackups_005/{new}_backup_stop_sentinel.json");
    lab.ok(&format!("cp -a {REPOSITORY} /tmp/whole"));
    let restore = || {
        lab.ok(&format!(
            "rm -rf {REPOSITORY}/basebackups_005 && cp -a /tmp/whole/basebackups_005 {REPOSITORY}/"
        ));
    };
    assert_eq!(
        (status(&lab, &old), status(&lab, &new)),
        ("complete".into(), "complete".into())
    );
    let edit =
        |change: &str| format!("jq -c '{change}' {sentinel} >/tmp/s && cat /tmp/s >{sentinel}");
    for (damage, took, words) in [
        (
            format!("truncate -s 100 {parts}/*"),
            format!("find {parts} -size -101c -type f | grep -q ."),
            "the tar parts of base_",
        ),
        (
            format!("rm {parts}/*"),
            format!("! ls {parts}/*"),
            "are missing",
        ),
        (
            format!("rm {parts}/part_001.tar.lz4"),
            format!("! ls {parts}/part_001.tar.lz4"),
            "the tar parts of base_",
        ),
        (
            format!("rm {parts}/pg_control.tar.lz4"),
            format!("! ls {parts}/pg_control.tar.lz4"),
            "the tar parts of base_",
        ),
        (
            format!("truncate -s 100 {parts}/pg_control.tar.lz4"),
            format!("test $(stat -c %s {parts}/pg_control.tar.lz4) = 100"),
            "the tar parts of base_",
        ),
        (
            format!("f=$(ls {parts}/* | head -1) && : >$f"),
            format!("find {parts} -size 0 -type f | grep -q ."),
            "the tar parts of base_",
        ),
        (
            edit(".CompressedSize += 1000000"),
            format!(
                "! cmp -s {sentinel} /tmp/whole/basebackups_005/{new}_backup_stop_sentinel.json"
            ),
            "its sentinel counted",
        ),
        (
            format!("truncate -s 100 {sentinel}"),
            format!("test $(stat -c %s {sentinel}) = 100"),
            "its sentinel is damaged",
        ),
        (
            format!("rm {REPOSITORY}/basebackups_005/{new}/files_metadata.json"),
            format!("! ls {REPOSITORY}/basebackups_005/{new}/files_metadata.json"),
            "files_metadata.json of base_",
        ),
        // wal-g restores by half a list with exit 0, and leaves out or spoils what the rest names.
        (
            format!("truncate -s 100 {REPOSITORY}/basebackups_005/{new}/files_metadata.json"),
            format!(
                "test $(stat -c %s {REPOSITORY}/basebackups_005/{new}/files_metadata.json) = 100"
            ),
            "files_metadata.json of base_",
        ),
        // Old releases wrote no size.
        (
            format!(
                "{} && rm {parts}/part_001.tar.lz4",
                edit("del(.CompressedSize)")
            ),
            format!("! ls {parts}/part_001.tar.lz4"),
            "of base_",
        ),
    ] {
        lab.ok(&damage);
        lab.ok(&took);
        if words == "its sentinel is damaged" {
            // By half a look nothing is deleted at all.
            assert_eq!(status(&lab, &new), "unusable");
            let refused = lab.xdb(&["prune", "--dry-run"]);
            refused.failed(3, "the sentinel of");
        } else {
            is_no_good(&lab, (&old, &new), "unusable", words);
        }
        restore();
    }
    // An upload of its own WAL that stored nothing, or a piece of it; two files have that name's begin.
    let segment = format!("{REPOSITORY}/wal_005/{}.lz4", &new[5..29]);
    for bytes in [0, 100] {
        lab.ok(&format!(
            "cp -a {segment} /tmp/segment && truncate -s {bytes} {segment}"
        ));
        let verified = lab.xdb(&["archive", "verify"]);
        assert!(
            verified.code == 1
                && verified
                    .stdout
                    .contains(&format!("is stored with {bytes} bytes")),
            "{verified:?}"
        );
        assert_eq!(
            (status(&lab, &old), status(&lab, &new)),
            ("complete".into(), "unusable".into())
        );
        let planned = restore_plan(&lab);
        assert!(
            planned.stdout.contains(&format!("\"backup\": \"{old}\"")),
            "{planned:?}"
        );
        let dry = lab.xdb_json(&["prune", "--dry-run"]);
        assert_eq!(plan_of(&dry, &old)["action"], "keep", "{dry}");
        lab.ok(&format!("cp -a /tmp/segment {segment}"));
        assert_eq!(lab.xdb(&["archive", "verify"]).code, 0);
    }
    // Without a size, and without what only retention reads, a backup is still one.
    lab.ok(&edit("del(.CompressedSize)"));
    lab.ok(&format!(
        "rm {REPOSITORY}/basebackups_005/{old}/metadata.json"
    ));
    assert_eq!(
        (status(&lab, &old), status(&lab, &new)),
        ("complete".into(), "complete".into())
    );
    let table = lab.xdb(&["backup", "list"]).stdout;
    assert!(
        table.contains(&format!("{old}: its metadata.json is missing")),
        "{table}"
    );
    let dry = lab.xdb_json(&["prune", "--dry-run"]);
    let reason = &plan_of(&dry, &old)["reason"];
    assert!(
        reason
            .to_string()
            .contains("permanent mark is not ruled out"),
        "{dry}"
    );
    restore();
    assert_eq!(lab.xdb(&["archive", "verify"]).code, 0);

    // A real prune does what it says: nothing goes for the sake of a broken backup.
    lab.ok(&format!("truncate -s 100 {parts}/*"));
    let segments = lab.ok(&format!("ls {REPOSITORY}/wal_005"));
    let pruned = lab.xdb_json(&["prune"]);
    assert_eq!((&pruned["gone"], &pruned["left"]), (&json!([]), &json!([])));
    assert_eq!(status(&lab, &old), "complete");
    let own = old.strip_prefix("base_").unwrap();
    let kept = lab.ok(&format!("ls {REPOSITORY}/wal_005"));
    let lost = segments.lines().filter(|name| !kept.contains(*name));
    assert!(
        lost.clone().all(|name| name < own),
        "{:?}",
        lost.collect::<Vec<_>>()
    );
    let tested = lab.xdb(&[
        "restore-test",
        "--backup",
        &old,
        "--sql",
        "SELECT count(*) = 2 FROM public.kept",
    ]);
    assert_eq!(tested.code, 0, "{tested:?}");

    // With no good backup at all nothing is deleted, and nothing is picked.
    lab.ok(&format!(
        "rm {REPOSITORY}/basebackups_005/{old}/tar_partitions/*"
    ));
    let before = lab.ok(&format!("cd {REPOSITORY} && find . -type f | sort"));
    let pruned = lab.xdb_json(&["prune"]);
    assert!(
        pruned["wal"]
            .as_array()
            .unwrap()
            .iter()
            .all(|range| range["keep"] == json!(true)),
        "{pruned}"
    );
    assert!(
        pruned["backups"]
            .to_string()
            .contains("so nothing is deleted"),
        "{pruned}"
    );
    assert_eq!(
        lab.ok(&format!("cd {REPOSITORY} && find . -type f | sort")),
        before
    );
    let planned = restore_plan(&lab);
    planned.failed(1, "no backup can be counted on");

    // Then a push that works is the one that counts, and the program that stores less than it says is found by both.
    let third = push(&lab, 3);
    let pruned = lab.xdb_json(&["prune"]);
    assert_eq!(
        plan_of(&pruned, &third)["reason"],
        "the newest complete backup",
        "{pruned}"
    );
    assert_eq!(plan_of(&pruned, &old)["action"], "delete", "{pruned}");
    cut_by_the_program(&lab, program);
    lab.assert_nothing_left_behind();
}

/// As where S3 answers CompleteMultipartUpload with 200 and an error: the program exits with 0, and a part is not there.
fn cut_by_the_program(lab: &Lab, program: Program) {
    let (name, path) = match program {
        Program::Walrus => ("walrus", program.path()),
        Program::WalG => ("wal-g", program.path()),
    };
    let curl = "curl -sS -X DELETE --aws-sigv4 aws:amz:us-east-1:s3 -u lab:lab-secret-key";
    let script = format!(
        "#!/bin/bash\n{path} \"$@\"; code=$?\n[ \"$1\" = backup-push ] || exit $code\n\
         cd {REPOSITORY} && new=$(ls -t basebackups_005 | grep sentinel | head -1) && new=${{new%_backup*}}\n\
         {curl} http://127.0.0.1:7070/walg-test/main/pg17/basebackups_005/$new/tar_partitions/part_001.tar.lz4\nexit $code\n"
    );
    let fake = format!("/opt/{name}");
    lab.write_file(&fake, &script, "root:root", "0755");
    lab.config(&format!(
        "[retention]\nwindow_days = 0\nfulls = 1\n[archive]\npush_timeout = \"8s\"\nprogram = \"{fake}\""
    ));
    let pushed = lab.xdb(&["backup", "push"]);
    pushed.failed(4, "the tar parts of base_");
    let listed = lab.xdb_json(&["backup", "list"]);
    let newest = listed.as_array().unwrap().last().unwrap();
    assert_eq!(newest["status"], "unusable", "{listed}");
    let reason = newest["reason"].as_str().unwrap();
    assert!(pushed.stderr.contains(reason), "{reason}: {pushed:?}");
}
