//! Events into Redis: in order, once, whatever Redis and this process do meanwhile.

use std::time::Duration;

use redis::cmd;
use serde_json::{Value, json};
use tempfile::TempDir;
use xdb::alerts::AlertsError;
use xdb::model::{Scope, Verdict};
use xdb::redis::RedisError;
use xdb::store::Reader;

use super::receivers::{confirmed, receiver, send_to};
use super::{ACTIVE, Bench, EVENTS, critical, db1, warning};
use crate::harness::{Service, eventually};

#[test]
fn an_alert_comes_and_goes_in_hash_stream_and_channel() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    let mut consumer = bench.consumer();
    let mut channel = consumer.as_pubsub();
    channel.subscribe("xdb:main:alerts").unwrap();
    channel
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut heard = || {
        let message = channel.get_message().ok()?;
        Some(serde_json::from_str::<Value>(&message.get_payload::<String>().unwrap()).unwrap())
    };
    let lag = |verdict| [("lag", Scope::Cluster, verdict)];

    assert_eq!(bench.record(&node, &lag(Verdict::Ok)), []);
    assert_eq!(bench.record(&node, &lag(warning())).len(), 1);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(bench.active(), ["lag/cluster/db2 warning by db1"]);
    assert_eq!(
        heard().unwrap(),
        json!({
            "v": 1, "kind": "raised", "at": "2026-05-13T10:14:29Z", "check": "lag", "node": "cluster", "object": "db2",
            "severity": "warning", "since": "2026-05-13T10:14:29Z", "reason": "a little behind",
            "value": 90.5, "threshold": 60.0, "runbook": "lag.md", "reporter": "db1",
        })
    );

    // The same finding again is no news; a worse one is.
    assert_eq!(bench.record(&node, &lag(warning())), []);
    bench.record(&node, &lag(critical()));
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(bench.active(), ["lag/cluster/db2 critical by db1"]);
    assert_eq!(heard().unwrap()["kind"], "escalated");

    let blind = Verdict::Unknown("the standby does not answer".to_owned());
    assert_eq!(bench.record(&node, &lag(blind)), []);
    bench.record(&node, &lag(Verdict::Ok));
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(bench.active(), [""; 0]);
    let resolved = heard().unwrap();
    assert_eq!(
        (&resolved["kind"], &resolved["reason"]),
        (&json!("resolved"), &json!("ok again"))
    );
    assert_eq!(heard(), None, "nothing is told twice");
    assert_eq!(
        bench.events(),
        [
            "raised lag/cluster/db2",
            "escalated lag/cluster/db2",
            "resolved lag/cluster/db2"
        ]
    );
    assert_eq!(bench.queued(&node), 0);
}

#[test]
fn events_wait_for_a_redis_that_is_away_and_arrive_once_and_in_order() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let (web, to, rules) = receiver();
    let node = bench.node_with("db1", directory.path(), rules);
    bench.record(&node, &[("first", db1(), critical())]);
    // A receiver hears of it once Redis has taken it.
    assert_eq!(send_to(&bench, &node, &to, 9), 0);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(send_to(&bench, &node, &to, 0), 1);

    bench.lab.service("redis", Service::Down);
    bench.record(
        &node,
        &[("lag", db1(), warning()), ("disk", db1(), warning())],
    );
    bench.record(&node, &[("lag", db1(), Verdict::Ok)]);
    let error = bench.deliver(&node).unwrap_err();
    assert!(matches!(error, AlertsError::Redis(_)), "{error:?}");
    assert_eq!(bench.queued(&node), 3);
    // Without Redis it waits for a while, and no longer.
    assert_eq!(send_to(&bench, &node, &to, 9), 0);
    assert_eq!(send_to(&bench, &node, &to, 10), 3);

    bench.lab.service("redis", Service::Up);
    let delivered = eventually("Redis takes events again", Duration::from_secs(20), || {
        bench.deliver(&node).ok()
    });
    assert_eq!(delivered, 3);
    assert_eq!((bench.deliver(&node).unwrap(), bench.queued(&node)), (0, 0));
    assert_eq!(send_to(&bench, &node, &to, 3600), 0);
    assert_eq!(
        confirmed(&web),
        ["raised first", "raised lag", "raised disk", "resolved lag"]
    );
    assert_eq!(
        bench.events(),
        [
            "raised first/db1/db2",
            "raised lag/db1/db2",
            "raised disk/db1/db2",
            "resolved lag/db1/db2"
        ]
    );
    assert_eq!(
        bench.active(),
        [
            "disk/db1/db2 warning by db1",
            "first/db1/db2 critical by db1"
        ]
    );
}

#[test]
fn a_process_killed_between_delivery_and_its_note_tells_nothing_twice() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let (web, to, rules) = receiver();
    let node = bench.node_with("db1", directory.path(), rules.clone());
    bench.record(&node, &[("disk", db1(), warning())]);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    bench.record(&node, &[("lag", db1(), critical())]);
    // What the disk holds when the process dies before it takes note of the delivery.
    let left = TempDir::new().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(bench.deliver(&node).unwrap(), 1);

    let reader = Reader::open(left.path()).unwrap().unwrap();
    assert_eq!(
        reader.reading().queued().unwrap().len(),
        1,
        "it still waits there"
    );
    let again = bench.node_with("db1", left.path(), rules);
    assert_eq!(bench.deliver(&again).unwrap(), 0);
    assert_eq!(bench.queued(&again), 0);
    // Its receivers were not told before the process died: they must be.
    assert_eq!(send_to(&bench, &again, &to, 0), 2);
    assert_eq!(confirmed(&web), ["raised disk", "raised lag"]);
    assert_eq!(bench.record(&again, &[("lag", db1(), critical())]), []);
    bench.record(&again, &[("lag", db1(), Verdict::Ok)]);
    assert_eq!(bench.deliver(&again).unwrap(), 1);
    assert_eq!(
        bench.events(),
        [
            "raised disk/db1/db2",
            "raised lag/db1/db2",
            "resolved lag/db1/db2"
        ]
    );
    assert_eq!(bench.active(), ["disk/db1/db2 warning by db1"]);
}

#[test]
fn a_redis_that_takes_no_writes_loses_no_event_and_is_connected_to_again() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    bench.record(&node, &[("disk", db1(), warning())]);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    let tell = |words: &[&str]| {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        let said: String = command.query(&mut bench.consumer()).unwrap();
        said
    };
    let connections = || -> i64 {
        let said: String = cmd("INFO")
            .arg("stats")
            .query(&mut bench.consumer())
            .unwrap();
        let line = said
            .lines()
            .find(|line| line.starts_with("total_connections_received"));
        line.unwrap()
            .split(':')
            .nth(1)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    for (what, verdict, fault, repair, hint, again) in [
        (
            "a replica after a failover",
            warning(),
            &["REPLICAOF", "127.0.0.1", "1"][..],
            &["REPLICAOF", "NO", "ONE"][..],
            "replica",
            true,
        ),
        (
            "no memory",
            critical(),
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
            "maxmemory",
            false,
        ),
    ] {
        tell(fault);
        bench.record(&node, &[("lag", db1(), verdict)]);
        let before = connections();
        let error = bench.deliver(&node).unwrap_err();
        assert!(matches!(error, AlertsError::Redis(_)), "{what}: {error:?}");
        assert!(error.hint().contains(hint), "{what}: {error}");
        // One of them is the question itself.
        assert_eq!(connections() > before + 1, again, "{what}");
        assert_eq!(bench.queued(&node), 1, "{what}");
        tell(repair);
        assert_eq!(bench.deliver(&node).unwrap(), 1, "{what}");
    }
    assert_eq!(
        bench.events(),
        [
            "raised disk/db1/db2",
            "raised lag/db1/db2",
            "escalated lag/db1/db2"
        ]
    );
}

#[test]
fn a_key_that_another_program_wrote_is_named_and_no_event_is_lost() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    let tell = |words: &[&str]| {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command.exec(&mut bench.consumer()).unwrap();
    };
    let reconcile = || {
        let own = [db1()];
        let reconciled = node.alerts.reconcile(&node.redis, &own);
        bench.runtime.block_on(reconciled)
    };
    for (key, verdict) in [
        (ACTIVE, warning()),
        (EVENTS, critical()),
        ("xdb:main:alerts:delivered:db1", Verdict::Ok),
    ] {
        tell(&["DEL", key]);
        match key {
            "xdb:main:alerts:delivered:db1" => tell(&["HSET", key, "foo", "bar"]),
            _ => tell(&["SET", key, "foo"]),
        }
        bench.record(&node, &[("disk", db1(), verdict)]);
        for failed in [bench.deliver(&node).map(drop), reconcile()] {
            let error = failed.unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
            assert!(error.hint().contains("redis-cli DEL"), "{error}");
            let AlertsError::Redis(RedisError::WrongType { key: named, .. }) = &error else {
                panic!("{error:?}");
            };
            assert_eq!(named, key);
        }
        assert_eq!(bench.queued(&node), 1, "{key}");
        tell(&["DEL", key]);
        assert_eq!(bench.deliver(&node).unwrap(), 1, "{key}");
    }
    assert_eq!(bench.active(), [""; 0]);
    assert_eq!(
        bench.events(),
        ["escalated disk/db1/db2", "resolved disk/db1/db2"]
    );
}
