//! Alerts against a real Redis: the library in this process, Redis in the lab.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redis::{Commands, Connection, cmd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xdb::alerts::{Alerts, AlertsError, Event, Extent, Judged};
use xdb::model::{AlertKey, Finding, Scope, Verdict};
use xdb::redis::{Keys, Redis, RedisError};
use xdb::store::{Reader, Store};

use crate::harness::{Lab, Program, Service, eventually};

const ACTIVE: &str = "xdb:main:alerts:active";
const EVENTS: &str = "xdb:main:alerts:events";

/// Redis, and a runtime for the library; every node of a test shares both.
struct Bench {
    lab: Lab,
    runtime: Runtime,
}

/// What one daemon holds.
struct Node {
    alerts: Alerts,
    store: Store,
    redis: Redis,
    hostname: &'static str,
}

impl Bench {
    fn start() -> Self {
        Self {
            lab: Lab::setup(Program::Walrus).redis().start(),
            runtime: Runtime::new().unwrap(),
        }
    }

    fn redis(&self, password: &str) -> Redis {
        Redis::new(&xdb::config::Redis {
            url: format!("redis://{}", self.lab.address(6379)),
            user: None,
            ca_cert_file: None,
            password: Some(password.into()),
            timeout: Duration::from_secs(2),
        })
        .unwrap()
    }

    fn node(&self, hostname: &'static str, directory: &Path) -> Node {
        let store = Store::open(directory, now()).unwrap().store;
        Node {
            alerts: Alerts::new(store.clone(), "main", hostname),
            store,
            redis: self.redis("lab-password"),
            hostname,
        }
    }

    fn record(&self, node: &Node, findings: &[(&str, Scope, Verdict)]) -> Vec<Event> {
        let judged = findings.iter().map(|(check, scope, verdict)| Judged {
            finding: Finding {
                value: Some(90.5),
                threshold: Some(60.0),
                runbook: Some(format!("{check}.md")),
                ..Finding::new(*check, scope.clone(), "db2", verdict.clone())
            },
            hold: Duration::ZERO,
        });
        let recorded = node.alerts.record(judged.collect(), Extent::Part, now());
        self.runtime.block_on(recorded).unwrap()
    }

    fn deliver(&self, node: &Node) -> Result<u64, AlertsError> {
        self.runtime.block_on(node.alerts.deliver(&node.redis))
    }

    fn reconcile(&self, node: &Node, others: &[Scope]) {
        let own = Scope::Node(node.hostname.to_owned());
        let scopes = [&[own], others].concat();
        let reconciled = node.alerts.reconcile(&node.redis, &scopes);
        self.runtime.block_on(reconciled).unwrap();
    }

    fn resolve(&self, node: &Node, scope: Scope) -> Vec<Event> {
        let which = move |key: &AlertKey| key.scope == scope;
        let resolved = node.alerts.resolve(which, "role changed", now());
        self.runtime.block_on(resolved).unwrap()
    }

    fn queued(&self, node: &Node) -> u64 {
        let queued = node.store.read(|reading| reading.queued_events());
        self.runtime.block_on(queued).unwrap()
    }

    /// A client of its own, as a consumer has it.
    fn consumer(&self) -> Connection {
        let url = format!("redis://:lab-password@{}", self.lab.address(6379));
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// The hash's fields with each alert's severity.
    fn active(&self) -> Vec<String> {
        let hash: Vec<(String, String)> = self.consumer().hgetall(ACTIVE).unwrap();
        let shown = |(field, alert): (String, String)| {
            let alert: Value = serde_json::from_str(&alert).unwrap();
            let text = |name: &str| alert[name].as_str().unwrap().to_owned();
            format!("{field} {} by {}", text("severity"), text("reporter"))
        };
        let mut active: Vec<_> = hash.into_iter().map(shown).collect();
        active.sort();
        active
    }

    /// The stream's events in its order, as "kind check/node/object".
    fn events(&self) -> Vec<String> {
        self.stream()
            .iter()
            .map(|(_, event)| {
                let text = |name: &str| event[name].as_str().unwrap();
                format!(
                    "{} {}/{}/{}",
                    text("kind"),
                    text("check"),
                    text("node"),
                    text("object")
                )
            })
            .collect()
    }

    /// Sequence number and event.
    fn stream(&self) -> Vec<(i64, Value)> {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let mut range = cmd("XRANGE");
        range.arg(EVENTS).arg("-").arg("+");
        let entries: Entries = range.query(&mut self.consumer()).unwrap();
        let read = |(_, fields): (String, Vec<(String, String)>)| {
            let field = |name: &str| {
                let found = fields.iter().find(|(field, _)| field == name);
                found.unwrap().1.clone()
            };
            (
                field("seq").parse().unwrap(),
                serde_json::from_str(&field("event")).unwrap(),
            )
        };
        entries.into_iter().map(read).collect()
    }
}

fn now() -> Timestamp {
    "2026-05-13T10:14:29Z".parse().unwrap()
}

fn db1() -> Scope {
    Scope::Node("db1".to_owned())
}

fn critical() -> Verdict {
    Verdict::Critical("90.5 s behind".to_owned())
}

fn warning() -> Verdict {
    Verdict::Warning("a little behind".to_owned())
}

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
    let node = bench.node("db1", directory.path());
    bench.record(&node, &[("first", db1(), critical())]);
    assert_eq!(bench.deliver(&node).unwrap(), 1);

    bench.lab.service("redis", Service::Down);
    bench.record(
        &node,
        &[("lag", db1(), warning()), ("disk", db1(), warning())],
    );
    bench.record(&node, &[("lag", db1(), Verdict::Ok)]);
    let error = bench.deliver(&node).unwrap_err();
    assert!(matches!(error, AlertsError::Redis(_)), "{error:?}");
    assert_eq!(bench.queued(&node), 3);

    bench.lab.service("redis", Service::Up);
    let delivered = eventually("Redis takes events again", Duration::from_secs(20), || {
        bench.deliver(&node).ok()
    });
    assert_eq!(delivered, 3);
    assert_eq!((bench.deliver(&node).unwrap(), bench.queued(&node)), (0, 0));
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
fn a_connection_lost_while_idle_fails_no_command_and_a_redis_that_hangs_only_for_a_while() {
    let bench = Bench::start();
    let (redis, keys) = (bench.redis("lab-password"), Keys::new("main"));
    let write = || {
        bench
            .runtime
            .block_on(redis.publish_node(&keys, "db1", "{}"))
    };
    write().unwrap();
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    let killed: i64 = kill.query(&mut bench.consumer()).unwrap();
    assert!(killed >= 1);
    write().unwrap();

    bench.lab.ok("pkill -STOP redis-server");
    let started = Instant::now();
    let error = write().unwrap_err();
    assert!(error.to_string().contains("no answer within 2s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    bench.lab.ok("pkill -CONT redis-server");
    eventually("Redis takes writes again", Duration::from_secs(10), || {
        write().ok()
    });

    let wrong = bench.redis("hunter2");
    let error = bench
        .runtime
        .block_on(wrong.publish_node(&keys, "db1", "{}"))
        .unwrap_err();
    assert!(error.hint().contains("REDIS_PASSWORD"), "{error}");
    assert!(!format!("{error} {error:?} {wrong:?}").contains("hunter2"));
    assert!(matches!(error, RedisError::Connect { .. }), "{error:?}");
}

#[test]
fn a_process_killed_between_delivery_and_its_note_tells_nothing_twice() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
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
        reader.reading().queued_events().unwrap(),
        1,
        "it still waits there"
    );
    let again = bench.node("db1", left.path());
    assert_eq!(bench.deliver(&again).unwrap(), 0);
    assert_eq!(bench.queued(&again), 0);
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
fn a_redis_that_lost_its_data_shows_the_alerts_again_without_telling_of_them() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    bench.record(
        &node,
        &[("lag", db1(), critical()), ("disk", db1(), warning())],
    );
    assert_eq!(bench.deliver(&node).unwrap(), 2);
    let before = bench.active();

    let _: () = cmd("FLUSHALL").query(&mut bench.consumer()).unwrap();
    assert_eq!((bench.active().len(), bench.events().len()), (0, 0));
    bench.reconcile(&node, &[]);
    assert_eq!(bench.active(), before);
    assert_eq!(bench.events(), [""; 0]);

    bench.record(&node, &[("disk", db1(), Verdict::Ok)]);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(bench.events(), ["resolved disk/db1/db2"]);
    assert_eq!(bench.active(), ["lag/db1/db2 critical by db1"]);
}

#[test]
fn a_lost_store_raises_nothing_again_and_its_numbers_go_on() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    bench.record(
        &node,
        &[("lag", db1(), critical()), ("disk", db1(), warning())],
    );
    bench.record(&node, &[("disk", db1(), Verdict::Ok)]);
    assert_eq!(bench.deliver(&node).unwrap(), 3);

    let anew = TempDir::new().unwrap();
    let node = bench.node("db1", anew.path());
    bench.reconcile(&node, &[]);
    assert_eq!(
        bench.record(&node, &[("lag", db1(), critical())]),
        [],
        "it is raised already"
    );
    assert_eq!(bench.record(&node, &[("lag", db1(), Verdict::Ok)]).len(), 1);
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    assert_eq!(bench.active(), [""; 0]);

    // Once more, and this time Redis is away while the new store fills.
    let anew = TempDir::new().unwrap();
    let node = bench.node("db1", anew.path());
    bench.lab.service("redis", Service::Down);
    bench.record(
        &node,
        &[("lag", db1(), critical()), ("disk", db1(), warning())],
    );
    bench.deliver(&node).unwrap_err();
    bench.lab.service("redis", Service::Up);
    let delivered = eventually("Redis takes events again", Duration::from_secs(20), || {
        bench.deliver(&node).ok()
    });
    assert_eq!(delivered, 2, "not taken for the first two of the old store");
    let numbers: Vec<i64> = bench.stream().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_survivor_takes_over_and_a_late_peer_ends_nothing_of_it() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let db1_node = bench.node("db1", first.path());
    let db2_node = bench.node("db2", second.path());
    bench.record(
        &db1_node,
        &[
            ("backup-age", Scope::Cluster, critical()),
            ("disk", db1(), warning()),
        ],
    );
    assert_eq!(bench.deliver(&db1_node).unwrap(), 2);

    bench.reconcile(&db2_node, &[Scope::Cluster, db1()]);
    assert_eq!(
        bench.active(),
        [
            "backup-age/cluster/db2 critical by db2",
            "disk/db1/db2 warning by db2"
        ]
    );
    assert_eq!(
        bench.record(&db2_node, &[("backup-age", Scope::Cluster, critical())]),
        [],
        "the same trouble is not raised by each node"
    );
    assert_eq!(bench.resolve(&db2_node, db1()).len(), 1);
    assert_eq!(bench.deliver(&db2_node).unwrap(), 1);

    // db1 is back, as a standby, and knows of its old role's alert.
    assert_eq!(bench.resolve(&db1_node, Scope::Cluster).len(), 1);
    assert_eq!(bench.deliver(&db1_node).unwrap(), 0);
    assert_eq!(bench.queued(&db1_node), 0);
    assert_eq!(bench.active(), ["backup-age/cluster/db2 critical by db2"]);

    bench.record(&db2_node, &[("backup-age", Scope::Cluster, Verdict::Ok)]);
    assert_eq!(bench.deliver(&db2_node).unwrap(), 1);
    assert_eq!(
        bench.events(),
        [
            "raised backup-age/cluster/db2",
            "raised disk/db1/db2",
            "resolved disk/db1/db2",
            "resolved backup-age/cluster/db2"
        ]
    );
    assert_eq!(bench.stream()[2].1["reason"], "role changed");
    assert_eq!(bench.active(), [""; 0]);
}

#[test]
fn what_somebody_else_ended_and_still_stands_is_raised_again() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let db1_node = bench.node("db1", first.path());
    let db2_node = bench.node("db2", second.path());
    let (disk, lag) = (("disk", db1(), warning()), ("lag", db1(), critical()));
    bench.record(&db1_node, &[disk.clone(), lag]);
    assert_eq!(bench.deliver(&db1_node).unwrap(), 2);
    // db1 is silent: the survivor ends its alerts.
    bench.reconcile(&db2_node, &[db1()]);
    assert_eq!(bench.resolve(&db2_node, db1()).len(), 2);
    assert_eq!(bench.deliver(&db2_node).unwrap(), 2);
    assert_eq!(bench.active(), [""; 0]);

    // A new process of db1 does not know yet what still stands; one of them does.
    let db1_node = bench.node("db1", first.path());
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.active(), [""; 0]);
    bench.record(&db1_node, &[("lag", db1(), Verdict::Ok), disk]);
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.active(), ["disk/db1/db2 warning by db1"]);
    let expected = [
        "raised disk/db1/db2",
        "raised lag/db1/db2",
        "resolved disk/db1/db2",
        "resolved lag/db1/db2",
        "raised disk/db1/db2",
    ];
    assert_eq!(bench.events(), expected);

    // Removed by hand while this process knows that it stands.
    let mut delete = cmd("HDEL");
    delete.arg(ACTIVE).arg("disk/db1/db2");
    let deleted: i64 = delete.query(&mut bench.consumer()).unwrap();
    assert_eq!(deleted, 1);
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.active(), ["disk/db1/db2 warning by db1"]);
    assert_eq!(bench.events().len(), expected.len() + 1);
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.events().len(), expected.len() + 1, "once");
    assert_eq!(bench.queued(&db1_node), 0);
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
fn live_keys_vanish_by_themselves() {
    let bench = Bench::start();
    let (redis, keys) = (bench.redis("lab-password"), Keys::new("main"));
    let run = |hostname: &'static str| {
        bench
            .runtime
            .block_on(redis.publish_node(&keys, hostname, r#"{"v":1}"#))
            .unwrap();
    };
    let nodes = || bench.runtime.block_on(redis.nodes(&keys)).unwrap();
    assert_eq!(nodes(), []);
    run("db2");
    run("db1");
    let seen = |hostname: &str| (hostname.to_owned(), r#"{"v":1}"#.to_owned());
    assert_eq!(nodes(), [seen("db1"), seen("db2")]);

    let job = |json: &str, ttl, own| {
        let shown = redis.publish_job(&keys, "dump", json, ttl, own);
        bench.runtime.block_on(shown).unwrap();
    };
    job("1", Duration::from_secs(3600), true);
    // What another node did better knows that node.
    job("2", Duration::from_secs(7200), false);
    let mut consumer = bench.consumer();
    assert_eq!(consumer.get::<_, String>("xdb:main:job:dump").unwrap(), "1");
    let mut ttl = |key: &str| consumer.ttl::<_, i64>(key).unwrap();
    assert!((85..=90).contains(&ttl("xdb:main:node:db1")));
    assert!((3590..=3600).contains(&ttl("xdb:main:job:dump")));
    job("3", Duration::from_millis(300), true);
    eventually("the key vanishes", Duration::from_secs(5), || {
        (ttl("xdb:main:job:dump") == -2).then_some(())
    });
    job("4", Duration::from_secs(60), false);
    assert!((55..=60).contains(&ttl("xdb:main:job:dump")));
}
