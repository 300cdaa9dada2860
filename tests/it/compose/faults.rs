//! What goes wrong in a cluster is told, once, and is over when it is over.

use std::time::Duration;

use serde_json::Value;

use super::{SOON, metrics};
use crate::harness::{Cluster, eventually};

const MINUTES: Duration = Duration::from_secs(150);
const CHECK: &str = "postgresql-up";

/// The alert on db1's PostgreSQL as the hash shows it now.
fn alert(cluster: &Cluster) -> Option<Value> {
    let shown = cluster.redis(&format!("HGET xdb:main:alerts:active {CHECK}/db1/"));
    serde_json::from_str(shown.stdout.trim()).ok()
}

/// How often `kind` of that alert stands in the stream.
fn told(cluster: &Cluster, kind: &str) -> usize {
    let stream = cluster.redis("XRANGE xdb:main:alerts:events - +").stdout;
    let of_kind = |line: &&str| {
        let event = serde_json::from_str::<Value>(line);
        event.is_ok_and(|event| {
            (&event["check"], &event["node"], &event["kind"])
                == (&CHECK.into(), &"db1".into(), &kind.into())
        })
    };
    stream.lines().filter(of_kind).count()
}

/// How often the application was told of it through the channel, by its own log.
fn heard(cluster: &Cluster, kind: &str) -> usize {
    let said = cluster.dev(&["logs", "app1"]).succeeded("./dev logs");
    let words = [
        format!("\"kind\":\"{kind}\""),
        format!("\"check\":\"{CHECK}\""),
        "\"node\":\"db1\"".to_owned(),
    ];
    let told = |line: &&str| words.iter().all(|word| line.contains(word.as_str()));
    said.lines().filter(told).count()
}

fn stop_postgres(cluster: &Cluster) {
    cluster.sh("db1", "sv -w 30 down postgres").succeeded("sv");
    assert_eq!(cluster.sh("db1", "pgrep -x postgres").code, 1);
}

fn start_postgres(cluster: &Cluster) {
    cluster.sh("db1", "sv up postgres").succeeded("sv");
    eventually("the alert is over", SOON, || {
        alert(cluster).is_none().then_some(())
    });
}

fn daemon(cluster: &Cluster) -> Option<String> {
    let pid = cluster.sh("db1", "pgrep -of '^xdb daemon'").stdout;
    Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty())
}

fn backups(cluster: &Cluster) -> usize {
    let list = cluster.xdb("db1", &["backup", "list", "--json"]).stdout;
    serde_json::from_str::<Vec<Value>>(&list).map_or(0, |all| all.len())
}

/// db2 as the daemon on `node` sees it.
fn db2_seen_from(cluster: &Cluster, node: &str) -> Value {
    let (_, status) = cluster.http(node, "/api/status");
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let db2 = nodes.into_iter().find(|line| line["hostname"] == "db2");
    db2.unwrap_or_default()
}

#[test]
fn a_stopped_server_a_killed_daemon_and_a_redis_that_is_away_are_told_once() {
    let (cluster, _) = Cluster::up();
    eventually("a base backup is there", MINUTES, || {
        (backups(&cluster) == 1).then_some(())
    });

    stop_postgres(&cluster);
    let raised = eventually("the alert is in the hash", MINUTES, || alert(&cluster));
    assert_eq!(raised["severity"], "critical", "{raised}");
    assert_eq!(raised["runbook"], "runbooks/postgresql-up.md", "{raised}");
    assert_eq!(told(&cluster, "raised"), 1);
    metrics::fires(&cluster, &["XdbServerDown", "XdbNoPrimary"]);
    eventually("the channel told it", SOON, || {
        (heard(&cluster, "raised") == 1).then_some(())
    });

    // Killed while the alert stands: the next daemon knows of it.
    let killed = daemon(&cluster).expect("the daemon runs");
    cluster
        .sh("db1", &format!("kill -9 {killed}"))
        .succeeded("kill");
    eventually("another daemon runs", SOON, || {
        daemon(&cluster).filter(|pid| *pid != killed)
    });
    eventually("it answers", SOON, || {
        (cluster.http("db1", "/healthz").0 == 200).then_some(())
    });
    start_postgres(&cluster);
    assert_eq!(
        (told(&cluster, "raised"), told(&cluster, "resolved")),
        (1, 1)
    );
    eventually("the channel told that it is over", SOON, || {
        (heard(&cluster, "resolved") == 1).then_some(())
    });
    eventually("the primary is served again", SOON, || {
        (cluster.http("db1", "/primary").0 == 200).then_some(())
    });
    assert_eq!(backups(&cluster), 1);

    // A minute without Redis, in which it happens again.
    let sv = |action| {
        let sv = format!("sv -w 30 {action} redis");
        cluster.sh("management", &sv).succeeded("sv");
    };
    sv("down");
    assert_ne!(cluster.redis("PING").stdout.trim(), "PONG");
    stop_postgres(&cluster);
    // A fixed minute: the event must outlive two heartbeats (30 s) and the retries that fail meanwhile.
    std::thread::sleep(Duration::from_secs(60));
    let (_, status) = cluster.http("db1", "/api/status");
    assert!(status.contains("postgresql-up"), "{status}");
    metrics::fires(&cluster, &["XdbServerDown", "XdbServiceDown"]);
    sv("up");
    eventually("the alert arrives", MINUTES, || alert(&cluster));
    start_postgres(&cluster);
    // The lab's Redis keeps its data over a restart: the first time and this one, each told once.
    assert_eq!(
        (told(&cluster, "raised"), told(&cluster, "resolved")),
        (2, 2)
    );
    assert_eq!(cluster.down(), Vec::<String>::new());
}

/// A setting of the replica alone is named on the primary, and so are the nodes that are alike in all else.
fn settings_that_differ(cluster: &Cluster) {
    for check in ["settings-drift", "version-drift", "clock-skew"] {
        let alike = cluster.xdb("db1", &["check", check, "--explain"]);
        assert_eq!(alike.code, 0, "{alike:?}");
        // It was judged, not left out.
        assert!(alike.stdout.contains("\ndb2 "), "{alike:?}");
    }
    let timeline = cluster.xdb("db2", &["check", "timeline", "--json"]);
    assert!(
        timeline.code == 0 && timeline.stdout.contains("\"value\": 0.0"),
        "{timeline:?}"
    );
    let routes = |backends: &str| {
        let page = "XDB_HAPROXY_STATS_URL=http://management:8404/";
        let check = "xdb check haproxy-routes --explain";
        cluster.sh(
            "db1",
            &format!("runuser -u postgres -- env {page} {backends} {check}"),
        )
    };
    let right = routes("");
    assert!(
        right.code == 0 && right.stdout.contains("\nreplica "),
        "{right:?}"
    );
    let crossed = routes("XDB_HAPROXY_PRIMARY_BACKEND=replica XDB_HAPROXY_REPLICA_BACKEND=primary");
    assert_eq!(crossed.code, 1, "{crossed:?}");
    for words in [
        "db2 is up there and is a replica",
        "db1 is up there and is a primary",
    ] {
        assert!(crossed.stdout.contains(words), "{words}: {crossed:?}");
    }
    let reload = "SELECT pg_reload_conf()";
    cluster.sql("db2", "ALTER SYSTEM SET work_mem = '8MB'");
    cluster.sql("db2", reload);
    eventually("the primary names the setting", MINUTES, || {
        let checked = cluster.xdb("db1", &["check", "settings-drift"]);
        let named = "1 settings (limit 1); on db2: work_mem is 8192 kB, here default";
        (checked.code == 1 && checked.stdout.contains(named)).then_some(())
    });
    cluster.sql("db2", "ALTER SYSTEM RESET work_mem");
    cluster.sql("db2", reload);
    eventually("the nodes are alike again", MINUTES, || {
        let checked = cluster.xdb("db1", &["check", "settings-drift"]);
        (checked.code == 0).then_some(())
    });
}

#[test]
fn a_paused_replay_is_seen_in_bytes_and_in_seconds_also_while_the_primary_idles() {
    let (cluster, _) = Cluster::up();
    // Nobody writes but this test.
    cluster.sh("app1", "sv -w 30 down app").succeeded("sv");
    let caught_up = |node: &str| {
        let seen = db2_seen_from(&cluster, node);
        let idle = (&seen["lag_bytes"], &seen["lag_secs"]) == (&0.into(), &0.0.into());
        idle.then_some(())
    };
    for node in ["db1", "db2"] {
        eventually(&format!("{node} sees no lag"), SOON, || caught_up(node));
    }

    cluster.sql("db2", "SELECT pg_wal_replay_pause()");
    eventually("replay is paused", SOON, || {
        let state = cluster.sql("db2", "SELECT pg_get_wal_replay_pause_state()");
        (state == "paused").then_some(())
    });
    let row = cluster.sql("db1", "INSERT INTO ticks DEFAULT VALUES RETURNING id");
    // The replica's own check, and the table of either node; nothing more is written meanwhile.
    let checked = eventually("db2's check warns", MINUTES, || {
        let checked = cluster.xdb("db2", &["check", "replication-lag"]);
        (checked.code == 1).then_some(checked.stdout)
    });
    assert!(
        checked.contains("warning") && checked.contains("s behind"),
        "{checked}"
    );
    for node in ["db1", "db2"] {
        let seen = db2_seen_from(&cluster, node);
        assert!(seen["lag_bytes"].as_u64() > Some(0), "{node}: {seen}");
        assert!(seen["lag_secs"].as_f64() > Some(29.0), "{node}: {seen}");
    }
    let raised = eventually("the alert is in the hash", MINUTES, || {
        let shown = cluster.redis("HGET xdb:main:alerts:active replication-lag/db2/");
        serde_json::from_str::<Value>(shown.stdout.trim()).ok()
    });
    assert!(
        raised["reason"].as_str().unwrap().contains("s behind"),
        "{raised}"
    );
    metrics::fires(&cluster, &["XdbReplicationLag"]);
    let count = format!("SELECT count(*) FROM ticks WHERE id = {row}");
    assert_eq!(cluster.sql("db2", &count), "0");
    // A restore test would hold it back further.
    let tested = cluster.sh(
        "db2",
        "runuser -u postgres -- env XDB_RESTORE_TEST_MAX_LAG_MIB=0 xdb restore-test --level start",
    );
    assert_eq!(tested.code, 4, "{tested:?}");
    assert!(tested.stderr.contains("of WAL to replay"), "{tested:?}");

    settings_that_differ(&cluster);
    cluster.sql("db2", "SELECT pg_wal_replay_resume()");
    for node in ["db1", "db2"] {
        eventually(&format!("{node} sees no lag again"), SOON, || {
            caught_up(node)
        });
    }
    assert_eq!(cluster.sql("db2", &count), "1");
    assert_eq!(cluster.down(), Vec::<String>::new());
}
