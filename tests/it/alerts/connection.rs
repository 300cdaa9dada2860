//! The connection to Redis, and the keys that expire.

use std::time::{Duration, Instant};

use redis::{Commands, cmd};
use tempfile::TempDir;
use xdb::model::Scope;
use xdb::redis::{Keys, RedisError};

use super::{Bench, db1, warning};
use crate::harness::eventually;
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
    super::receivers::verify_tls(&bench);
}

#[test]
fn a_user_of_the_documented_acl_can_do_all_and_one_with_less_is_told_what_is_missing() {
    let (bench, directory) = (Bench::start(), TempDir::new().unwrap());
    let documented = include_str!("../../../docs/alerts.md")
        .lines()
        .find(|line| line.starts_with("ACL SETUSER"))
        .unwrap();
    let set = |line: &str| {
        let mut words = line.split_whitespace();
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.exec(&mut bench.consumer()).unwrap();
    };
    let mut node = bench.node("db1", directory.path());
    set(&documented.replace(" +eval", ""));
    node.redis = bench.redis_as(Some("xdb"), "PASSWORD");
    bench.record(&node, &[("disk", db1(), warning())]);
    let error = bench.deliver(&node).unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
    assert!(error.hint().contains("docs/alerts.md"), "{}", error.hint());
    assert_eq!(bench.queued(&node), 1);

    set(documented);
    node.redis = bench.redis_as(Some("xdb"), "PASSWORD");
    assert_eq!(bench.deliver(&node).unwrap(), 1);
    bench.reconcile(&node, &[Scope::Cluster]);
    let keys = Keys::new("main");
    let live = async {
        node.redis.publish_node(&keys, "db1", "{}").await?;
        let published = xdb::alerts::Published::new(&node.redis, "main");
        assert_eq!(published.alerts().await?.len(), 1);
        assert_eq!(published.history(10).await?.len(), 1);
        assert_eq!(published.silences().await?.len(), 0);
        node.redis.nodes(&keys).await
    };
    assert_eq!(bench.runtime.block_on(live).unwrap().len(), 1);
    // Another cluster's keys are not its own.
    let other = Keys::new("other");
    let refused = node.redis.publish_node(&other, "db1", "{}");
    let error = bench.runtime.block_on(refused).unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
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
