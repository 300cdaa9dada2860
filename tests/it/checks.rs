//! `xdb check` against real servers, well and unwell.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Lab, Output, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(30);

fn lab() -> Lab {
    Lab::setup(Program::Walrus).behind_haproxy().start()
}

/// Each finding as "check object verdict", and the whole output.
fn check(lab: &Lab, more: &[&str]) -> (Vec<String>, Output) {
    let said = lab.xdb(&[&["check", "--json"], more].concat());
    let findings: Vec<Value> =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let shown = findings.iter().map(|finding| {
        let text = |key: &str| {
            finding[key]
                .as_str()
                .filter(|text| !text.is_empty())
                .unwrap_or("-")
                .to_owned()
        };
        let ok = finding["verdict"] == "ok";
        assert_eq!(finding["reason"].is_null(), ok, "{finding}");
        // A check of an operator's own has one where its file names it.
        let check = text("check");
        let shipped = format!("{}/checks/{check}.toml", env!("CARGO_MANIFEST_DIR"));
        if std::path::Path::new(&shipped).exists() {
            assert_eq!(text("runbook"), format!("runbooks/{check}.md"), "{finding}");
        }
        format!("{} {} {}", text("check"), text("object"), text("verdict"))
    });
    assert!(!format!("{said:?}").contains("lab-password"), "{said:?}");
    (shown.collect(), said)
}

/// One check that ends in one finding: its exit code and verdict.
fn assert_check(lab: &Lab, name: &str, code: i32, verdict: &str, words: &str) {
    let (findings, said) = check(lab, &[name]);
    assert_eq!(said.code, code, "{said:?}");
    assert!(
        findings.iter().any(|finding| finding.ends_with(verdict)),
        "{said:?}"
    );
    assert!(said.stdout.contains(words), "{words}: {said:?}");
}

#[test]
fn a_node_that_is_well_is_said_to_be() {
    let lab = lab();
    let (findings, said) = check(&lab, &[]);
    for expected in [
        "archive-program - ok",
        "archiver - ok",
        "postgresql-connections - ok",
        "postgresql-up - ok",
        "pgbouncer-clients-waiting - ok",
        "pgbouncer-saturation clients ok",
        // This node is alone.
        "replication-lag - critical",
    ] {
        assert!(
            findings.iter().any(|finding| finding == expected),
            "{expected}: {said:?}"
        );
    }
    assert_eq!(said.code, 1);
    assert_check(&lab, "postgresql-up", 0, "ok", "");

    let table = lab.xdb(&["check"]);
    assert!(
        table.stdout.contains("no standby is connected") && table.stdout.starts_with("CHECK"),
        "{table:?}"
    );
    let unknown = lab.xdb(&["check", "nothing"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(
        unknown
            .stderr
            .contains("HINT: the checks are archive-backlog-age, archive-program, archiver, ")
    );
}

#[test]
fn what_cannot_be_looked_at_is_unknown_and_a_server_that_is_down_is_critical() {
    let lab = lab();
    lab.service("postgres", Service::Down);
    assert_check(&lab, "postgresql-up", 1, "critical", "cannot connect");
    for name in ["archiver", "postgresql-connections", "replication-lag"] {
        assert_check(&lab, name, 4, "unknown", "cannot connect");
    }
    assert_check(&lab, "pgbouncer-saturation", 0, "ok", "");
    lab.service("postgres", Service::Up);

    lab.service("pgbouncer", Service::Down);
    for name in ["pgbouncer-clients-waiting", "pgbouncer-saturation"] {
        assert_check(&lab, name, 4, "unknown", "cannot log in to PgBouncer");
    }
    assert_check(&lab, "postgresql-up", 0, "ok", "");

    // A server that takes connections and answers nothing.
    let postmaster = lab.ok("cat /run/service/postgres/supervise/pid");
    lab.ok(&format!("kill -STOP {postmaster}"));
    let begin = Instant::now();
    assert_check(&lab, "postgresql-up", 1, "critical", "did not answer");
    assert_check(&lab, "archiver", 4, "unknown", "did not answer");
    assert!(begin.elapsed() < Duration::from_secs(25));
    lab.ok(&format!("kill -CONT {postmaster}"));
}

#[test]
fn an_archiver_that_fails_is_critical_until_it_catches_up() {
    let lab = lab();
    lab.config("[archive]\npush_timeout = \"2s\"");
    lab.proxy_enabled(false);
    lab.sql("CREATE TABLE behind AS SELECT 1 AS a");
    lab.sql("SELECT pg_switch_wal()");
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    assert_check(
        &lab,
        "archiver",
        1,
        "critical",
        "archive_command fails on 0000",
    );
    lab.proxy_enabled(true);
    eventually(
        "the archiver is well again",
        Duration::from_secs(90),
        || (lab.xdb(&["check", "archiver"]).code == 0).then_some(()),
    );
}

#[test]
fn clients_that_wait_are_seen_by_pool() {
    let lab = lab();
    // Two more than default_pool_size; ended by the container's end.
    lab.ok(
        "for i in $(seq 12); do
             PGPASSWORD=lab-password setsid /usr/lib/postgresql/17/bin/psql -h 127.0.0.1 -p 6432 -U postgres \
                 -c 'SELECT pg_sleep(60)' >/dev/null 2>&1 </dev/null &
         done",
    );
    eventually("clients wait", SOON, || {
        let (findings, _) = check(&lab, &["pgbouncer-clients-waiting"]);
        findings
            .contains(&"pgbouncer-clients-waiting pool postgres/postgres warning".to_owned())
            .then_some(())
    });
    eventually("the wait is told", SOON, || {
        let said = lab.xdb(&["check", "pgbouncer-clients-waiting"]);
        said.stdout
            .contains("2 waiting (limit 1); the first waits for ")
            .then_some(())
    });
    let (findings, said) = check(&lab, &["pgbouncer-saturation"]);
    assert!(
        findings.contains(&"pgbouncer-saturation pool postgres/postgres critical".to_owned()),
        "{said:?}"
    );
    assert!(
        said.stdout.contains("100 % (limit 95); 10 of 10"),
        "{said:?}"
    );
}

#[test]
fn replication_is_judged_from_both_ends() {
    let lab = lab();
    let started = lab.sh_as_postgres(
        "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/pg_basebackup -h 127.0.0.1 -U postgres -D /tmp/standby -X stream -c fast &&
         echo \"port = 5499
                archive_mode = off
                primary_conninfo = 'host=127.0.0.1 user=postgres password=lab-password application_name=db2'\" >>/tmp/standby/postgresql.conf &&
         touch /tmp/standby/standby.signal &&
         /usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -l /tmp/standby.log -w start >/dev/null",
    );
    assert_eq!(started.code, 0, "{started:?}");
    let on_standby = |query: &str| {
        let said = lab.sh_as_postgres(&format!("psql -p 5499 -XAtc '{query}'"));
        said.succeeded(query)
    };
    eventually("the primary sees its standby well", SOON, || {
        (check(&lab, &["replication-lag"]).0 == ["replication-lag db2 ok"]).then_some(())
    });

    lab.ok("mkdir -p /etc/xdb/checks");
    lab.write_file(
        "/etc/xdb/checks/replication-lag.toml",
        "title = 'lag'\nkind = 'replication_lag'\nwarning_bytes = 1000\ncritical_secs = 60\n",
        "root:postgres",
        "0640",
    );
    on_standby("SELECT pg_wal_replay_pause()");
    lab.sql("CREATE TABLE lagging AS SELECT generate_series(1, 10000) AS a");
    assert_eq!(
        on_standby("SELECT pg_get_wal_replay_pause_state()"),
        "paused"
    );
    assert_check(
        &lab,
        "replication-lag",
        1,
        "warning",
        "behind (limit 1000 B)",
    );

    // On the replica, the daemon alone knows where the primary was when; the cluster's tests have one.
    lab.config("[postgres]\nport = 5499");
    assert_check(&lab, "replication-lag", 4, "unknown", "daemon keeps it");
    lab.service("postgres", Service::Down);
    eventually("the standby has lost its primary", SOON, || {
        (on_standby("SELECT count(*) FROM pg_stat_wal_receiver") == "0").then_some(())
    });
    assert_check(&lab, "replication-lag", 1, "critical", "not streaming");
    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -m immediate stop");
}

#[test]
fn an_operators_own_checks_are_run_with_deadlines_and_cannot_write() {
    let lab = lab();
    lab.ok("mkdir -p /etc/xdb/checks");
    let own = |name: &str, text: &str| {
        let path = format!("/etc/xdb/checks/{name}.toml");
        let text = format!("title = 't'\nkind = 'sql'\nwarning = 10\ncritical = 20\n{text}\n");
        lab.write_file(&path, &text, "root:postgres", "0640");
    };
    own(
        "own",
        "query = \"VALUES ('a', 5), ('b', 15), ('c', 25), ('d', NULL)\"",
    );
    assert_check(&lab, "own", 4, "unknown", "no column");
    own(
        "own",
        "unit = 'x'\nquery = \"SELECT * FROM (VALUES ('a', 5), ('b', 15), ('c', 25), ('d', NULL)) AS v (object, value)\"",
    );
    let (findings, said) = check(&lab, &["own"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        findings,
        [
            "own a ok",
            "own b warning",
            "own c critical",
            "own d unknown"
        ]
    );

    own("slow", "query = 'SELECT pg_sleep(60) AS value'");
    let begin = Instant::now();
    assert_check(&lab, "slow", 4, "unknown", "statement timeout");
    assert!(begin.elapsed() < Duration::from_secs(15));
    own(
        "locked",
        "query = 'SELECT count(*) AS value FROM public.locked'",
    );
    lab.sql("CREATE TABLE public.locked ()");
    let _lock = lab.in_background(&[
        "psql",
        "-Xc",
        "BEGIN; LOCK TABLE public.locked; SELECT pg_sleep(60)",
    ]);
    eventually("the table is locked", SOON, || {
        (lab.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'public.locked'::regclass") == "1").then_some(())
    });
    assert_check(&lab, "locked", 4, "unknown", "timeout");
    own("writes", "query = 'CREATE TABLE public.written ()'");
    assert_check(&lab, "writes", 4, "unknown", "read-only transaction");
    own(
        "rows",
        "query = 'SELECT g AS value, g::text AS object FROM pg_catalog.generate_series(1, 2000) AS g'",
    );
    assert_check(&lab, "rows", 4, "unknown", "more than 1000 rows");
    // What one query leaves in its session reaches no other: it would hold back VACUUM, or change what the other returns.
    own(
        "begins",
        "query = \"BEGIN; SET statement_timeout = 0; SELECT 5 AS value\"",
    );
    own(
        "follows",
        "query = \"SELECT CASE pg_catalog.current_setting('statement_timeout') WHEN '5s' THEN 5 ELSE 25 END AS value\"",
    );
    lab.ok("rm /etc/xdb/checks/slow.toml /etc/xdb/checks/locked.toml");
    let (findings, said) = check(&lab, &[]);
    for name in ["begins", "follows"] {
        let is_ok = |finding: &String| finding.starts_with(name) && finding.ends_with(" ok");
        assert!(findings.iter().any(is_ok), "{name}: {said:?}");
    }
    own(
        "elsewhere",
        "role = 'replica'\nquery = 'SELECT 99 AS value'",
    );
    let said = lab.xdb(&["check", "elsewhere"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("elsewhere runs on the replica only"),
        "{said:?}"
    );

    own("wrong", "query = 'SELECT 1 AS value'\nwarnings = 1");
    let said = lab.xdb(&["check"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("/etc/xdb/checks/wrong.toml: there is no key warnings"),
        "{said:?}"
    );
}
