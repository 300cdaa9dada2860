//! Redis and the store are made to agree after either lost what it held.

use std::time::Duration;

use redis::cmd;
use tempfile::TempDir;
use xdb::model::{Scope, Verdict};

use super::{ACTIVE, Bench, critical, db1, warning};
use crate::harness::{Service, eventually};
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
