//! Another node is promoted while a base backup is taken from the primary.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SOON, start};
use crate::harness::{Lab, Output, eventually};

const WAL: &str = "/srv/s3/walg-test/main/pg17/wal_005";

/// A second server, which streams from the first.
fn start_standby(lab: &Lab) {
    let bin = "/usr/lib/postgresql/17/bin";
    lab.sh_as_postgres(&format!(
        "PGPASSWORD=lab-password {bin}/pg_basebackup -h 127.0.0.1 -U postgres -D /tmp/standby -X stream -c fast &&
         echo \"port = 5499
                archive_mode = always
                primary_conninfo = 'host=127.0.0.1 user=postgres password=lab-password'\" >>/tmp/standby/postgresql.conf &&
         touch /tmp/standby/standby.signal &&
         {bin}/pg_ctl -D /tmp/standby -l /tmp/standby.log -w start >/dev/null"
    ))
    .succeeded("the standby starts");
}

fn sql_on_db2(lab: &Lab, sql: &str) -> String {
    lab.sh_as_postgres(&format!("psql -p 5499 -XAtqc \"{sql}\""))
        .succeeded(sql)
}

/// `xdb` as it runs on the second node.
fn on_db2(lab: &Lab, command: &str) -> Output {
    lab.sh_as_postgres(&format!(
        "mkdir -p /var/lib/postgresql/db2 && XDB_NODE_HOSTNAME=db2 XDB_NODE_STATE_DIRECTORY=/var/lib/postgresql/db2 \
         XDB_POSTGRES_PORT=5499 XDB_POSTGRES_DATA_DIRECTORY=/tmp/standby xdb {command}"
    ))
}

fn listed(lab: &Lab) -> Vec<Value> {
    let list = lab.xdb_json(&["backup", "list"]);
    list.as_array().expect("an array").clone()
}

#[test]
fn a_backup_that_another_nodes_promotion_overtakes_does_not_count_and_the_next_is_full() {
    let lab = start("delta_max_steps = 6");
    lab.sql("CREATE TABLE kept AS SELECT 1 AS id");
    start_standby(&lab);
    eventually("the standby has the row", SOON, || {
        let seen = lab.sh_as_postgres("psql -p 5499 -XAtqc 'SELECT id FROM kept'");
        (seen.stdout == "1\n").then_some(())
    });
    // Incompressible, and slow to send.
    lab.ok("head -c 100M /dev/urandom >/var/lib/postgresql/17/main/base/random && chown postgres /var/lib/postgresql/17/main/base/random");
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1000}}),
    );
    let push = lab.xdb_in_background(&["backup", "push"]);
    eventually("the backup is under way", SOON, || {
        let begun = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walrus' AND query LIKE '%pg_backup_start(%'";
        (lab.sql(begun) == "1").then_some(())
    });

    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -w promote")
        .succeeded("the promotion");
    eventually("the archive knows the new timeline", SOON * 2, || {
        (lab.sh(&format!("ls {WAL}/00000002.history*")).code == 0).then_some(())
    });
    assert!(push.is_running(), "the promotion came too late");
    assert_eq!(sql_on_db2(&lab, "SELECT pg_is_in_recovery()"), "f");
    sql_on_db2(&lab, "INSERT INTO kept VALUES (2)");
    // On the history that was left.
    lab.sql("INSERT INTO kept VALUES (666)");
    lab.remove_toxic("slow");

    let ended = push.wait(Duration::from_secs(90));
    ended.failed(
        1,
        "the backup does not count: timeline 2 began during the backup",
    );
    lab.ok("rm /var/lib/postgresql/17/main/base/random");
    let complete = |backup: &&Value| backup["status"] == "complete";
    let before = listed(&lab);
    assert_eq!(before.iter().filter(complete).count(), 1, "{before:?}");
    lab.xdb(&["backup", "push"]).failed(3, "timeline 2 exists");

    let next = on_db2(&lab, "backup push --json");
    assert_eq!(next.code, 0, "{next:?}");
    let next: Value = serde_json::from_str(&next.stdout).unwrap();
    assert_eq!(
        (&next["kind"], &next["parent"]),
        (&json!("full"), &Value::Null)
    );
    let after = listed(&lab);
    let good: Vec<_> = after
        .iter()
        .filter(complete)
        .map(|backup| &backup["timeline"])
        .collect();
    assert_eq!(good, [&json!(1), &json!(2)], "{after:?}");
    let latest = lab.xdb_json(&["backup", "show", "LATEST"]);
    assert_eq!(latest["name"], next["backup"]);
    let rows = "SELECT array_agg(id ORDER BY id) = '{1,2}' FROM public.kept";
    let tested = on_db2(&lab, &format!("restore-test --sql \"{rows}\""));
    assert_eq!(tested.code, 0, "{tested:?}");

    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -m immediate stop");
    lab.assert_nothing_left_behind();
}
