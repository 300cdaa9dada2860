//! db1 is lost while S3 is away, db2 takes over, and db1 comes back as if nothing had happened.

use std::time::Duration;

use super::{SOON, archives_through_two_restartpoints, metrics, through_haproxy};
use crate::harness::{Cluster, eventually};

const MINUTES: Duration = Duration::from_secs(150);

/// WAL files that wait for the archive on `node`.
fn waiting(cluster: &Cluster, node: &str) -> Vec<String> {
    let list = "ls /var/lib/postgresql/17/main/pg_wal/archive_status | grep ready$ | sort";
    let listed = cluster.sh(node, list).stdout;
    listed.lines().map(str::to_owned).collect()
}

/// The WAL files that the bucket holds.
fn archived(cluster: &Cluster) -> Vec<String> {
    let listed = cluster.sh("s3", "ls /srv/s3/walg-*/main/pg17/wal_005 | sort");
    listed.succeeded("ls").lines().map(str::to_owned).collect()
}

fn s3(cluster: &Cluster, action: &str) {
    let sv = format!("sv -w 30 {action} s3");
    cluster.sh("s3", &sv).succeeded("sv");
}

/// Three segments that db1's `archive_command` stores nowhere; db2's daemon stores them.
fn a_gap_is_filled_by_the_standby(cluster: &Cluster) {
    let reload = "SELECT pg_reload_conf()";
    cluster.sql("db1", "ALTER SYSTEM SET archive_command = '/bin/true'");
    cluster.sql("db1", reload);
    eventually("it is in force", SOON, || {
        (cluster.sql("db1", "SHOW archive_command") == "/bin/true").then_some(())
    });
    let lost: Vec<String> = (0..3)
        .map(|_| {
            cluster.sql("db1", "INSERT INTO kept VALUES (0); DELETE FROM kept");
            cluster.sql("db1", "SELECT pg_walfile_name(pg_switch_wal())")
        })
        .collect();
    let last = &lost[2];
    eventually("db1 takes them for archived", SOON, || {
        let archived = cluster.sql("db1", "SELECT last_archived_wal FROM pg_stat_archiver");
        (&archived >= last).then_some(())
    });
    let holds = |name: &String| {
        archived(cluster)
            .iter()
            .any(|stored| stored.starts_with(name.as_str()))
    };
    assert!(!holds(last), "{lost:?}");
    cluster.sql("db1", "ALTER SYSTEM RESET archive_command");
    cluster.sql("db1", reload);
    eventually("the archive holds them", MINUTES, || {
        lost.iter().all(holds).then_some(())
    });
    eventually("db2 waits for none of them", MINUTES, || {
        let waits = waiting(cluster, "db2");
        let waits_for = |name: &String| waits.iter().any(|mark| mark.starts_with(name.as_str()));
        (!lost.iter().any(waits_for)).then_some(())
    });
    // It is logged once the stored copy was read back, which is after the listing has it.
    eventually("db2's daemon says that it stored them", SOON, || {
        let said = cluster.sh("db2", "cat /var/log/xeroops/xdb-*.log").stdout;
        said.contains("stored by this standby").then_some(())
    });
}

#[test]
fn no_committed_row_is_lost_to_a_failover_without_s3_and_the_old_primary_leads_nobody() {
    let (cluster, _) = Cluster::up();
    cluster.sh("app1", "sv -w 30 down app").succeeded("sv");
    eventually("a base backup is there", MINUTES, || {
        let list = cluster.xdb("db1", &["backup", "list"]);
        list.stdout.contains("complete").then_some(())
    });
    cluster.sql("db1", "CREATE TABLE kept (id int PRIMARY KEY)");
    a_gap_is_filled_by_the_standby(&cluster);

    s3(&cluster, "down");
    let refused = cluster.sh("db1", "curl -s -m 5 http://s3:7070/").code;
    assert_ne!(refused, 0);
    metrics::fires(&cluster, &["XdbServiceDown"]);
    for id in 1..=4 {
        cluster.sql("db1", &format!("INSERT INTO kept VALUES ({id})"));
        cluster.sql("db1", "SELECT pg_switch_wal()");
    }
    let segment = cluster.sql("db1", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    cluster.sql("db1", "INSERT INTO kept VALUES (5)");
    eventually("db2 has replayed every row", SOON, || {
        (cluster.sql("db2", "SELECT count(*) FROM kept") == "5").then_some(())
    });
    assert!(
        waiting(&cluster, "db1").len() >= 4,
        "{:?}",
        waiting(&cluster, "db1")
    );

    cluster.power("kill", "db1");
    assert_ne!(cluster.sh("db1", "true").code, 0);
    cluster.sql("db2", "SELECT pg_promote(wait => false)");
    eventually("db2 is promoted though S3 is away", SOON, || {
        (cluster.sql("db2", "SELECT pg_is_in_recovery()") == "f").then_some(())
    });
    eventually("db2 is served as the primary", SOON, || {
        (cluster.http("db2", "/primary").0 == 200).then_some(())
    });
    cluster.sql("db2", "GRANT ALL ON kept TO PUBLIC");
    eventually("HAProxy leads to it", SOON, || {
        let sql = "INSERT INTO public.kept VALUES (6)";
        (through_haproxy(&cluster, 5432, "$LAB_APP_PASSWORD", sql).code == 0).then_some(())
    });
    assert!(
        !archived(&cluster)
            .iter()
            .any(|name| name.starts_with("00000002"))
    );

    metrics::fires(
        &cluster,
        &["XdbDaemonDown", "XdbNodeLost", "XdbServiceDown"],
    );

    s3(&cluster, "up");
    cluster.sql("db2", "SELECT pg_switch_wal()");
    eventually("everything that waited is in the bucket", MINUTES, || {
        waiting(&cluster, "db2").is_empty().then_some(())
    });
    let ids = "SELECT array_agg(id ORDER BY id) = '{1,2,3,4,5,6}' FROM public.kept";
    let arguments = ["restore-test", "--database", "app", "--sql", ids];
    let tested = super::unless_refused("a restore test", || cluster.xdb("db2", &arguments));
    assert_eq!(tested.code, 0, "{tested:?}");

    // The old primary boots: PostgreSQL there knows of nothing. It is asked as HAProxy asks, from its first moment on.
    cluster
        .sh(
            "management",
            "setsid bash -c 'while :; do curl -s -m 1 -o /dev/null -w \"%{http_code}\\n\" http://db1:8009/primary; sleep 0.1; done' \
             >/tmp/answers 2>/dev/null </dev/null & exit 0",
        )
        .succeeded("the loop");
    cluster.power("start", "db1");
    eventually("PostgreSQL on db1 is up", MINUTES, || {
        let asked = cluster.sh("db1", "pg_isready -q").code;
        (asked == 0).then_some(())
    });
    assert_eq!(cluster.sql("db1", "SELECT pg_is_in_recovery()"), "f");
    eventually("xdb on db1 knows that db2 was promoted", SOON, || {
        let answer = cluster.http("db1", "/primary");
        answer.1.starts_with("superseded").then_some(())
    });
    cluster.sql("db1", "INSERT INTO kept VALUES (666)");
    cluster.sql("db1", "SELECT pg_switch_wal()");
    eventually("db1's archiver fails", SOON, || {
        let archiver = "SELECT failed_count > 0 FROM pg_stat_archiver";
        (cluster.sql("db1", archiver) == "t").then_some(())
    });
    let stray = format!("{segment}.ready");
    assert!(waiting(&cluster, "db1").contains(&stray), "{stray}");
    let of_db1 =
        |name: &String| name.starts_with(&format!("{segment}.")) && !name.contains("partial");
    assert!(
        !archived(&cluster).iter().any(of_db1),
        "{:?}",
        archived(&cluster)
    );
    assert_eq!(cluster.http("db1", "/primary").0, 503);
    let seen = through_haproxy(
        &cluster,
        5432,
        "$LAB_APP_PASSWORD",
        "SELECT count(*) FROM public.kept",
    );
    assert_eq!(seen.stdout, "6\n", "{seen:?}");
    let answers = cluster.sh("management", "sort /tmp/answers | uniq").stdout;
    assert!(
        answers.contains("503") && !answers.contains("200"),
        "{answers}"
    );
    eventually("db2 says what db1 is", SOON, || {
        let status = cluster.xdb("db2", &["status"]);
        status.stdout.contains("superseded").then_some(())
    });
    metrics::fires(&cluster, &["XdbNodeLost"]);
    let events = cluster.redis("XRANGE xdb:main:alerts:events - +").stdout;
    assert!(!events.contains("primaries at once"), "{events}");

    // It rejoins, and what it wrote alone is in no archive, though its archiver gets on.
    super::runbooks::rejoin_by_rewind(&cluster);
    archives_through_two_restartpoints(&cluster, "db2", "db1");
    assert!(
        !archived(&cluster).iter().any(of_db1),
        "{:?}",
        archived(&cluster)
    );
    assert_eq!(cluster.down(), Vec::<String>::new());
}
