//! Silences and acknowledgements: on both nodes alike, whatever Redis, a store or a clock loses meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use redis::{Commands, cmd};
use serde_json::Value;
use tempfile::TempDir;
use xdb::model::{AlertKey, Ended, Scope, Severity, Silence, Silenced, Verdict};

use super::receivers::{confirmed, receiver, send_to};
use super::{ACTIVE, Bench, Node, critical, db1, now, warning};

const SILENCES: &str = "xdb:main:silences";

/// For an hour from the real now on, which `reconcile` reads from the clock.
fn silence(of: Silenced, severity: Severity) -> Silence {
    Silence {
        v: Silence::VERSION,
        id: "a1b2c3d4".to_owned(),
        of,
        severity,
        author: "eve".to_owned(),
        comment: "a disk is replaced".to_owned(),
        created_at: now(),
        expires_at: Timestamp::now() + Duration::from_secs(3600),
        ended: None,
    }
}

fn of_lag() -> Silenced {
    Silenced::Silence {
        pattern: "lag".to_owned(),
    }
}

fn by_adam(silence: &Silence) -> Silence {
    Silence {
        ended: Some(Ended {
            at: now(),
            by: "adam".to_owned(),
        }),
        ..silence.clone()
    }
}

impl Bench {
    fn keep(&self, node: &Node, silence: &Silence) {
        let kept = node.alerts.keep_silence(silence.clone());
        self.runtime.block_on(kept).unwrap();
    }

    fn sync(&self, node: &Node, at: Timestamp) {
        let synced = node.alerts.sync_silences(&node.redis, at);
        self.runtime.block_on(synced).unwrap();
    }

    fn notify(&self, node: &Node, at: Timestamp) {
        self.runtime.block_on(node.alerts.notify(at)).unwrap();
        self.deliver(node).unwrap();
    }

    fn in_force(&self, node: &Node) -> usize {
        let silences = node.alerts.silences(Timestamp::now());
        self.runtime.block_on(silences).unwrap().len()
    }

    fn shown(&self, field: &str) -> Value {
        let json: String = self.consumer().hget(ACTIVE, field).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    /// The same on both nodes, and what db1 reports of it.
    fn record_told(&self, node: &Node, findings: &[(&str, Scope, Verdict)]) {
        self.record(node, findings);
        self.deliver(node).unwrap();
    }
}

#[test]
fn a_silence_hides_up_to_its_severity_on_both_nodes_and_its_expiry_raises_at_once() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (db1_node, db2_node) = (
        bench.node("db1", first.path()),
        bench.node("db2", second.path()),
    );
    let silence = silence(of_lag(), Severity::Warning);
    bench.keep(&db1_node, &silence);
    bench.sync(&db1_node, now());
    bench.sync(&db2_node, now());
    assert_eq!(bench.in_force(&db2_node), 1);

    bench.record_told(&db1_node, &[("lag", db1(), warning())]);
    bench.record_told(&db2_node, &[("lag", Scope::Cluster, warning())]);
    assert_eq!(bench.events(), [""; 0], "hidden on either node");
    assert_eq!(
        bench.active(),
        [
            "lag/cluster/db2 warning by db2",
            "lag/db1/db2 warning by db1"
        ],
        "and shown all the same"
    );
    let shown = bench.shown("lag/db1/db2");
    assert_eq!(shown["silenced"]["by"], "eve", "{shown}");
    assert_eq!(shown["hidden"], true, "{shown}");

    // A worse severity is news.
    bench.record_told(&db1_node, &[("lag", db1(), critical())]);
    assert_eq!(bench.events(), ["raised lag/db1/db2"]);
    assert!(bench.shown("lag/db1/db2")["silenced"].is_null());
    bench.record_told(&db1_node, &[("lag", db1(), warning())]);
    let told = ["raised lag/db1/db2", "silenced lag/db1/db2"];
    assert_eq!(bench.events(), told);

    bench.notify(&db1_node, silence.expires_at - Duration::from_secs(1));
    assert_eq!(bench.events(), told);
    bench.notify(&db1_node, silence.expires_at);
    bench.notify(&db2_node, silence.expires_at);
    assert_eq!(
        bench.events()[2..],
        ["raised lag/db1/db2", "raised lag/cluster/db2"]
    );

    // A clock that is set back brings no silence back.
    bench.sync(&db1_node, silence.expires_at);
    assert_eq!(bench.in_force(&db1_node), 0);
    bench.notify(&db1_node, now());
    assert_eq!(bench.events().len(), 4);
    bench.record_told(&db1_node, &[("lag", db1(), Verdict::Ok)]);
    assert_eq!(bench.events()[4..], ["resolved lag/db1/db2"]);
}

#[test]
fn a_silence_outlives_redis_a_store_and_a_node() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (db1_node, db2_node) = (
        bench.node("db1", first.path()),
        bench.node("db2", second.path()),
    );
    let silence = silence(of_lag(), Severity::Critical);
    bench.keep(&db1_node, &silence);
    bench.record_told(
        &db1_node,
        &[("lag", db1(), critical()), ("disk", db1(), warning())],
    );
    assert_eq!(bench.events(), ["raised disk/db1/db2"]);
    bench.reconcile(&db1_node, &[]);
    bench.reconcile(&db2_node, &[]);

    let _: () = cmd("FLUSHALL").query(&mut bench.consumer()).unwrap();
    assert_eq!(bench.consumer().hlen::<_, i64>(SILENCES).unwrap(), 0);
    bench.reconcile(&db2_node, &[]);
    assert_eq!(bench.consumer().hlen::<_, i64>(SILENCES).unwrap(), 1);
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.shown("lag/db1/db2")["silenced"]["id"], "a1b2c3d4");
    assert_eq!(bench.events(), [""; 0]);

    // db1's store is lost: it takes alert and silence over from Redis.
    let fresh = TempDir::new().unwrap();
    let db1_node = bench.node("db1", fresh.path());
    bench.reconcile(&db1_node, &[]);
    assert_eq!(bench.in_force(&db1_node), 1);
    bench.record_told(&db1_node, &[("lag", db1(), critical())]);
    // db1 is lost: the survivor takes both over.
    bench.reconcile(&db2_node, &[db1()]);
    bench.notify(&db2_node, now());
    assert_eq!(bench.shown("lag/db1/db2")["reporter"], "db2");
    assert_eq!(bench.shown("lag/db1/db2")["silenced"]["by"], "eve");
    // The role changes in the middle: what was hidden ends without an event.
    assert_eq!(bench.resolve(&db2_node, db1()).len(), 2);
    bench.deliver(&db2_node).unwrap();
    assert_eq!(bench.events(), ["resolved disk/db1/db2"]);
    assert_eq!(bench.active(), [""; 0]);
}

#[test]
fn an_end_is_final_though_a_copy_comes_back_late() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (db1_node, db2_node) = (
        bench.node("db1", first.path()),
        bench.node("db2", second.path()),
    );
    let silence = silence(of_lag(), Severity::Critical);
    for node in [&db1_node, &db2_node] {
        bench.keep(node, &silence);
    }
    bench.sync(&db1_node, now());
    bench.record_told(&db1_node, &[("lag", db1(), critical())]);
    // Ended on db1 while db2 does not reach Redis; then Redis loses all, and db2's copy is the first to come.
    bench.keep(&db1_node, &by_adam(&silence));
    bench.sync(&db1_node, now());
    let _: () = cmd("FLUSHALL").query(&mut bench.consumer()).unwrap();
    bench.sync(&db2_node, now());
    bench.sync(&db1_node, now());
    bench.sync(&db2_node, now());
    assert_eq!(
        (bench.in_force(&db1_node), bench.in_force(&db2_node)),
        (0, 0)
    );
    let held: String = bench.consumer().hget(SILENCES, &silence.id).unwrap();
    assert_eq!(Silence::parse(&held), Some(by_adam(&silence)));
    bench.notify(&db1_node, now());
    assert_eq!(bench.events(), ["raised lag/db1/db2"]);

    // What another program writes there is left alone, and hides nothing.
    let _: i64 = bench.consumer().hset(SILENCES, "x", "{}").unwrap();
    let planted = silence.to_json().replace("a1b2c3d4", "other");
    let _: i64 = bench.consumer().hset(SILENCES, "y", planted).unwrap();
    bench.sync(&db1_node, now());
    assert_eq!(bench.in_force(&db1_node), 0);
}

#[test]
fn an_acknowledged_alert_is_told_once_and_its_mark_goes_with_it() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let node = bench.node("db1", directory.path());
    bench.record_told(&node, &[("lag", db1(), warning())]);
    let of = Silenced::Acknowledgement {
        alert: AlertKey::parse("lag/db1/db2").unwrap().to_string(),
        since: now(),
    };
    bench.keep(&node, &silence(of, Severity::Warning));
    bench.notify(&node, now());
    bench.notify(&node, now());
    let told = ["raised lag/db1/db2", "acknowledged lag/db1/db2"];
    assert_eq!(bench.events(), told);
    assert_eq!(bench.shown("lag/db1/db2")["acknowledged"]["by"], "eve");
    // A new process knows it, and so does a new store.
    let fresh = TempDir::new().unwrap();
    for path in [directory.path(), fresh.path()] {
        let node = bench.node("db1", path);
        bench.reconcile(&node, &[]);
        bench.notify(&node, now());
    }
    assert_eq!(bench.events(), told);
    let node = bench.node("db1", fresh.path());
    bench.record_told(&node, &[("lag", db1(), critical())]);
    bench.record_told(&node, &[("lag", db1(), Verdict::Ok)]);
    bench.record_told(&node, &[("lag", db1(), warning())]);
    assert_eq!(
        bench.events()[2..],
        [
            "escalated lag/db1/db2",
            "resolved lag/db1/db2",
            "raised lag/db1/db2"
        ]
    );
}

#[test]
fn two_nodes_that_raise_the_same_at_once_tell_it_once() {
    let bench = Bench::start();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (web, to, rules) = receiver();
    let (db1_node, db2_node) = (
        bench.node_with("db1", first.path(), rules.clone()),
        bench.node_with("db2", second.path(), rules),
    );
    let send = |node: &Node| send_to(&bench, node, &to, 0);
    // Both speak for the cluster for a moment.
    for node in [&db1_node, &db2_node] {
        assert_eq!(
            bench
                .record(node, &[("primary", Scope::Cluster, critical())])
                .len(),
            1
        );
    }
    assert_eq!((send(&db1_node), send(&db2_node)), (0, 0));
    assert_eq!(bench.deliver(&db1_node).unwrap(), 1);
    assert_eq!(bench.deliver(&db2_node).unwrap(), 0);
    assert_eq!((send(&db1_node), send(&db2_node)), (1, 0));
    assert_eq!(bench.events(), ["raised primary/cluster/db2"]);
    assert_eq!(bench.active(), ["primary/cluster/db2 critical by db2"]);
    // db1 hears that db2 speaks; and db2 ends it.
    bench.reconcile(&db2_node, &[Scope::Cluster]);
    assert_eq!(bench.resolve(&db1_node, Scope::Cluster).len(), 1);
    assert_eq!(bench.deliver(&db1_node).unwrap(), 0);
    assert_eq!(send(&db1_node), 0, "it stands on the other node");
    bench.record_told(&db2_node, &[("primary", Scope::Cluster, Verdict::Ok)]);
    assert_eq!((send(&db1_node), send(&db2_node)), (0, 1));
    assert_eq!(
        bench.events(),
        ["raised primary/cluster/db2", "resolved primary/cluster/db2"]
    );
    assert_eq!(confirmed(&web), ["raised primary", "resolved primary"]);
}
