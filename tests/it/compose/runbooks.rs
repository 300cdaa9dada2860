//! The runbooks of the worst days, walked through: their own commands, on the nodes that they name.

use std::time::Duration;

use super::{SOON, archives_through_two_restartpoints, through_haproxy, unless_refused};
use crate::harness::{Cluster, eventually};

const MINUTES: Duration = Duration::from_secs(150);
const PROMOTE: &str = include_str!("../../../runbooks/promote.md");
const REJOIN: &str = include_str!("../../../runbooks/rejoin.md");
const RESTORE: &str = include_str!("../../../runbooks/disaster_restore.md");

/// What a shell of root's has on a node: credentials for S3 as its role gives them, no password; and runit, where a node has systemd.
const SHELL: &str = r#"
set -eu
[ ! -e /etc/environment ] || { set -a; . /etc/environment; set +a; }
unset PGPASSWORD
systemctl() {
    case $1 in disable | stop) action=stop ;; enable | start) action=start ;; *) action=$1 ;; esac
    shift
    for unit; do
        case $unit in
            --now) ;;
            postgresql@17-main) sv -w 60 $action postgres ;;
            *) sv -w 60 $action "$unit" ;;
        esac
    done
}
"#;

/// The blocks of the part below `heading`, with the node that each names.
fn blocks(runbook: &str, heading: &str) -> Vec<(String, String)> {
    let mut below = runbook.lines().skip_while(|line| *line != heading);
    assert!(below.next().is_some(), "no {heading}");
    let part: Vec<&str> = below
        .take_while(|line| !line.starts_with("## ") && !line.starts_with("### "))
        .collect();
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in part {
        match (&mut open, line) {
            (None, "```sh") => open = Some(Vec::new()),
            (Some(lines), "```") => {
                let node = lines[0]
                    .strip_prefix("# on ")
                    .expect("a block names its node");
                blocks.push((node.to_owned(), lines[1..].join("\n")));
                open = None;
            }
            (Some(lines), line) => lines.push(line),
            (None, _) => {}
        }
    }
    assert!(!blocks.is_empty(), "no commands below {heading}");
    blocks
}

/// The same runbook for the other way round.
fn exchanged(runbook: &str) -> String {
    let parts: Vec<String> = runbook
        .split("db1")
        .map(|part| part.replace("db2", "db1"))
        .collect();
    parts.join("db2")
}

fn run(cluster: &Cluster, (node, script): &(String, String)) -> String {
    let said = cluster.sh(node, &format!("{SHELL}{script}"));
    assert_eq!(said.code, 0, "on {node}:\n{script}\n{said:?}");
    said.stdout
}

/// Runs all of a part; gives what it said.
fn walk(cluster: &Cluster, runbook: &str, heading: &str) -> String {
    let all = blocks(runbook, heading);
    all.iter().map(|block| run(cluster, block)).collect()
}

/// db1 follows db2 by `pg_rewind`, as rejoin.md says.
pub(super) fn rejoin_by_rewind(cluster: &Cluster) {
    walk(cluster, REJOIN, "### A slot on the primary");
    walk(cluster, REJOIN, "### By pg_rewind");
    let seen = walk(cluster, REJOIN, "### Start it and look");
    assert!(seen.contains("db1"), "{seen}");
    follows(cluster, "db2", "db1");
}

fn rows(cluster: &Cluster, node: &str) -> String {
    cluster.sql(
        node,
        "SELECT string_agg(id::text, ',' ORDER BY id) FROM kept",
    )
}

fn follows(cluster: &Cluster, primary: &str, replica: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{replica}' AND state = 'streaming'"
    );
    eventually(&format!("{replica} follows {primary}"), MINUTES, || {
        (cluster.sql(primary, &sql) == "1").then_some(())
    });
    eventually("it has every row", SOON, || {
        (rows(cluster, primary) == rows(cluster, replica)).then_some(())
    });
}

fn archive_all(cluster: &Cluster, primary: &str) {
    let segment = cluster.sql(primary, "SELECT pg_walfile_name(pg_switch_wal())");
    eventually("it is archived", MINUTES, || {
        let listed = cluster.sh(
            "s3",
            &format!("ls /srv/s3/walg-*/main/pg17/wal_005/{segment}*"),
        );
        (listed.code == 0).then_some(())
    });
}

fn lose(cluster: &Cluster, node: &str) {
    let wipe = "sv -w 30 stop postgres && rm -rf /var/lib/postgresql/17/main";
    cluster.sh(node, wipe).succeeded("wipe");
    assert_ne!(cluster.sh(node, "ls /var/lib/postgresql/17/main").code, 0);
}

#[test]
fn the_runbooks_lead_through_a_failover_a_rejoin_and_the_loss_of_one_node_and_of_both() {
    let (cluster, _) = Cluster::up();
    cluster.sh("app1", "sv -w 30 down app").succeeded("sv");
    eventually("a base backup is there", MINUTES, || {
        let list = cluster.xdb("db1", &["backup", "list"]);
        list.stdout.contains("complete").then_some(())
    });
    cluster.sql("db1", "CREATE TABLE kept (id int PRIMARY KEY); GRANT ALL ON kept TO PUBLIC; INSERT INTO kept VALUES (1)");
    follows(&cluster, "db1", "db2");

    // The primary dies: promote.md.
    cluster.power("kill", "db1");
    walk(&cluster, PROMOTE, "## Diagnosis");
    let fence = blocks(PROMOTE, "### Fence the old primary");
    let silent = run(&cluster, &fence[1]);
    assert!(
        !silent.contains("NOT fenced") && silent.contains("does not prove"),
        "{silent}"
    );
    let promoted = walk(&cluster, PROMOTE, "### Promote the replica");
    assert!(promoted.contains("primary,db2"), "{promoted}");
    assert_eq!(cluster.sql("db2", "SELECT pg_is_in_recovery()"), "f");
    eventually("HAProxy leads to it", SOON, || {
        let sql = "INSERT INTO public.kept VALUES (2) ON CONFLICT DO NOTHING";
        (through_haproxy(&cluster, 5432, "$LAB_APP_PASSWORD", sql).code == 0).then_some(())
    });
    unless_refused("a base backup", || {
        let (node, script) = &blocks(PROMOTE, "### Protect it")[0];
        cluster.sh(node, &format!("{SHELL}{script}"))
    })
    .succeeded("the first base backup");

    // It comes back as a primary of its own, is fenced now that it can be reached, and rejoins: rejoin.md.
    cluster.power("start", "db1");
    eventually("PostgreSQL on db1 is up", MINUTES, || {
        (cluster.sh("db1", "pg_isready -q").code == 0).then_some(())
    });
    cluster.sql("db1", "INSERT INTO kept VALUES (666)");
    assert!(run(&cluster, &fence[1]).contains("NOT fenced: db1 answers on port 5432"));
    assert!(run(&cluster, &fence[0]).contains("fenced: "));
    assert!(!run(&cluster, &fence[1]).contains("NOT fenced"));
    rejoin_by_rewind(&cluster);
    assert_eq!(rows(&cluster, "db1"), "1,2");
    archives_through_two_restartpoints(&cluster, "db2", "db1");

    // The replica is lost.
    lose(&cluster, "db1");
    let (restore, rejoin) = (exchanged(RESTORE), exchanged(REJOIN));
    eventually("its slot is left", SOON, || {
        let left =
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'db1' AND NOT active";
        (cluster.sql("db2", left) == "1").then_some(())
    });
    walk(&cluster, &restore, "### db1, the replica, is lost");
    walk(&cluster, REJOIN, "### A slot on the primary");
    walk(&cluster, REJOIN, "### By a new copy");
    walk(&cluster, REJOIN, "### Start it and look");
    follows(&cluster, "db2", "db1");

    // Both are lost, and only the bucket is left.
    cluster.sql("db2", "INSERT INTO kept VALUES (3)");
    archive_all(&cluster, "db2");
    cluster
        .sh("db1", "rm -rf /var/lib/postgresql/17/main.old")
        .succeeded("rm");
    lose(&cluster, "db1");
    lose(&cluster, "db2");
    let both = blocks(RESTORE, "### Both are lost");
    let (at_once, after_the_replica) = both.split_at(both.len() - 1);
    let said: Vec<String> = at_once.iter().map(|block| run(&cluster, block)).collect();
    assert!(
        said[0].contains("lost      nothing that was archived"),
        "{said:?}"
    );
    let looked = "f                 | off";
    assert!(said.iter().any(|said| said.contains(looked)), "{said:?}");
    assert_eq!(rows(&cluster, "db1"), "1,2,3");
    assert_eq!(
        cluster.sql("db1", "SELECT current_setting('archive_mode')"),
        "always"
    );
    walk(&cluster, &rejoin, "### A slot on the primary");
    walk(&cluster, &rejoin, "### By a new copy");
    walk(&cluster, &rejoin, "### Start it and look");
    follows(&cluster, "db1", "db2");
    after_the_replica.iter().for_each(|block| {
        run(&cluster, block);
    });
    eventually("HAProxy leads to db1", SOON, || {
        let sql = "INSERT INTO public.kept VALUES (4) ON CONFLICT DO NOTHING";
        (through_haproxy(&cluster, 5432, "$LAB_APP_PASSWORD", sql).code == 0).then_some(())
    });

    // Somebody deletes rows, and they come back from a copy beside the replica.
    let moment = cluster.sql("db1", "SELECT clock_timestamp()");
    cluster.sql("db1", "DELETE FROM kept WHERE id <> 3");
    let as_of = RESTORE.replace("2026-11-21 10:42:00+01", &moment);
    assert_ne!(as_of, RESTORE);
    let as_of = as_of.replace("table=public.orders", "table=public.kept");
    let as_of = blocks(&as_of, "### A table as it was at 10:42");
    run(&cluster, &as_of[0]);
    run(&cluster, &as_of[1]);
    let dump = "runuser -u postgres -- pg_dump -h /var/lib/postgresql/as-of -p 5442 -t kept -a --inserts app | grep -c INSERT";
    assert_eq!(cluster.sh("db2", dump).stdout, "4\n");
    assert_eq!(rows(&cluster, "db1"), "3");
    let loaded = run(&cluster, &as_of[2]);
    assert!(loaded.contains("INSERT 0 3"), "{loaded}");
    run(&cluster, &as_of[3]);
    assert_eq!(rows(&cluster, "db1"), "1,2,3,4");

    // The archive of the cluster that came back is whole, as a restore test of it says.
    let tested = unless_refused("a restore test", || cluster.xdb("db2", &["restore-test"]));
    assert_eq!(tested.code, 0, "{tested:?}");
    let verified = cluster.xdb("db1", &["archive", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(cluster.down(), Vec::<String>::new());
}
