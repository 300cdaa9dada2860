//! The headline: the live RPO in every state of the archive, the live RTO, and what was proven.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(60);
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";

/// Nothing ends a segment but the test, or xdb where `switch_wal` lets it; the objective is short.
fn lab(switch_wal: bool) -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    configure(&lab, switch_wal);
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE t (id int)");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    insert(&lab);
    archive_all(&lab);
    lab
}

fn configure(lab: &Lab, switch_wal: bool) {
    lab.config(&format!(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\ndump = \"0 0 1 1 *\"\nbase_backup = \"0 0 1 1 *\"\n\
         [archive]\nrpo_objective = \"8s\"\nrpo_critical = \"16s\"\nswitch_wal = {switch_wal}"
    ));
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon has measured the RPO", SOON, || {
        (!status(lab)["rpo"]["measured_at"].is_null()).then_some(())
    });
    daemon
}

fn stop(daemon: Background<'_>) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

/// Null while the daemon does not answer.
fn status(lab: &Lab) -> Value {
    let said = lab.sh("curl -sf -m 5 http://127.0.0.1:8009/api/status");
    serde_json::from_str(&said.stdout).unwrap_or_default()
}

fn rpo(lab: &Lab) -> Option<f64> {
    status(lab)["rpo"]["secs"].as_f64()
}

#[track_caller]
fn rpo_reaches(lab: &Lab, what: &str, secs: f64) -> f64 {
    eventually(what, SOON, || rpo(lab).filter(|rpo| *rpo >= secs))
}

#[track_caller]
fn rpo_is_zero(lab: &Lab, what: &str) {
    eventually(what, SOON, || {
        rpo(lab).filter(|rpo| *rpo == 0.0).map(|_| ())
    });
}

fn archive_all(lab: &Lab) {
    let segment = lab.sql("SELECT pg_walfile_name(pg_switch_wal())");
    eventually("the segment is stored", SOON, || {
        let listed = lab.sh(&format!("ls {STORED}/{segment}.lz4"));
        (listed.code == 0).then_some(())
    });
}

fn insert(lab: &Lab) {
    lab.sql("INSERT INTO t VALUES (1)");
}

/// How many segments the server has begun.
fn segments(lab: &Lab) -> u64 {
    let count = "SELECT ((pg_current_wal_insert_lsn() - '0/0') / 16777216)::int";
    lab.sql(count).parse().unwrap()
}

fn alert(lab: &Lab) -> Option<Value> {
    let get = "redis-cli --no-auth-warning -a lab-password HGET xdb:main:alerts:active archive-rpo/cluster/";
    serde_json::from_str(&lab.ok(get)).ok()
}

fn finding(status: &Value, check: &str) -> String {
    let findings = status["findings"].as_array().into_iter().flatten();
    let mut found = findings.filter(|finding| finding["check"] == check);
    let found = found.next().map(|found| found["verdict"].to_string());
    found.unwrap_or_default().trim_matches('"').to_owned()
}

#[test]
fn the_live_rpo_is_the_age_of_the_oldest_commit_that_the_bucket_does_not_hold() {
    let lab = lab(false);
    let daemon = start(&lab);
    rpo_is_zero(&lab, "all is archived");

    // WAL of an idle server is behind the archive's end, and no commit: nothing is lost with it.
    lab.sql("CHECKPOINT");
    let ahead = eventually("the checkpoint's WAL is not archived", SOON, || {
        let status = status(&lab);
        let to = status["evidence"]["base_backup"]["to"]["lsn"].as_str()?;
        let ahead = format!("SELECT pg_current_wal_lsn() - '{to}' BETWEEN 1 AND 16777215");
        (lab.sql(&ahead) == "t").then_some(status["rpo"]["measured_at"].clone())
    });
    eventually("it was measured since", SOON, || {
        let rpo = &status(&lab)["rpo"];
        // On a busy machine a measurement can be some seconds old, and is then an upper bound.
        let is_bound = rpo["at_most"] == true;
        assert!(is_bound || rpo["secs"] == 0.0, "{rpo}");
        (!is_bound && rpo["measured_at"] != ahead).then_some(())
    });

    // A commit that waits ages, is told, and is over once it is archived.
    insert(&lab);
    rpo_reaches(&lab, "a commit waits", 3.0);
    let raised = eventually("the alert is critical", SOON, || {
        alert(&lab).filter(|alert| alert["severity"] == "critical")
    });
    assert_eq!(raised["runbook"], "runbooks/archive-rpo.md", "{raised}");
    let said = lab.xdb(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stdout.contains("CRITICAL     archive-rpo/cluster/"),
        "{said:?}"
    );
    let key = lab.ok("redis-cli --no-auth-warning -a lab-password GET xdb:main:node:$(hostname)");
    let key: Value = serde_json::from_str(&key).unwrap();
    assert!(key["live_rpo"].is_object(), "{key}");
    archive_all(&lab);
    rpo_is_zero(&lab, "the commit is archived");
    eventually("the alert is over", SOON, || {
        alert(&lab).is_none().then_some(())
    });

    // A daemon that begins does not know of a commit, and never says that there is none.
    insert(&lab);
    let age = rpo_reaches(&lab, "a commit waits", 1.0);
    stop(daemon);
    let daemon = start(&lab);
    // Until it was measured it is unknown, which is no claim that nothing is lost.
    let first = eventually("the new daemon measured it", SOON, || rpo(&lab));
    assert!(first >= age, "{first} after {age}");

    // PostgreSQL ends, and archives all; after its start a commit counts from its first second.
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    lab.service("postgres", Service::Up);
    rpo_is_zero(&lab, "the end of the server archived all");
    insert(&lab);
    rpo_reaches(&lab, "a commit waits after the restart", 2.0);
    archive_all(&lab);
    rpo_is_zero(&lab, "it is archived");

    // While S3 is away what was known stands, and a commit ages.
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    insert(&lab);
    lab.sql("SELECT pg_switch_wal()");
    rpo_reaches(&lab, "a commit waits for S3", 3.0);
    let blind = eventually("the daemon cannot read the bucket", SOON, || {
        Some(status(&lab)).filter(|status| status["evidence"]["base_backup_error"].is_string())
    });
    let answer = blind["answer"].as_str().unwrap();
    assert!(
        answer.contains(": recoverable to 0/")
            && answer.contains("; RPO ")
            && answer.contains("S3 does not answer"),
        "{answer}"
    );
    assert!(!answer.contains("recoverability unknown"), "{answer}");
    assert_eq!(finding(&blind, "recoverability"), "unknown");
    lab.proxy_enabled(true);
    rpo_is_zero(&lab, "S3 is back");

    // After a promotion the WAL of both timelines counts.
    insert(&lab);
    lab.crash_and_promote();
    eventually("the daemon leads on timeline 2", SOON, || {
        let status = status(&lab);
        let node = &status["nodes"][0];
        (node["role"] == "primary" && node["timeline"] == 2).then_some(())
    });
    rpo_reaches(&lab, "the commit of timeline 1 is not archived", 1.0);
    archive_all(&lab);
    rpo_is_zero(&lab, "timeline 2 is archived");
    insert(&lab);
    rpo_reaches(&lab, "a commit of timeline 2 waits", 1.0);
    stop(daemon);

    // Without a daemon `xdb status` measures by itself, and its document has no shapes of Rust's.
    let said = lab.xdb(&["status", "--json"]).stdout;
    let once: Value = serde_json::from_str(&said).unwrap();
    assert!(once["rpo"]["secs"].as_f64() > Some(0.0), "{once}");
    for shape in ["\"Ok\"", "\"Err\"", "\"Some\""] {
        assert!(!said.contains(shape), "{shape}: {said}");
    }
    lab.assert_nothing_left_behind();
}

#[test]
fn the_daemon_ends_a_segment_in_time_and_the_live_rto_is_that_of_the_plan() {
    let lab = lab(true);
    let daemon = start(&lab);
    rpo_is_zero(&lab, "all is archived");
    let before = segments(&lab);
    insert(&lab);
    rpo_reaches(&lab, "a commit waits", 1.0);
    rpo_is_zero(&lab, "xdb ended the segment, and it was archived");
    let ended = segments(&lab);
    // A second one where the first took longer than half the objective.
    assert!((before + 1..=before + 2).contains(&ended), "{ended}");

    // While S3 is away another segment would only fill the volume.
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    insert(&lab);
    rpo_reaches(&lab, "the objective is missed twice over", 20.0);
    assert!(segments(&lab) <= ended + 1, "{}", segments(&lab));
    lab.proxy_enabled(true);
    rpo_is_zero(&lab, "S3 is back");

    // No test has told how fast a restore is.
    assert_eq!(status(&lab)["rto"]["secs"], Value::Null);
    let tested = lab.xdb_json(&["restore-test"]);
    for _ in 0..6 {
        insert(&lab);
        archive_all(&lab);
    }
    let plan = |lab: &Lab| {
        lab.xdb_json(&[
            "restore",
            "--target-dir",
            "/var/lib/postgresql/plan",
            "--plan",
        ])
    };
    let shown = eventually("status forecasts what the plan does", SOON, || {
        let (status, plan) = (status(&lab), plan(&lab));
        let same = |one: &str, other: &str| {
            let of_plan = plan[other].as_f64();
            of_plan.is_some() && status["rto"][one].as_f64() == of_plan
        };
        let all = same("secs", "expected_secs") && same("high_secs", "expected_high_secs");
        let measured = status["rto"]["measured_secs"] == tested["rto_secs"];
        (all && measured).then_some(status)
    });
    // More WAL than was tested takes longer, and one test gives a range.
    let (low, high) = (&shown["rto"]["low_secs"], &shown["rto"]["high_secs"]);
    assert!(high.as_f64() > low.as_f64(), "{shown}");
    assert!(high.as_f64() > tested["rto_secs"].as_f64(), "{shown}");
    let proof = &shown["evidence"]["proof"];
    assert_eq!(proof["lsn"], tested["recovered_lsn"], "{proof}");
    assert_eq!(proof["backup"], tested["backup"], "{proof}");
    assert_eq!(proof["newest_backup_proven"], true, "{proof}");

    // A newer backup has no proof of its own, and that is said.
    let newer = lab.xdb_json(&["backup", "push", "--full"])["backup"].clone();
    let newer = newer.as_str().unwrap();
    let words = format!("the newest base backup {newer} has no passed restore test");
    eventually("the newer backup is said to be unproven", SOON, || {
        let status = status(&lab);
        let answer = status["answer"].as_str()?;
        let old = tested["backup"].as_str()?;
        (answer.contains(&words) && answer.contains(old)).then_some(())
    });
    stop(daemon);

    // Over its objective the forecast is a warning; and what was read of the dumps is not read again.
    for _ in 0..2 {
        assert_eq!(lab.xdb(&["dump", "push"]).code, 0);
    }
    let objective = "[restore_test]\nrto_objective = \"1ms\"\n[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
                     [schedule]\ndump = \"0 0 1 1 *\"\nbase_backup = \"0 0 1 1 *\"";
    lab.config(objective);
    let daemon = start(&lab);
    let looked = eventually("the forecast is over its objective", SOON, || {
        let status = status(&lab);
        let warned = finding(&status, "restore-objective") == "warning";
        let dumped = status["evidence"]["dump"].is_object();
        (warned && dumped).then(|| status["evidence"]["at"].clone())
    });
    let manifests = || {
        let log = lab.ok("grep -c 'GET.*manifest.json' /var/log/xdb-lab/s3.log || true");
        log.parse::<u32>().unwrap()
    };
    let fetched = manifests();
    assert!(fetched > 0, "S3 logs what is fetched");
    eventually("the buckets are checked again", SOON, || {
        let at = status(&lab)["evidence"]["at"].clone();
        (at.is_string() && at != looked).then_some(())
    });
    assert_eq!(manifests(), fetched);
    stop(daemon);
    lab.assert_nothing_left_behind();
}
