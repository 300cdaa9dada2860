//! `xdb archive status`, `verify` and `acknowledge`, and `xdb backup show`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, Service, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(30);
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";

for_each_program!(a_lost_segment_is_named_and_acknowledging_it_ends_the_alarm_only);

/// Fills `count` segments and waits until the bucket holds them; gives their names.
fn archived(lab: &Lab, count: usize) -> Vec<String> {
    let segments = (0..count).map(|_| {
        let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
        lab.sql("CREATE TABLE IF NOT EXISTS filler (a int); INSERT INTO filler VALUES (1)");
        lab.sql("SELECT pg_switch_wal()");
        eventually("the segment is archived", SOON, || {
            (lab.sh(&format!("ls {STORED}/{segment}.lz4")).code == 0).then_some(())
        });
        segment
    });
    segments.collect()
}

fn json_of(said: &Output) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn a_lost_segment_is_named_and_acknowledging_it_ends_the_alarm_only(program: Program) {
    let lab = Lab::start_quiet(program);
    let verify = || lab.xdb(&["archive", "verify", "--json"]);
    let empty = verify();
    assert_eq!(empty.code, 1, "{empty:?}");
    assert_eq!(
        json_of(&empty)["problems"],
        json!(["there is no base backup"])
    );

    let backup = lab.xdb_json(&["backup", "push"])["backup"].clone();
    let segments = archived(&lab, 4);
    let whole = verify();
    assert_eq!(
        (whole.code, &json_of(&whole)["gaps"]),
        (0, &json!([])),
        "{whole:?}"
    );

    // Refused: nothing is lost.
    let (second, third) = (segments[1].as_str(), segments[2].as_str());
    let acknowledge = |first: &str, last: &str| {
        let words = [
            "--why",
            "the disk died",
            "--until",
            "2999-12-31",
            "--by",
            "anna",
        ];
        lab.xdb(&[&["archive", "acknowledge", first, last], &words[..]].concat())
    };
    acknowledge(second, third).failed(3, "is no gap");

    lab.ok(&format!("rm {STORED}/{second}.lz4 {STORED}/{third}.lz4"));
    let lost = verify();
    assert_eq!(lost.code, 1, "{lost:?}");
    let gap = &json_of(&lost)["gaps"][0];
    assert_eq!(
        (&gap["first"], &gap["last"]),
        (&json!(second), &json!(third))
    );
    assert_eq!(
        (&gap["segments"], &gap["cuts_off"]),
        (&json!(2), &json!([backup]))
    );
    let status = lab.xdb(&["archive", "status"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(
        status
            .stdout
            .contains(&format!("MISSING: {second} to {third}")),
        "{status:?}"
    );
    let cluster = json_of(&lab.xdb(&["status", "--json"]));
    let recoverable = |status: &Value| {
        let findings = status["findings"].as_array().unwrap().iter();
        let mut found = findings.filter(|finding| finding["check"] == "recoverability");
        found.next().unwrap().clone()
    };
    assert_eq!(recoverable(&cluster)["verdict"], "critical", "{cluster}");

    // One of two is not enough, and more than the gap is refused.
    acknowledge(&segments[0], third).failed(3, "is no gap");
    assert_eq!(acknowledge(second, second).code, 0);
    assert_eq!(verify().code, 1);
    let said = acknowledge(second, third);
    assert_eq!(said.code, 0, "{said:?}");
    let known = verify();
    assert_eq!(known.code, 0, "{known:?}");
    let gap = &json_of(&known)["gaps"][0];
    assert_eq!(gap["acknowledged"]["by"], "anna");
    assert_eq!(gap["acknowledged"]["why"], "the disk died");
    let status = lab.xdb(&["archive", "status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status
            .stdout
            .contains("acknowledged by anna until 2999-12-31"),
        "{status:?}"
    );
    let found = recoverable(&json_of(&lab.xdb(&["status", "--json"])));
    assert_eq!(found["verdict"], "warning", "{found}");
    assert!(
        found["reason"].as_str().unwrap().contains("anna"),
        "{found}"
    );

    // A new backup needs none of it.
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let shown = lab.xdb_json(&["backup", "show", backup.as_str().unwrap()]);
    let gap = shown["windows"][0]["gap"].as_str().unwrap().to_owned();
    assert!(gap.contains(second), "{shown}");
    let latest = lab.xdb_json(&["backup", "show", "LATEST"]);
    assert_ne!(latest["name"], backup);
    assert_eq!(
        (&latest["status"], &latest["permanent"]),
        (&json!("complete"), &json!(false))
    );
    assert_eq!(latest["chain"], json!([latest["name"]]));
    assert!(latest["windows"][0]["gap"].is_null(), "{latest}");
    lab.xdb(&["backup", "show", "base_x"])
        .failed(1, "there is no backup base_x");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_backlog_is_told_while_s3_is_away_and_what_could_not_be_looked_at_is_4() {
    let lab = Lab::start_quiet(Program::Walrus);
    lab.config("[archive]\npush_timeout = \"2s\"");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    archived(&lab, 1);
    let well = lab.xdb(&["archive", "status", "--json"]);
    assert_eq!(well.code, 0, "{well:?}");

    lab.proxy_enabled(false);
    for _ in 0..3 {
        lab.sql("INSERT INTO filler VALUES (1)");
        lab.sql("SELECT pg_switch_wal()");
    }
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    let away = lab.xdb(&["archive", "status", "--json"]);
    away.failed(4, "S3 does not answer");
    let told = json_of(&away);
    assert_eq!(told["pending_files"], json!(3), "{told}");
    assert_eq!(told["pending_bytes"], json!(3 * (16 << 20)), "{told}");
    assert!(told["oldest_pending_secs"].as_f64() > Some(0.0), "{told}");
    assert!(told["free_bytes"].as_u64() > Some(0), "{told}");
    assert!(
        told["verified"].is_null() && told["window"].is_null(),
        "{told}"
    );
    lab.xdb(&["archive", "verify"])
        .failed(4, "S3 does not answer");

    // The age itself is the check's: ten minutes are put on the mark.
    let marks = "/var/lib/postgresql/17/main/pg_wal/archive_status";
    lab.ok(&format!("touch -d '10 minutes ago' {marks}/*.ready"));
    let said = lab.xdb(&["check", "archive-backlog-age", "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(json_of(&said)[0]["verdict"], "warning", "{said:?}");

    // The disk is read without a server, too; a host without a data directory says so.
    lab.proxy_enabled(true);
    lab.service("postgres", Service::Down);
    let down = lab.xdb(&["archive", "status", "--json"]);
    assert!(json_of(&down)["pending_files"].is_u64(), "{down:?}");
    assert_eq!(lab.xdb(&["archive", "verify"]).code, 0);
    lab.config("[postgres]\ndata_directory = \"/nowhere\"");
    lab.xdb(&["archive", "status"])
        .failed(4, "cannot read /nowhere/pg_wal");
}

#[test]
fn no_segment_is_called_missing_across_two_promotions_inside_one_segment() {
    let lab = Lab::start_quiet(Program::Walrus);
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    archived(&lab, 2);
    // It crashes, comes back as a standby and is promoted: twice, before the segment is full. A shutdown would end it.
    for timeline in [2, 3] {
        lab.crash_and_promote();
        eventually("the history is archived", SOON, || {
            (lab.sh(&format!("ls {STORED}/{timeline:08X}.history*")).code == 0).then_some(())
        });
    }
    let segments = archived(&lab, 2);
    let first = segments[0].strip_prefix("00000003").expect("timeline 3");
    // The fault took effect: of this segment the older timelines stored no whole one.
    let whole = lab.ok(&format!("ls {STORED} | grep -c '{first}.lz4'"));
    assert_eq!(whole, "1", "{segments:?}");
    let verified = lab.xdb(&["archive", "verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let seen = json_of(&verified);
    assert_eq!(seen["gaps"], json!([]), "{seen}");
    let shown = lab.xdb_json(&["backup", "show", "LATEST"]);
    let windows = shown["windows"].as_array().unwrap().iter();
    let timelines: Vec<_> = windows.map(|window| window["timeline"].clone()).collect();
    assert_eq!(timelines, [json!(1), json!(2), json!(3)], "{shown}");
}
