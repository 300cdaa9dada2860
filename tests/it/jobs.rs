//! `xdb jobs`, `xdb run` and the verbs that run a job: history, alerts and the cluster's memory, with or without a daemon.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(60);
const SUCCESSES: &str = "/srv/s3/walg-test/xdb/main/jobs";

fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\nchecks = \"1s\"",
    );
    lab
}

/// The alert on `check` as Redis shows it now.
fn alert(lab: &Lab, check: &str) -> Option<Value> {
    let shown = lab.redis("HVALS xdb:main:alerts:active");
    let alerts = shown
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    alerts.into_iter().find(|alert| alert["check"] == check)
}

/// What `xdb jobs` says of `job`.
fn listed(lab: &Lab, job: &str) -> Value {
    let jobs = lab.xdb(&["jobs", "--json"]).succeeded("xdb jobs");
    let jobs: Vec<Value> = serde_json::from_str(&jobs).expect("a JSON array");
    let found = jobs.into_iter().find(|listed| listed["job"] == job);
    found.unwrap_or_else(|| panic!("no job {job}"))
}

fn success(lab: &Lab, job: &str) -> Option<Value> {
    let read = lab.sh(&format!("cat {SUCCESSES}/{job}.json"));
    serde_json::from_str(&read.stdout).ok()
}

/// Writes what another node last did, this long ago.
fn done_by_db9(lab: &Lab, job: &str, ago: &str, detail: &Value) {
    let at = lab.ok(&format!("date -u -d '{ago}' +%FT%TZ"));
    let content = json!({ "v": 1, "job": job, "node": "db9", "started_at": at, "elapsed_secs": 1.5, "detail": detail });
    lab.put_object(
        &format!("walg-test/xdb/main/jobs/{job}.json"),
        &content.to_string(),
    );
}

fn backups(lab: &Lab) -> usize {
    let list = lab.xdb(&["backup", "list", "--json"]).stdout;
    serde_json::from_str::<Vec<Value>>(&list).map_or(0, |all| all.len())
}

fn ended(output: &Output, code: i32, words: &str) {
    assert_eq!(output.code, code, "{output:?}");
    assert!(output.stderr.contains(words), "{words:?}: {output:?}");
    for secret in ["lab-secret-key", "lab-password"] {
        assert!(!output.stderr.contains(secret), "{output:?}");
    }
}

#[test]
fn a_verb_leaves_history_alert_and_the_clusters_memory_without_a_daemon() {
    let lab = lab();
    assert_eq!(listed(&lab, "base-backup")["last_run"], Value::Null);
    lab.proxy_enabled(false);
    ended(&lab.xdb(&["backup", "push"]), 4, "S3 does not answer");
    let raised = alert(&lab, "base-backup").expect("the alert is in Redis");
    assert_eq!(raised["severity"], "unknown");
    // The list is read without S3, too, and says so.
    let jobs = lab.xdb(&["jobs"]);
    ended(&jobs, 4, "what other nodes did is not known");
    assert!(jobs.stdout.contains("unknown, "), "{jobs:?}");

    lab.proxy_enabled(true);
    let pushed = lab.xdb(&["backup", "push", "--json"]).succeeded("push");
    let pushed: Value = serde_json::from_str(&pushed).expect("JSON alone");
    assert_eq!(alert(&lab, "base-backup"), None);
    let told = success(&lab, "base-backup").expect("the bucket is told");
    assert_eq!(
        (&told["v"], &told["detail"]["backup"]),
        (&json!(1), &pushed["backup"])
    );
    let listed = listed(&lab, "base-backup");
    assert_eq!(listed["last_run"]["verdict"], "ok");
    assert_eq!(listed["last_success"], told);
    let shown: Value = serde_json::from_str(&lab.redis("GET xdb:main:job:base-backup")).unwrap();
    assert_eq!(shown, told);
    let left: u64 = lab.redis("TTL xdb:main:job:base-backup").parse().unwrap();
    assert!((47 * 3600..=48 * 3600).contains(&left), "{left}");
    lab.assert_nothing_left_behind();
}

#[test]
fn the_work_comes_first_where_redis_or_the_store_is_away() {
    let lab = lab();
    lab.service("redis", Service::Down);
    assert_ne!(
        lab.sh("redis-cli -a lab-password ping").stdout.trim(),
        "PONG"
    );
    ended(&lab.xdb(&["backup", "push"]), 0, "did not reach Redis");
    lab.service("redis", Service::Up);

    // Of another user: what SQLite made there would shut that one out.
    lab.ok("install -d -o root /var/lib/other && chmod 0755 /var/lib/other");
    let tested = lab.sh_as_postgres("XDB_NODE_STATE_DIRECTORY=/var/lib/other xdb restore-test");
    ended(&tested, 0, "leaves no history and no alert");
    assert!(
        tested
            .stderr
            .contains("HINT: run xdb as the database's user"),
        "{tested:?}"
    );
    assert!(tested.stdout.contains("PASSED"), "{tested:?}");
    assert_eq!(lab.ok("ls -A /var/lib/other"), "");
    assert_eq!(success(&lab, "restore-test"), None);

    // A file that is none.
    lab.ok("rm -f /var/lib/xdb/xdb.db* && install -d -o postgres /var/lib/xdb/xdb.db");
    ended(
        &lab.xdb(&["backup", "push"]),
        0,
        "leaves no history and no alert",
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn only_what_says_the_same_as_the_job_counts_as_the_job() {
    let lab = lab();
    lab.xdb(&["backup", "push"]).succeeded("push");
    let name = success(&lab, "base-backup").unwrap()["detail"]["backup"].clone();
    for other in [
        &["restore-test", "--sql", "SELECT true"][..],
        &["restore-test", "--backup", name.as_str().unwrap()],
        &["restore-test", "--repository", "s3://walg-test/main/pg17"],
        &["dump", "push", "--database", "postgres"],
    ] {
        lab.xdb(other).succeeded(&other.join(" "));
    }
    assert_eq!(success(&lab, "restore-test"), None);
    assert_eq!(success(&lab, "dump"), None);
    lab.xdb(&["restore-test"]).succeeded("restore-test");
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    let tested = success(&lab, "restore-test").unwrap();
    assert_eq!(tested["detail"]["backup"], name);
    assert!(tested["detail"]["rto_secs"].is_number(), "{tested}");
    assert!(success(&lab, "dump").unwrap()["detail"]["set"].is_string());
}

#[test]
fn run_is_refused_for_the_other_role_and_while_another_run_goes_on() {
    let lab = lab();
    for job in ["dump", "restore-test"] {
        let refused = lab.xdb(&["run", job]);
        ended(
            &refused,
            3,
            "runs on the replica, and this node is the primary",
        );
        assert!(refused.stderr.contains("HINT:"), "{refused:?}");
    }
    assert_eq!(lab.xdb(&["run", "nothing"]).code, 2);
    let looked = lab.xdb(&["run", "checks"]);
    ended(&looked, 1, "HINT: see `xdb check`");
    assert!(
        looked.stdout.starts_with("checks: critical, in "),
        "{looked:?}"
    );

    // The daemon's own first backup, slowed down so that it is at work.
    lab.toxic(
        "slow",
        json!({ "type": "bandwidth", "stream": "upstream", "attributes": { "rate": 200 } }),
    );
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon's backup holds the lock", SOON, || {
        let lock = lab.sh("cat /srv/s3/walg-test/xdb/main/locks/base-backup");
        (lock.code == 0).then_some(())
    });
    ended(
        &lab.xdb(&["run", "base-backup"]),
        3,
        "another base backup is being pushed",
    );
    ended(
        &lab.xdb(&["backup", "push"]),
        3,
        "another base backup is being pushed",
    );
    lab.remove_toxic("slow");
    eventually("the daemon's backup is done", SOON, || {
        success(&lab, "base-backup")
    });
    // Neither of the two left a run or an alert.
    assert_eq!(alert(&lab, "base-backup"), None);
    assert_eq!(listed(&lab, "base-backup")["last_run"]["verdict"], "ok");

    let ran = lab.xdb(&["run", "base-backup"]);
    ended(&ran, 0, "");
    assert!(ran.stdout.starts_with("base-backup: ok, in "), "{ran:?}");
    assert_eq!(backups(&lab), 2);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    lab.service("postgres", Service::Down);
    ended(
        &lab.xdb(&["run", "base-backup"]),
        4,
        "the role of this node is not known",
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn what_another_node_has_just_done_is_not_done_again() {
    let lab = lab();
    let identifier = lab.sql("SELECT system_identifier FROM pg_control_system()");
    let identifier: u64 = identifier.parse().unwrap();
    let of = |identifier: u64| json!({ "system_identifier": identifier });
    done_by_db9(&lab, "base-backup", "1 minute ago", &of(identifier));
    let daemon = lab.xdb_in_background(&["daemon"]);
    let shown = eventually("the daemon knows of it", SOON, || {
        serde_json::from_str::<Value>(&lab.redis("GET xdb:main:job:base-backup")).ok()
    });
    assert_eq!(shown["node"], "db9");
    // No standby for half a minute is an alert: by then the daemon has had its chance.
    eventually("the daemon looks and works", SOON, || {
        alert(&lab, "replication-lag")
    });
    assert_eq!(backups(&lab), 0);
    let listed = listed(&lab, "base-backup");
    assert_eq!(listed["last_success"]["node"], "db9");
    assert_eq!(listed["last_run"], Value::Null);
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);

    // Done for another cluster, as before an upgrade, it is not done: due at once.
    done_by_db9(&lab, "base-backup", "1 minute ago", &of(identifier + 1));
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon backs up", SOON, || {
        (backups(&lab) == 1).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn what_another_node_is_at_is_put_off_without_an_alert() {
    let lab = lab();
    let lock = |expires: &str| {
        let expires = lab.ok(&format!("date -u -d '{expires}' +%FT%TZ"));
        let lock =
            json!({ "v": 1, "hostname": "db9", "pid": 7, "since": expires, "expires": expires });
        lab.put_object("walg-test/xdb/main/locks/base-backup", &lock.to_string());
    };
    lock("1 hour");
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon had its chance", SOON, || {
        alert(&lab, "replication-lag")
    });
    assert_eq!(alert(&lab, "base-backup"), None);
    assert_eq!(listed(&lab, "base-backup")["last_run"], Value::Null);
    lock("1 second ago");
    eventually("the daemon backs up", SOON, || {
        (backups(&lab) == 1).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn after_a_promotion_the_clusters_work_waits_also_over_a_restart() {
    let lab = lab();
    let data = "/var/lib/postgresql/17/main";
    lab.service("postgres", Service::Down);
    lab.ok(&format!(
        "install -o postgres /dev/null {data}/standby.signal"
    ));
    lab.service("postgres", Service::Up);
    assert_eq!(lab.sql("SELECT pg_is_in_recovery()"), "t");
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the replica's dump is done", SOON, || success(&lab, "dump"));
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);

    // Promoted while nobody looked.
    assert_eq!(lab.sql("SELECT pg_promote()"), "t");
    let daemon = lab.xdb_in_background(&["daemon"]);
    let waits = || {
        let next = listed(&lab, "base-backup")["next_run"].as_str()?.to_owned();
        let left = lab.ok(&format!(
            "echo $(( ($(date -d {next} +%s) - $(date +%s)) / 60 ))"
        ));
        (left.parse::<i64>().ok()? >= 28).then_some(())
    };
    eventually("the first base backup waits for half an hour", SOON, waits);
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the primary is served", SOON, || {
        let asked = lab.sh("curl -s -m 5 --fail http://127.0.0.1:8009/primary");
        (asked.code == 0).then_some(())
    });
    assert_eq!(waits(), Some(()));
    assert_eq!(backups(&lab), 0);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn an_old_success_is_an_alert_of_the_cluster_until_the_next_one() {
    let lab = lab();
    lab.ok("install -d /etc/xdb/checks && sed 's/^for = .*/for = \"0s\"/' >/etc/xdb/checks/dump-age.toml <<'EOF'\n\
            title = \"t\"\nkind = \"age\"\njob = \"dump\"\nwarning = \"30h\"\ncritical = \"54h\"\nfor = \"2h\"\nEOF");
    let daemon = lab.xdb_in_background(&["daemon"]);
    let raised = eventually("never is an alert", SOON, || alert(&lab, "dump-age"));
    assert_eq!(
        (&raised["severity"], &raised["node"], &raised["reason"]),
        (
            &json!("critical"),
            &json!("cluster"),
            &json!("never succeeded")
        )
    );
    let severity = |severity: &'static str| {
        eventually(severity, SOON, || {
            alert(&lab, "dump-age").filter(|alert| alert["severity"] == severity)
        })
    };
    done_by_db9(&lab, "dump", "1830 minutes ago", &json!({}));
    assert_eq!(
        severity("warning")["reason"],
        "last succeeded 30 h ago on db9 (limit 30 h)"
    );
    lab.proxy_enabled(false);
    // What cannot be looked at is neither good nor over: the alert stands as it was last known.
    let checked = lab.xdb(&["check", "dump-age"]);
    assert_eq!(checked.code, 4, "{checked:?}");
    assert!(alert(&lab, "dump-age").is_some());
    lab.proxy_enabled(true);
    done_by_db9(&lab, "dump", "55 hours ago", &json!({}));
    severity("critical");
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    eventually("the alert is over", SOON, || {
        alert(&lab, "dump-age").is_none().then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);

    let checked = lab.xdb(&["check", "restore-test-age"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stdout.contains("never succeeded"), "{checked:?}");
}
