//! `xdb dump verify` and `xdb dump show`, on the sets of the dump tests.

use serde_json::{Value, json};

use super::{DUMPS, SOON, file, keep_manifest, manifest, put_back, set};
use crate::harness::{Lab, eventually};

#[track_caller]
fn verify(lab: &Lab, more: &[&str], code: i32, words: &str) -> Value {
    let output = lab.xdb(&[&["dump", "verify", "--json"], more].concat());
    assert_eq!(output.code, code, "{output:?}");
    if code != 0 {
        output.failed(code, words);
    }
    let verified: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(verified["passed"], json!(code == 0), "{verified}");
    verified
}

/// The only set, which is whole and was tested last, stays as it was.
pub(super) fn each_object_is_read_and_compared(lab: &Lab) {
    let name = set(lab);
    let shown = lab.xdb_json(&["dump", "show"]);
    assert_eq!(
        (&shown["set"], &shown["status"], &shown["tested"]["passed"]),
        (&json!(name), &json!("complete"), &json!(true)),
        "{shown}"
    );
    let text = lab.xdb(&["dump", "show", &name]).succeeded("dump show");
    for words in ["system identifier", "public.orders", "(primary)"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let verified = verify(lab, &[], 0, "");
    let objects = verified["sets"][0]["objects"].as_array().unwrap();
    let databases = manifest(lab)["databases"].as_array().unwrap().len();
    assert_eq!(objects.len(), databases + 1, "{verified}");
    assert!(objects.iter().all(|object| object["verdict"] == "ok"));

    // One byte differs, and the length is the same.
    let globals = file(&manifest(lab)["globals"]);
    lab.ok(&format!(
        "sed -i 's/^-- Roles/-- Rules/' {globals} && grep -q '^-- Rules' {globals}"
    ));
    let verified = verify(lab, &[], 1, "globals.sql is not what was stored");
    let bad = verified["sets"][0]["objects"].as_array().unwrap();
    let bad = bad.iter().filter(|object| object["verdict"] != "ok");
    assert_eq!(bad.count(), 1, "{verified}");
    put_back(lab);

    let (first, rest) = (file(&manifest(lab)["databases"][0]), &["--all"]);
    lab.ok(&format!("truncate -s -1 {first}"));
    verify(lab, rest, 1, "its manifest says");
    lab.ok(&format!("rm {first}"));
    verify(lab, rest, 1, "is missing");
    lab.xdb(&["dump", "show", &name]).failed(1, "is missing");
    put_back(lab);

    manifests_that_are_cut_or_missing(lab, &name);
    without_s3_nothing_is_judged(lab, &name);
}

fn manifests_that_are_cut_or_missing(lab: &Lab, name: &str) {
    let path = format!("{DUMPS}/{name}/manifest.json");
    lab.ok(&format!("truncate -s -100 {path}"));
    verify(lab, &[name], 1, "its manifest cannot be read");
    lab.ok(&format!("rm {path}"));
    lab.xdb(&["dump", "verify", name])
        .failed(4, "has no manifest");
    lab.xdb(&["dump", "verify"])
        .failed(4, "holds no finished dump");
    lab.xdb(&["dump", "show"])
        .failed(4, "holds no finished dump");
    put_back(lab);
    lab.xdb(&["dump", "verify", "20200101T000000.000Z-db9"])
        .failed(4, "no dump set 20200101T000000.000Z-db9");
}

fn without_s3_nothing_is_judged(lab: &Lab, name: &str) {
    // A small object first, then one that takes 20 s.
    let mut shortened = manifest(lab);
    let all = shortened["databases"].as_array_mut().unwrap();
    all.retain(|it| it["name"] == "swapped" || it["name"] == "z_slow");
    keep_manifest(lab, &shortened);
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 100}}),
    );
    lab.ok("rm -rf /tmp/background.*");
    let running = lab.xdb_in_background(&["dump", "verify", "--json"]);
    eventually("the second object is being read", SOON, || {
        let first = lab.sh("grep -q swapped.dump /tmp/background.*/stderr");
        (first.code == 0).then_some(())
    });
    lab.proxy_enabled(false);
    let output = running.wait(SOON);
    output.failed(4, "S3 does not answer");
    let verified: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(verified["sets"][0]["verdict"], "unknown", "{verified}");
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");

    // What is cut only now and then is read on from there.
    lab.toxic(
        "cut",
        json!({"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 900_000}}),
    );
    let asked = format!(
        "curl -sS -m 20 -o /tmp/cut --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key http://127.0.0.1:7000/pgdump-test/main/{name}/z_slow.dump"
    );
    assert_ne!(lab.sh(&asked).code, 0, "nothing was cut");
    verify(lab, &[name], 0, "");
    lab.remove_toxic("cut");
    put_back(lab);
}
