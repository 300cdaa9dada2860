//! What is kept of restore tests, who reads it, and what it protects.

use serde_json::{Value, json};

use super::{archive_marker, backed_up, markers, push, restore_test};
use crate::harness::{Lab, Program};

const XDB: &str = "/srv/s3/walg-test/xdb/main";

/// What the history says of each test: its backup and its result, the newest first.
fn listed(lab: &Lab, more: &[&str]) -> Vec<(Value, String)> {
    let tests = lab.xdb_json(&[&["restore-test", "history"], more].concat());
    let tests = tests.as_array().expect("an array").iter();
    tests
        .map(|test| {
            let result = test["result"].as_str().unwrap().to_owned();
            (test["report"]["backup"].clone(), result)
        })
        .collect()
}

#[test]
fn history_shows_every_test_and_the_newest_proven_backup_is_never_deleted() {
    let lab = Lab::start(Program::Walrus);
    assert!(listed(&lab, &[]).is_empty());
    backed_up(&lab, 1);
    restore_test(&lab, &[]).passed();
    restore_test(&lab, &["--sql", &markers("1,2")]).not_passed(1, "not true");
    lab.proxy_enabled(false);
    restore_test(&lab, &[]).not_passed(4, "S3 does not answer");
    // Without the bucket, what this node remembers; and that this is not all.
    let output = lab.xdb(&["restore-test", "history"]);
    output.failed(4, "the proofs in the bucket cannot be read");
    assert!(
        output.stdout.contains("not run") && output.stdout.contains("passed"),
        "{output:?}"
    );
    lab.proxy_enabled(true);

    let proofs = lab.ok(&format!("cat {XDB}/proofs/*.json"));
    let proofs: Vec<Value> = proofs
        .replace("}{", "}\n{")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(proofs.len(), 2, "what could not be run judged no backup");
    let first = proofs[0]["backup"].clone();
    for (proof, passed) in proofs.iter().zip([true, false]) {
        assert_eq!((&proof["v"], &proof["passed"]), (&json!(1), &json!(passed)));
        assert_eq!(proof["repository"], "s3://walg-test/main/pg17");
        assert_eq!(
            proof["system_identifier"].to_string(),
            lab.sql("SELECT system_identifier FROM pg_control_system()")
        );
        assert_eq!(proof["report"]["backup"], first);
    }
    let expected = |results: &[&str], backups: &[&Value]| -> Vec<(Value, String)> {
        let both = backups.iter().zip(results);
        both.map(|(backup, result)| ((*backup).clone(), (*result).to_owned()))
            .collect()
    };
    assert_eq!(
        listed(&lab, &[]),
        expected(
            &["not run", "failed", "passed"],
            &[&Value::Null, &first, &first]
        )
    );
    assert_eq!(
        listed(&lab, &["--limit", "1"]),
        expected(&["not run"], &[&Value::Null])
    );
    let shown = lab.xdb(&["restore-test", "history"]);
    for words in [
        "STARTED (UTC)",
        "RECOVERED TO",
        "failed",
        "not true",
        "S3 does not answer",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {shown:?}");
    }
    // Another repository's tests are no proofs of this one.
    lab.xdb(&["restore-test", "--repository", "s3://walg-test/main/pg17"])
        .succeeded("the test");
    assert_eq!(listed(&lab, &[]).len(), 3);

    // A newer backup is proven, and then the older one is tested again: it takes nothing away.
    let second = json!(push(&lab));
    archive_marker(&lab, 2);
    restore_test(&lab, &[]).passed();
    // Their number is bounded: the oldest go.
    lab.ok(&format!(
        "cd {XDB}/proofs && for i in $(seq 100 599); do touch 20200101T000000.000${{i}}Z-base_9.json; done"
    ));
    restore_test(&lab, &["--backup", first.as_str().unwrap()]).passed();
    let left = lab.ok(&format!("ls {XDB}/proofs"));
    assert_eq!(left.lines().count(), 500);
    assert!(
        left.starts_with("20200101T000000.000104Z-base_9.json"),
        "{left}"
    );
    assert_eq!(
        listed(&lab, &["--limit", "2"]),
        expected(&["passed", "passed"], &[&first, &second])
    );
    push(&lab);
    lab.config("[retention]\nwindow_days = 0\nfulls = 1");
    let plan = lab.xdb_json(&["prune", "--dry-run"]);
    let backups = plan["backups"].as_array().unwrap();
    let actions: Vec<_> = backups
        .iter()
        .map(|backup| (&backup["name"], &backup["action"]))
        .collect();
    assert_eq!(
        actions[..2],
        [(&first, &json!("delete")), (&second, &json!("keep"))]
    );
    assert_eq!(
        backups[1]["reason"],
        "the newest that a restore test proved"
    );
}
