//! `xdb alerts` beside a daemon, with a receiver and a heartbeat URL, in one lab.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(90);

const RECEIVER: &str =
    "[[notify]]\nname = \"pager\"\nformat = \"json\"\nurl = \"/etc/xdb/hook.url\"";

fn configure(lab: &Lab, receiver: &str) {
    lab.config(&format!(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\nchecks = \"1s\"\n\
         [heartbeat]\nbase_backup = \"http://127.0.0.1:9999/beat?hush\"\n{receiver}"
    ));
}

fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.write_file(
        "/tmp/receiver.pl",
        include_str!("../harness/receiver.pl"),
        "root:root",
        "0644",
    );
    let url = "http://127.0.0.1:9999/hush-hook";
    lab.write_file("/etc/xdb/hook.url", url, "root:postgres", "0640");
    configure(&lab, RECEIVER);
    lab.sql("CREATE TABLE trouble AS SELECT 1 AS value");
    lab.ok("mkdir -p /etc/xdb/checks");
    let own = "title = \"Own\"\nkind = \"sql\"\nquery = \"SELECT value FROM public.trouble\"\n\
               warning = 1\ncritical = 2\n";
    lab.write_file("/etc/xdb/checks/own.toml", own, "root:root", "0644");
    lab
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon answers", SOON, || {
        (lab.http("healthz").0 == 200).then_some(())
    });
    daemon
}

fn receiver(lab: &Lab) -> Background<'_> {
    lab.in_background(&["perl", "/tmp/receiver.pl", "9999"])
}

/// The kinds of the events about `check`, in the stream's order.
fn kinds(lab: &Lab, check: &str) -> Vec<String> {
    let history = lab.xdb_json(&["alerts", "history", "--limit", "1000"]);
    let events = history.as_array().cloned().unwrap_or_default();
    let of_check = events.iter().rev().filter(|event| event["check"] == check);
    of_check
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect()
}

/// The same as the receiver got them.
fn received(lab: &Lab, check: &str) -> Vec<String> {
    let all = lab.sh("cat /tmp/received").stdout;
    let bodies = all
        .lines()
        .filter_map(|line| line.strip_prefix("POST /hush-hook "));
    let events = bodies.filter_map(|body| serde_json::from_str::<Value>(body).ok());
    events
        .filter(|event| event["check"] == check)
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect()
}

fn alert(lab: &Lab, check: &str) -> Option<Value> {
    let listed = lab.xdb_json(&["alerts"]);
    let alerts = listed["alerts"].as_array().cloned().unwrap_or_default();
    alerts.into_iter().find(|alert| alert["check"] == check)
}

fn told(lab: &Lab, check: &str, expected: &[&str]) {
    eventually(&format!("{expected:?}"), SOON, || {
        (kinds(lab, check) == expected && received(lab, check) == expected).then_some(())
    });
}

#[test]
fn people_decide_and_receivers_hear_of_it_whatever_ends_meanwhile() {
    let lab = lab();
    let web = receiver(&lab);
    let daemon = start(&lab);
    told(&lab, "own", &["raised"]);
    eventually("the heartbeat URL is called", SOON, || {
        let all = lab.sh("cat /tmp/received").stdout;
        all.contains("GET /beat?hush").then_some(())
    });

    let said = lab.xdb(&["alerts", "ack", "own", "--author", "eve"]);
    assert_eq!(said.code, 0, "{said:?}");
    told(&lab, "own", &["raised", "acknowledged"]);
    let said = lab.xdb(&["alerts", "ack", "nothing"]);
    said.failed(3, "no alert that stands matches nothing");

    let made = lab.xdb_json(&[
        "alerts",
        "silence",
        "own",
        "--for",
        "1h",
        "--comment",
        "a test",
        "--author",
        "adam",
    ]);
    told(&lab, "own", &["raised", "acknowledged", "silenced"]);
    let status = eventually("status shows it", SOON, || {
        let said = lab.xdb(&["status"]);
        said.stdout.contains("silenced by adam").then_some(said)
    });
    assert_eq!(status.code, 1, "it counts: {status:?}");

    // Killed: the next daemon knows what was told, and a worse severity is news.
    daemon.signal("KILL");
    daemon.wait(SOON);
    lab.sql("UPDATE trouble SET value = 2");
    let daemon = start(&lab);
    let mut expected = vec!["raised", "acknowledged", "silenced", "raised"];
    told(&lab, "own", &expected);
    lab.sql("UPDATE trouble SET value = 1");
    expected.push("silenced");
    told(&lab, "own", &expected);
    let id = made["id"].as_str().unwrap();
    assert_eq!(lab.xdb(&["alerts", "unsilence", id]).code, 0);
    expected.push("raised");
    told(&lab, "own", &expected);
    let said = lab.xdb(&["alerts", "unsilence", id]);
    said.failed(3, &format!("no silence or acknowledgement {id}"));

    // PostgreSQL down: what follows from it is shown, and makes no event.
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    told(&lab, "postgresql-up", &["raised"]);
    eventually("PgBouncer's alert is shown as a consequence", SOON, || {
        let alert = alert(&lab, "pgbouncer-up")?;
        (alert["hidden"] == true).then_some(())
    });
    assert_eq!(kinds(&lab, "pgbouncer-up"), [""; 0]);
    lab.service("postgres", Service::Up);
    told(&lab, "postgresql-up", &["raised", "resolved"]);
    eventually("PgBouncer's alert is over", SOON, || {
        alert(&lab, "pgbouncer-up").is_none().then_some(())
    });
    assert_eq!(kinds(&lab, "pgbouncer-up"), [""; 0]);

    // A misspelt node and a comment that the other node would not take.
    let said = lab.xdb(&["alerts", "silence", "--maintenance", "1d", "--node", "db22"]);
    said.failed(3, "no node of the cluster is named db22");
    let hostname = lab.ok("hostname");
    assert!(
        said.stderr.contains(&format!("known nodes: {hostname}")),
        "{said:?}"
    );
    let long = "x".repeat(1001);
    let said = lab.xdb(&[
        "alerts",
        "silence",
        "nothing",
        "--for",
        "3d",
        "--comment",
        &long,
    ]);
    assert_eq!(said.code, 2, "{said:?}");
    let limit = "1001 characters, and 1000 are the limit";
    assert!(said.stderr.contains(limit), "{said:?}");
    let made = lab.xdb_json(&[
        "alerts",
        "silence",
        "--maintenance",
        "1d",
        "--node",
        &hostname,
    ]);
    let id = made["id"].as_str().unwrap();
    assert_eq!(lab.xdb(&["alerts", "unsilence", id]).code, 0);

    // The receiver goes away: Redis says so, and it gets what it missed.
    assert_eq!(lab.xdb(&["alerts", "test"]).code, 0);
    web.signal("KILL");
    web.wait(SOON);
    let said = lab.xdb(&["alerts", "test"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("cannot be reached"), "{said:?}");
    lab.sql("UPDATE trouble SET value = 0");
    let missed = eventually("alert-delivery", SOON, || alert(&lab, "alert-delivery"));
    assert_eq!(missed["object"], "pager", "{missed}");
    assert_eq!(missed["runbook"], "runbooks/alert-delivery.md");
    lab.ok("for path in '' api/status metrics; do curl -sS http://127.0.0.1:8009/$path; done >/tmp/page");
    let daemon = restarted_with_a_mistake(&lab, daemon);
    let _web = receiver(&lab);
    expected.push("resolved");
    told(&lab, "own", &expected);
    eventually("the receiver is well", SOON, || {
        let all = ["raised", "resolved", "resolved"];
        (kinds(&lab, "alert-delivery") == all).then_some(())
    });
    // Of the former one alone, not of itself.
    assert_eq!(received(&lab, "alert-delivery"), ["resolved"]);

    // Neither Redis, the settings nor a log show a URL.
    let in_redis = lab.ok(
        "for key in $(redis-cli --no-auth-warning -a lab-password KEYS 'xdb:*'); do
            redis-cli --no-auth-warning -a lab-password HGETALL $key
            redis-cli --no-auth-warning -a lab-password GET $key
        done; redis-cli --no-auth-warning -a lab-password XRANGE xdb:main:alerts:events - +",
    );
    assert!(in_redis.contains("cannot be reached"), "{in_redis}");
    let shown = lab.xdb(&["config", "show"]).stdout;
    assert!(shown.contains("/etc/xdb/hook.url"), "{shown}");
    daemon.signal("TERM");
    let ended = daemon.wait(SOON);
    assert!(
        ended.stderr.contains("cannot be reached") || ended.stdout.contains("cannot be reached")
    );
    let page = lab.ok("cat /tmp/page");
    for text in [&shown, &in_redis, &page, &ended.stdout, &ended.stderr] {
        assert!(!text.contains("hush"), "{text}");
    }
}

/// A receiver whose section cannot be read is not gone: neither is what waits for it, nor its alert.
fn restarted_with_a_mistake<'a>(lab: &'a Lab, daemon: Background<'_>) -> Background<'a> {
    daemon.signal("TERM");
    daemon.wait(SOON);
    configure(lab, &RECEIVER.replace("json", "jsn"));
    let daemon = start(lab);
    // Nothing is known of a receiver "gone", in the end, though Redis has an alert about it.
    let gone = "redis-cli --no-auth-warning -a lab-password HSET xdb:main:alerts:active alert-delivery/$(hostname)/gone '{}'";
    lab.ok(gone);
    eventually("the node has judged", SOON, || {
        let said = lab.xdb(&["status"]);
        said.stdout.contains("alert-delivery").then_some(())
    });
    assert!(alert(lab, "alert-delivery").is_some());
    daemon.signal("TERM");
    daemon.wait(SOON);
    configure(lab, RECEIVER);
    let daemon = start(lab);
    eventually("the alert of a former receiver ends", SOON, || {
        let listed = lab.xdb_json(&["alerts"]);
        let alerts = listed["alerts"].as_array().cloned().unwrap_or_default();
        let mut objects = alerts.iter().map(|alert| &alert["object"]);
        (!objects.any(|object| object == "gone")).then_some(())
    });
    daemon
}
