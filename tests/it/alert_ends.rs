//! Alerts that somebody else removed, that nothing judges any more, or whose cluster has another name; and the cause that is known.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(90);
/// Two runs of the checks, a minute, and a heartbeat.
const MINUTES: Duration = Duration::from_secs(240);

/// The peers name the node itself: one file serves all nodes.
fn configure(lab: &Lab, cluster: &str, more: &str) {
    let hostname = lab.ok("hostname");
    lab.config(&format!(
        "[cluster]\nname = \"{cluster}\"\npeers = \"{hostname}:8009\"\n[schedule]\nchecks = \"1s\"\n\
         [redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n{more}",
    ));
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon answers", SOON, || {
        (lab.sh("curl -sf -m 5 http://127.0.0.1:8009/healthz").code == 0).then_some(())
    });
    daemon
}

fn stop(daemon: Background<'_>) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

fn redis(lab: &Lab, command: &str) -> String {
    let said = lab.ok(&format!(
        "redis-cli --no-auth-warning --raw -a lab-password {command}"
    ));
    said.trim().to_owned()
}

/// A node's alert as the cluster's hash shows it.
fn alert(lab: &Lab, cluster: &str, check: &str) -> Option<Value> {
    let key = format!("HGET xdb:{cluster}:alerts:active {check}/$(hostname)/");
    serde_json::from_str(&redis(lab, &key)).ok()
}

/// The kinds of a check's events in the cluster's stream, in order.
fn story(lab: &Lab, cluster: &str, check: &str) -> Vec<String> {
    let stream = redis(lab, &format!("XRANGE xdb:{cluster}:alerts:events - +"));
    let events = stream
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["check"] == check)
        .filter_map(|event| event["kind"].as_str().map(str::to_owned))
        .collect()
}

/// The checks of all events in the stream, in order.
fn told(lab: &Lab) -> Vec<String> {
    let stream = redis(lab, "XRANGE xdb:main:alerts:events - +");
    let events = stream
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter_map(|event| event["check"].as_str().map(str::to_owned))
        .collect()
}

/// Puts a field into the hash that no daemon wrote.
fn plant(lab: &Lab, check: &str, node: &str, json: &str) {
    lab.ok(&format!(
        "redis-cli --no-auth-warning -a lab-password HSET xdb:main:alerts:active {check}/{node}/ '{json}'"
    ));
}

fn planted(check: &str, node: &str) -> String {
    format!(
        r#"{{"v":1,"check":"{check}","node":"{node}","object":"","severity":"critical","since":"2020-05-13T10:14:29Z","reason":"planted","value":null,"threshold":null,"runbook":null,"reporter":"{node}"}}"#
    )
}

#[test]
fn hash_stream_and_channel_tell_one_story_whatever_others_do_to_them() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    configure(&lab, "main", "");
    let daemon = start(&lab);
    eventually("a base backup is there", SOON, || {
        let list = lab.xdb(&["backup", "list"]);
        list.stdout.contains("complete").then_some(())
    });
    s3_is_named(&lab);
    let daemon = alerts_outlive_a_restart(&lab, daemon);
    let hostname = lab.ok("hostname");
    // Of a check that is not there any more, of a node that is gone, and one that cannot be read.
    plant(
        &lab,
        "removed-check",
        &hostname,
        &planted("removed-check", &hostname),
    );
    plant(&lab, "archiver", "old-db", &planted("archiver", "old-db"));
    plant(&lab, "garbage", &hostname, "no JSON");
    // Of a job whose last run was good: its next one is a day away.
    plant(
        &lab,
        "base-backup",
        &hostname,
        &planted("base-backup", &hostname),
    );
    let daemon = raised_again(&lab, daemon);
    for check in ["removed-check", "archiver", "garbage", "base-backup"] {
        eventually(&format!("{check} ends, and is told"), MINUTES, || {
            let gone = !redis(&lab, "HKEYS xdb:main:alerts:active").contains(check);
            let last = story(&lab, "main", check).pop();
            (gone && last.as_deref() == Some("resolved")).then_some(())
        });
    }
    renamed(&lab, daemon);
}

/// The first alert of an outage is the one that names it, and it follows what is seen.
fn s3_is_named(lab: &Lab) {
    // One node alone lacks a standby; that is told before the outage, not in its midst.
    eventually("the missing standby is told", SOON, || {
        alert(lab, "main", "replication-lag")
    });
    let before = told(lab).len();
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    let alert_of_s3 = eventually("the outage is an alert", SOON, || alert(lab, "main", "s3"));
    let reason = |alert: &Value| alert["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(alert_of_s3["severity"], "critical", "{alert_of_s3}");
    assert!(
        reason(&alert_of_s3).contains("S3 does not answer"),
        "{alert_of_s3}"
    );
    // What a slow machine makes of PostgreSQL is no symptom of S3.
    let events = told(lab).split_off(before);
    let mut events = events.iter().filter(|check| *check != "postgresql-up");
    assert_eq!(events.next().map(String::as_str), Some("s3"), "{events:?}");

    // S3 answers again, but refuses: the standing alert says so.
    lab.answer_always(503);
    eventually("the reason follows", SOON, || {
        let alert = alert(lab, "main", "s3")?;
        (!reason(&alert).contains("does not answer")).then_some(())
    });
    assert_eq!(story(lab, "main", "s3"), ["raised"]);
    lab.upstream("127.0.0.1:7070");
    eventually("the outage is over", SOON, || {
        alert(lab, "main", "s3").is_none().then_some(())
    });
    assert_eq!(story(lab, "main", "s3"), ["raised", "resolved"]);
}

/// The next daemon must ask S3 and itself before it judges them.
fn alerts_outlive_a_restart<'a>(lab: &'a Lab, daemon: Background<'a>) -> Background<'a> {
    let configuration = || {
        let key =
            "HGET xdb:main:alerts:active configuration/$(hostname)//etc/xdb/checks/broken.toml";
        serde_json::from_str::<Value>(&redis(lab, key)).ok()
    };
    lab.ok("mkdir -p /etc/xdb/checks && echo nonsense > /etc/xdb/checks/broken.toml");
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    eventually("both are alerts", SOON, || {
        alert(lab, "main", "s3").and(configuration())
    });
    let before = (
        alert(lab, "main", "s3"),
        story(lab, "main", "s3"),
        story(lab, "main", "configuration"),
    );
    stop(daemon);
    let restarted = lab.ok("date -u '+%F %T'");
    let daemon = start(lab);
    eventually("the next daemon asks S3 in vain", SOON, || {
        let status: Value = serde_json::from_str(&lab.http("api/status").1).ok()?;
        status["evidence"]["base_backup_error"].as_str().map(drop)
    });
    let after = (
        alert(lab, "main", "s3"),
        story(lab, "main", "s3"),
        story(lab, "main", "configuration"),
    );
    // The reason names the beginning of the alert, not the first attempt of this daemon.
    let since = |alert: &Option<Value>| alert.as_ref()?["since"].as_str().map(str::to_owned);
    assert_eq!(since(&after.0), since(&before.0));
    let reason = after.0.as_ref().and_then(|alert| alert["reason"].as_str());
    let began = reason.and_then(|reason| {
        let began = reason.split_once("since ")?.1;
        began.get(..19).map(str::to_owned)
    });
    assert!(
        began.as_ref().is_some_and(|began| *began < restarted),
        "{restarted}: {reason:?}"
    );
    assert_eq!((&after.1, &after.2), (&before.1, &before.2));
    assert!(configuration().is_some());
    assert_eq!(story(lab, "main", "node"), [""; 0]);
    lab.ok("rm /etc/xdb/checks/broken.toml");
    lab.proxy_enabled(true);
    eventually("both are over", SOON, || {
        let over = alert(lab, "main", "s3").is_none() && configuration().is_none();
        over.then_some(())
    });
    let stories = (before.1, before.2);
    for (check, mut told) in [("s3", stories.0), ("configuration", stories.1)] {
        told.push("resolved".to_owned());
        assert_eq!(story(lab, "main", check), told);
    }
    daemon
}

/// By hand while the daemon runs, and by the survivor while it does not.
fn raised_again<'a>(lab: &'a Lab, daemon: Background<'a>) -> Background<'a> {
    const CHECK: &str = "postgresql-up";
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    eventually("the alert is raised", SOON, || alert(lab, "main", CHECK));
    let raised = || {
        let story = story(lab, "main", CHECK);
        story.iter().filter(|kind| *kind == "raised").count()
    };
    let before = raised();
    let delete = format!("HDEL xdb:main:alerts:active {CHECK}/$(hostname)/");
    assert_eq!(redis(lab, &delete), "1");
    eventually("it is shown and told again", SOON, || {
        let again = raised() == before + 1;
        (again && alert(lab, "main", CHECK).is_some()).then_some(())
    });

    stop(daemon);
    assert_eq!(redis(lab, &delete), "1");
    let daemon = start(lab);
    eventually("it is told once more", SOON, || {
        let told = raised() == before + 2;
        (told && alert(lab, "main", CHECK).is_some()).then_some(())
    });
    lab.service("postgres", Service::Up);
    eventually("it is over", SOON, || {
        alert(lab, "main", CHECK).is_none().then_some(())
    });
    daemon
}

/// The alert of a PostgreSQL that is down ends under the old name and stands under the new one, in Redis and for a receiver.
fn renamed(lab: &Lab, daemon: Background<'_>) {
    const CHECK: &str = "postgresql-up";
    const RECEIVER: &str =
        "[[notify]]\nname = \"hook\"\nformat = \"json\"\nurl = \"http://127.0.0.1:9999/\"";
    stop(daemon);
    configure(lab, "main", RECEIVER);
    let daemon = start(lab);
    let script = include_str!("harness/receiver.pl");
    lab.write_file("/tmp/receiver.pl", script, "root:root", "0644");
    let _web = lab.in_background(&["perl", "/tmp/receiver.pl", "9999"]);
    let received = || -> Vec<String> {
        let all = lab.sh("cat /tmp/received").stdout;
        let bodies = all.lines().filter_map(|line| line.strip_prefix("POST / "));
        let events = bodies.filter_map(|body| serde_json::from_str::<Value>(body).ok());
        let text = |event: &Value, name: &str| event[name].as_str().unwrap_or("?").to_owned();
        let events = events.filter(|event| event["check"] == CHECK);
        events
            .map(|event| format!("{} {}", text(&event, "cluster"), text(&event, "kind")))
            .collect()
    };
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    eventually("the alert is raised", SOON, || alert(lab, "main", CHECK));
    stop(daemon);
    configure(lab, "other", RECEIVER);
    let daemon = start(lab);
    eventually("nothing stands under the old name", MINUTES, || {
        (redis(lab, "HLEN xdb:main:alerts:active") == "0").then_some(())
    });
    let last = story(lab, "main", CHECK).pop();
    assert_eq!(last.as_deref(), Some("resolved"));
    eventually("it stands under the new name", SOON, || {
        alert(lab, "other", CHECK)
    });
    assert_eq!(story(lab, "other", CHECK), ["raised"]);
    lab.service("postgres", Service::Up);
    eventually("it is over", SOON, || {
        alert(lab, "other", CHECK).is_none().then_some(())
    });
    let last = story(lab, "other", CHECK).pop();
    assert_eq!(last.as_deref(), Some("resolved"));
    let expected = [
        "main raised",
        "main resolved",
        "other raised",
        "other resolved",
    ];
    eventually("the receiver hears of both names", SOON, || {
        (received() == expected).then_some(())
    });
    stop(daemon);
}
