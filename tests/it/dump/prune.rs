//! `xdb dump prune`: what the plan says is what goes, and nothing that is not this cluster's.

use serde_json::{Value, json};

use super::{DUMPS, SOON, push};
use crate::harness::{Background, Lab, Program, eventually};

const POLICY: &str = "[retention]\nwindow_days = 0\nfulls = 1";
const UPLOADS: &str = "/srv/s3/pgdump-test/.sgwtmp/multipart";
const CLOCK: &str = "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME=+60d";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The names in `part` of a plan that have this action.
fn with(plan: &Value, part: &str, action: &str) -> Vec<String> {
    let name = if part == "sets" { "set" } else { "key" };
    let all = plan[part].as_array().unwrap().iter();
    let found = all.filter(|it| it["action"] == action);
    found.map(|it| text(it, name).to_owned()).collect()
}

fn reason<'a>(plan: &'a Value, set: &str) -> &'a str {
    let mut sets = plan["sets"].as_array().unwrap().iter();
    let found = sets.find(|it| it["set"] == set);
    text(found.unwrap_or_else(|| panic!("{set}: {plan}")), "reason")
}

fn assert_left_alone(plan: &Value, name: &str, words: &str) {
    let mut foreign = plan["foreign"].as_array().unwrap().iter();
    let named = foreign.any(|it| it["name"] == name && text(it, "reason").contains(words));
    assert!(named, "{name}, {words}: {plan}");
}

/// Every object of the repository.
fn objects(lab: &Lab) -> Vec<String> {
    let listed = lab.ok(&format!("cd {DUMPS} && find . -type f | sort"));
    listed.lines().map(str::to_owned).collect()
}

fn sets(lab: &Lab) -> Vec<String> {
    let listed = super::listed(lab);
    listed.iter().map(|it| text(it, "set").to_owned()).collect()
}

/// A whole set of the name `to`, with `set`'s objects; `edit` changes its manifest's text.
fn copy(lab: &Lab, set: &str, to: &str, edit: impl Fn(String) -> String) -> String {
    lab.ok(&format!("cp -a {DUMPS}/{set} {DUMPS}/{to}"));
    let manifest = lab.ok(&format!("cat {DUMPS}/{set}/manifest.json"));
    let manifest = edit(manifest.replace(set, to));
    lab.put_object(&format!("pgdump-test/main/{to}/manifest.json"), &manifest);
    to.to_owned()
}

fn same(manifest: String) -> String {
    manifest
}

/// The set of the first day of `month`, by `node`.
fn of_month(month: u32, node: &str) -> String {
    format!("2026{month:02}01T000000.000Z-{node}")
}

fn begin_upload(lab: &Lab, set: &str, object: &str) -> String {
    let key = format!("main/{set}/{object}");
    let (code, answer) = lab.s3("POST", &format!("pgdump-test/{key}?uploads="), "");
    assert_eq!(code, 200, "{answer}");
    key
}

/// Makes what was begun so far two days old.
fn age_uploads(lab: &Lab) {
    lab.ok(&format!(
        "find {UPLOADS} -mindepth 2 -maxdepth 2 -exec touch -d '2 days ago' {{}} +"
    ));
}

#[test]
fn a_prune_of_dumps_does_what_its_dry_run_said_and_touches_nothing_of_others() {
    let lab = Lab::start(Program::Walrus);
    lab.xdb(&["dump", "prune"])
        .failed(2, "retention.window_days is not set");
    lab.config(POLICY);
    let real = push(&lab);
    let real = text(&real, "set").to_owned();
    let node = real.split_once("Z-").unwrap().1.to_owned();
    let months: Vec<String> = (1..=4)
        .map(|month| copy(&lab, &real, &of_month(month, &node), same))
        .collect();
    let test = lab.xdb(&["dump", "test", "--set", &months[0]]);
    assert_eq!(test.code, 0, "{test:?}");
    let listed = super::listed(&lab);
    assert_eq!(listed[0]["tested"]["passed"], json!(true), "{listed:?}");
    assert_eq!(listed[1]["tested"], Value::Null, "{listed:?}");

    let others = others(&lab, &real, &node);
    let before = objects(&lab);
    let dry = lab.xdb_json(&["dump", "prune", "--dry-run"]);
    assert_eq!(objects(&lab), before, "a dry run changed something");
    let report = lab.xdb_json(&["dump", "prune"]);
    for part in ["held", "sets", "uploads", "foreign"] {
        assert_eq!(report[part], dry[part], "the dry run said otherwise");
    }
    for part in ["gone", "left", "retained"] {
        assert_eq!(report[part], json!([]), "{report}");
    }
    assert_eq!(
        reason(&dry, &months[0]),
        "the newest that a dump test proved"
    );
    assert_eq!(reason(&dry, &real), "the newest complete dump");
    let deleted = with(&dry, "sets", "delete");
    assert_eq!(deleted[..3], months[1..]);
    assert_eq!(deleted[3..].join(" "), others.old_unfinished);
    let is_deleted = |object: &String| deleted.iter().any(|set| object.contains(set.as_str()));
    let expected: Vec<String> = before.into_iter().filter(|it| !is_deleted(it)).collect();
    assert_eq!(objects(&lab), expected);
    assert_eq!(with(&dry, "uploads", "delete"), others.old_uploads);
    assert_eq!(with(&dry, "uploads", "keep"), others.young_uploads);
    let uploads = lab.s3("GET", "pgdump-test?uploads=", "").1;
    assert_eq!(uploads.matches("<UploadId>").count(), 2, "{uploads}");
    let shown = lab.xdb(&["dump", "prune"]).stdout;
    for words in [
        "LEFT ALONE",
        "notes.txt",
        "UNFINISHED UPLOAD",
        "the newest complete dump",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    after_a_failed_dump_and_with_a_damaged_newest_one(&lab, &real, &months[0]);
    a_stopped_prune_is_ended_by_the_next(&lab, &node);
    a_wrong_clock_deletes_nothing(&lab);
    what_a_lock_keeps_is_retained_and_no_failure(&lab);
    // Those that are left are the test's own.
    lab.ok(&format!("rm -r {UPLOADS}"));
    lab.assert_nothing_left_behind();
}

/// What else is in the bucket.
struct Others {
    old_unfinished: String,
    old_uploads: Vec<String>,
    young_uploads: Vec<String>,
}

fn others(lab: &Lab, real: &str, node: &str) -> Others {
    let of_cluster = copy(lab, real, &of_month(1, "db7"), |manifest| {
        manifest.replace(r#""cluster": "main""#, r#""cluster": "other""#)
    });
    copy(lab, real, &of_month(2, "db7"), |manifest| {
        let at = manifest.find(r#""system_identifier": "#).unwrap();
        let (before, rest) = manifest.split_at(at);
        format!("{before}{}", rest.replacen(": ", ": 1", 1))
    });
    copy(lab, real, &of_month(3, "db7"), |manifest| {
        manifest[..manifest.len() / 2].to_owned()
    });
    for path in [
        "notes.txt".to_owned(),
        "other/20260101T000000.000Z-db2/app.dump".to_owned(),
        format!("{}/app.dump", of_month(4, "db7")),
        format!("{}/app.dump", of_month(5, "db9")),
        format!("{}/app.dump", of_month(5, node)),
        format!("{}/app.dump", of_month(6, node)),
    ] {
        lab.put_object(&format!("pgdump-test/main/{path}"), "x");
    }
    let aged = [of_month(4, "db7"), of_month(5, "db9"), of_month(5, node)];
    for set in &aged {
        lab.ok(&format!("touch -d '2 days ago' {DUMPS}/{set}/app.dump"));
    }
    let old = begin_upload(lab, &of_month(1, node), "late.dump");
    begin_upload(lab, &of_cluster, "late.dump");
    age_uploads(lab);
    let young = begin_upload(lab, &of_month(1, node), "soon.dump");

    let plan = lab.xdb_json(&["dump", "prune", "--dry-run"]);
    for (name, words) in [
        (
            format!("{}/", of_month(1, "db7")),
            "of the cluster \"other\"",
        ),
        (
            format!("{}/", of_month(2, "db7")),
            "its system identifier is",
        ),
        (
            format!("{}/", of_month(3, "db7")),
            "its manifest cannot be read",
        ),
        (
            format!("{}/", of_month(4, "db7")),
            "another cluster dumps here",
        ),
        (
            format!("{}/", of_month(5, "db9")),
            "no finished dump of a node db9",
        ),
        (format!("{of_cluster}/late.dump"), "an unfinished upload"),
        ("notes.txt".to_owned(), "no dump set"),
        ("other/".to_owned(), "no dump set"),
    ] {
        assert_left_alone(&plan, &name, words);
    }
    let young_set = of_month(6, node);
    assert!(
        reason(&plan, &young_set).contains("it may be at work"),
        "{plan}"
    );
    Others {
        old_unfinished: of_month(5, node),
        old_uploads: vec![old],
        young_uploads: vec![young],
    }
}

fn after_a_failed_dump_and_with_a_damaged_newest_one(lab: &Lab, real: &str, proven: &str) {
    let node = real.split_once("Z-").unwrap().1;
    let old = copy(lab, real, &of_month(2, node), same);
    lab.config(&format!("{POLICY}\n[postgres]\npassword = \"wrong\""));
    lab.xdb(&["dump", "push"]).failed(4, "password");
    lab.config(POLICY);
    let before = objects(lab);
    let held = lab.xdb_json(&["dump", "prune"]);
    assert!(
        text(&held, "held").contains("the last dump failed"),
        "{held}"
    );
    assert_eq!(objects(lab), before);

    // A later one takes the failure back; damaged, it does not count.
    let newest = push(lab);
    let newest = text(&newest, "set");
    lab.ok(&format!("mv {DUMPS}/{newest}/postgres.dump /tmp/"));
    let report = lab.xdb_json(&["dump", "prune"]);
    assert_eq!(with(&report, "sets", "delete"), [old]);
    assert_eq!(reason(&report, real), "the newest complete dump");
    assert!(
        reason(&report, newest).contains("does not count (damaged"),
        "{report}"
    );
    lab.ok(&format!("mv /tmp/postgres.dump {DUMPS}/{newest}/"));

    // A partial one counts neither.
    let partial = lab.xdb_json(&["dump", "push", "--database", "postgres"]);
    lab.put_object(
        &format!("pgdump-test/main/{}/manifest.json", text(&partial, "set")),
        &partial
            .to_string()
            .replace(r#""partial":false"#, r#""partial":true"#),
    );
    let report = lab.xdb_json(&["dump", "prune"]);
    assert_eq!(with(&report, "sets", "delete"), [real]);
    assert_eq!(reason(&report, newest), "the newest complete dump");
    let partial = text(&partial, "set");
    assert!(reason(&report, partial).contains("(partial)"), "{report}");
    assert!(sets(lab).contains(&proven.to_owned()));
}

/// Begins a prune of four sets on a slow line, and returns when the first has lost its manifest and is still there.
fn prune_in_the_middle<'a>(lab: &'a Lab, node: &str) -> (Background<'a>, String) {
    let all = sets(lab);
    let newest = all.iter().rev().find(|set| {
        lab.sh(&format!(
            "grep -q '\"partial\": false' {DUMPS}/{set}/manifest.json"
        ))
        .code
            == 0
    });
    let newest = newest.expect("a full set").clone();
    for month in 7..=10 {
        copy(lab, &newest, &of_month(month, node), same);
    }
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 400}}),
    );
    let prune = lab.xdb_in_background(&["dump", "prune"]);
    let first = of_month(7, node);
    eventually("the first manifest is gone", SOON, || {
        let gone = lab
            .sh(&format!("test -e {DUMPS}/{first}/manifest.json"))
            .code
            != 0;
        gone.then_some(())
    });
    assert!(objects(lab).iter().any(|it| it.contains(&first)));
    (prune, first)
}

fn a_stopped_prune_is_ended_by_the_next(lab: &Lab, node: &str) {
    for fault in ["kill", "cut"] {
        let (prune, first) = prune_in_the_middle(lab, node);
        if fault == "kill" {
            prune.signal("KILL");
            assert_eq!(prune.wait(SOON).code, 137);
        } else {
            lab.proxy_enabled(false);
            prune.wait(SOON).failed(4, "S3 does not answer");
            lab.proxy_enabled(true);
        }
        lab.remove_toxic("slow");
        let listed = super::listed(lab);
        let half = listed.iter().find(|it| it["set"] == first.as_str());
        assert_eq!(half.unwrap()["status"], "incomplete", "{listed:?}");
        let next = lab.xdb_json(&["dump", "prune"]);
        assert_eq!(reason(&next, &first), "its deletion was begun, and stopped");
        assert_eq!(with(&next, "sets", "delete").len(), 4, "{next}");
        for month in 7..=10 {
            assert!(!sets(lab).contains(&of_month(month, node)));
        }
    }
}

fn a_wrong_clock_deletes_nothing(lab: &Lab) {
    lab.config("[retention]\nwindow_days = 30\nfulls = 1");
    let before = objects(lab);
    for verb in ["dump prune", "dump prune --dry-run", "prune"] {
        let ahead = lab.sh_as_postgres(&format!("{CLOCK} xdb {verb}"));
        ahead.failed(3, "so no age is known");
    }
    assert_eq!(objects(lab), before);
    lab.config(POLICY);
}

fn what_a_lock_keeps_is_retained_and_no_failure(lab: &Lab) {
    let lock = "-H 'x-amz-bucket-object-lock-enabled: true'";
    assert_eq!(lab.s3("PUT", "locked", lock).0, 200);
    lab.config(&format!(
        "{POLICY}\n[dump]\nrepository = \"s3://locked/main\""
    ));
    let (first, _) = (push(lab), push(lab));
    let set = text(&first, "set");
    let retention = "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>\
                     <RetainUntilDate>2999-01-01T00:00:00Z</RetainUntilDate></Retention>";
    let md5 = lab.ok(&format!(
        "printf %s '{retention}' | openssl md5 -binary | base64"
    ));
    let more = format!("-H 'Content-MD5: {md5}' --data-binary '{retention}'");
    for object in ["manifest.json", "postgres.dump", "globals.sql"] {
        let path = format!("locked/main/{set}/{object}?retention=");
        assert_eq!(lab.s3("PUT", &path, &more).0, 200, "{path}");
    }
    assert_eq!(
        lab.s3("DELETE", &format!("locked/main/{set}/globals.sql"), "")
            .0,
        403
    );
    let report = lab.xdb_json(&["dump", "prune"]);
    assert_eq!(with(&report, "sets", "delete"), [set]);
    assert_eq!((&report["gone"], &report["left"]), (&json!([]), &json!([])));
    let retained = report["retained"].as_array().unwrap();
    assert_eq!(retained.len(), 1, "{report}");
    assert!(
        text(&retained[0], "key").ends_with("/manifest.json"),
        "{report}"
    );
    assert!(
        text(&retained[0], "reason").contains("object lock"),
        "{report}"
    );
    assert_eq!(super::listed(lab)[0]["status"], "complete");
    let shown = lab.xdb(&["dump", "prune"]);
    assert!(
        shown.code == 0 && shown.stdout.contains("retained: "),
        "{shown:?}"
    );
    lab.config("");
}
