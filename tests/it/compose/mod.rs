//! The whole cluster: `./dev up`, the main job done in it, `./dev down`.

mod failover;
mod faults;
mod metrics;
mod runbooks;

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Output, eventually};

const SOON: Duration = Duration::from_secs(30);
const WITHIN_MINUTES: Duration = Duration::from_secs(180);
/// A base backup or a restore test of the cluster's own daemon may have to end first.
const AFTER_OTHERS: Duration = Duration::from_secs(120);
/// xdb's exit code for "refused", as when the same job runs already.
const REFUSED: i32 = 3;

/// psql on the management node, as an application: through HAProxy and PgBouncer. `port` is HAProxy's.
/// It gives up what HAProxy forgets while a server goes down (lab/cluster/haproxy.cfg).
fn through_haproxy(cluster: &Cluster, port: u16, password: &str, sql: &str) -> Output {
    cluster.sh(
        "management",
        &format!(
            "PGCONNECT_TIMEOUT=10 PGPASSWORD={password} /usr/lib/postgresql/17/bin/psql -XAtqw -h 127.0.0.1 -p {port} -U app -d app -c \"{sql}\""
        ),
    )
}

fn unless_refused(what: &str, run: impl Fn() -> Output) -> Output {
    eventually(what, AFTER_OTHERS, || {
        Some(run()).filter(|output| output.code != REFUSED)
    })
}

/// Two restartpoints on `replica`, which follows `primary`: then nothing waits for its archive, and nothing came of what was left.
fn archives_through_two_restartpoints(cluster: &Cluster, primary: &str, replica: &str) {
    for _ in 0..2 {
        cluster.sql(primary, "SELECT pg_switch_wal()");
        cluster.sql(primary, "CHECKPOINT");
        eventually("the checkpoint is replayed", WITHIN_MINUTES, || {
            let behind =
                "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < pg_current_wal_lsn()";
            (cluster.sql(primary, behind) == "0").then_some(())
        });
        cluster.sql(replica, "CHECKPOINT");
    }
    let old = "find /var/lib/postgresql/17/main/pg_wal/archive_status -name '*.ready' -mmin +1";
    let wait = WITHIN_MINUTES;
    // What waited before the restartpoints is done; what has come since may wait for its moment.
    let status = "ls /var/lib/postgresql/17/main/pg_wal/archive_status | grep ready$ | sort";
    let before = cluster.sh(replica, status).stdout;
    eventually(&format!("{replica} is done with {before:?}"), wait, || {
        let now = cluster.sh(replica, status).stdout;
        let done = before
            .lines()
            .all(|name| !now.lines().any(|other| other == name));
        done.then_some(())
    });
    assert_eq!(cluster.sh(replica, old).stdout, "", "{replica}");
}

#[test]
fn what_is_written_through_haproxy_is_restored_on_the_replica() {
    let (cluster, said) = Cluster::up();
    assert!(said.contains("/api/status"), "{said}");

    // Each port leads to the node of its role, with the password that PostgreSQL knows and no other.
    let ask = |port, sql: &str| through_haproxy(&cluster, port, "$LAB_APP_PASSWORD", sql);
    assert_eq!(ask(5432, "SELECT pg_is_in_recovery()").stdout, "f\n");
    assert_eq!(ask(5433, "SELECT pg_is_in_recovery()").stdout, "t\n");
    for port in [5432, 5433] {
        let refused = through_haproxy(&cluster, port, "wrong", "SELECT 1");
        assert!(
            refused.stderr.contains("SASL authentication failed"),
            "{refused:?}"
        );
    }

    // The command of an application's unit, bare, finds its way by what stands on its node.
    let waited = cluster.sh("app1", "env -i PATH=\"$PATH\" xdb wait --timeout 150");
    assert!(waited.code == 0, "{waited:?}");
    assert!(
        waited.stderr.contains("management:5432 is ready"),
        "{waited:?}"
    );

    // What is written to one is read from the other, and app1 does so by itself.
    let psql = [
        "psql",
        "-XAtqc",
        "INSERT INTO ticks DEFAULT VALUES RETURNING id",
    ];
    let row = cluster.dev(&psql).succeeded("./dev psql");
    let count = format!("SELECT count(*) FROM ticks WHERE id = {row}");
    eventually("the row is on the replica", SOON, || {
        (ask(5433, &count).stdout == "1\n").then_some(())
    });
    let said = cluster.dev(&["logs", "app1"]).succeeded("./dev logs");
    assert!(said.contains("app1 writes and reads"), "{said}");

    // A row that was written after the backup is in a restore, once its segment is archived.
    unless_refused("a base backup", || cluster.xdb("db1", &["backup", "push"]))
        .succeeded("xdb backup push");
    let row = cluster.sql("db1", "INSERT INTO ticks DEFAULT VALUES RETURNING id");
    let segment = cluster.sql("db1", "SELECT pg_walfile_name(pg_switch_wal())");
    // The replica archives too, and is done with the segment when the bucket has it.
    for node in ["db1", "db2"] {
        eventually(&format!("{node} is done with {segment}"), SOON, || {
            let last = cluster.sql(node, "SELECT last_archived_wal FROM pg_stat_archiver");
            (last >= segment).then_some(())
        });
    }
    let question = format!("SELECT count(*) = 1 FROM public.ticks WHERE id = {row}");
    let tested = unless_refused("a restore test", || {
        let arguments = ["--json", "--database", "app", "--sql", question.as_str()];
        cluster.xdb("db2", &[&["restore-test"], arguments.as_slice()].concat())
    });
    let report: Value = serde_json::from_str(&tested.stdout).expect("a JSON report");
    assert_eq!(
        (tested.code, &report["passed"]),
        (0, &true.into()),
        "{tested:?}"
    );
    assert!(report["rto_secs"].as_f64().is_some(), "{report}");

    // The daemons have done the same by themselves: their schedules were due at once.
    let status = eventually("db2 says that it is proven", WITHIN_MINUTES, || {
        let said = cluster.xdb("db2", &["status"]);
        let proven = said.stdout.contains("a restore test passed on db2");
        (said.code == 0 && proven).then_some(said.stdout)
    });
    assert!(
        status.starts_with("OK: If db1 is lost now: recoverable to 0/"),
        "{status}"
    );
    // One verdict: what HTTP says on either node, what Redis holds, and what the command line prints.
    for node in ["db1", "db2"] {
        // Each daemon looks at the buckets once a minute.
        eventually(&format!("{node} says so itself"), WITHIN_MINUTES, || {
            let (code, said) = cluster.http(node, "/api/status");
            let said: Value = serde_json::from_str(&said).unwrap_or_default();
            // The replica shows what the primary measured.
            let measured = said["rpo"]["secs"].is_number();
            (code == 200 && said["verdict"] == "ok" && measured).then_some(())
        });
        assert_eq!(cluster.xdb(node, &["status"]).code, 0, "{node}");
        eventually(&format!("Redis says so of {node}"), WITHIN_MINUTES, || {
            let key = cluster.redis(&format!("GET xdb:main:node:{node}")).stdout;
            let state: Value = serde_json::from_str(key.trim()).unwrap_or_default();
            (state["verdict"] == "ok").then_some(())
        });
    }
    // Nothing is wrong here, and nothing cries once every job has run.
    for node in ["db1", "db2"] {
        let checked = eventually(&format!("{node}: the jobs ran"), WITHIN_MINUTES, || {
            let checked = cluster.xdb(node, &["check", "--json"]);
            (!checked.stdout.contains("never succeeded")).then_some(checked)
        });
        // The nodes' disk is that of the machine which runs the tests.
        let found: Value = serde_json::from_str(&checked.stdout).expect("JSON");
        let bad = |one: &&Value| {
            let check = one["check"].as_str().unwrap();
            one["verdict"] != "ok" && !check.starts_with("disk")
        };
        let mut found = found.as_array().unwrap().iter();
        assert_eq!(found.find(bad), None, "{node}");
    }
    metrics::metrics_and_page(&cluster);

    assert_eq!(cluster.down(), Vec::<String>::new());
}
