//! `xdb check` against real servers, well and unwell.

mod own;

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
        "blocked-locks - ok",
        "data-checksums - ok",
        "invalid-indexes - ok",
        "pgbouncer-clients - ok",
        "pgbouncer-clients-waiting - ok",
        "pgbouncer-paused - ok",
        "replication-slots-lost - ok",
        "replication-sync - ok",
        "sequences - ok",
        "xid-age postgres ok",
        // This node is alone.
        "replication-lag - critical",
    ] {
        assert!(
            findings.iter().any(|finding| finding == expected),
            "{expected}: {said:?}"
        );
    }
    assert_eq!(said.code, 1);
    // A new cluster has no backup and no standby; nothing else is to be said of it.
    // How full the volume is belongs to the machine that runs the tests.
    let bad = |finding: &&String| !finding.ends_with(" ok") && !finding.starts_with("disk ");
    let about = |finding: &String| finding.split(' ').next().unwrap_or_default().to_owned();
    let bad: Vec<_> = findings.iter().filter(bad).map(about).collect();
    let expected = [
        "base-backup-age",
        "dump-age",
        "dump-test-age",
        "replication-lag",
        "restore-test-age",
    ];
    assert_eq!(bad, expected, "{said:?}");
    assert_check(&lab, "postgresql-up", 0, "ok", "");
    how_a_check_is_shown(&lab);
    a_role_of_pg_monitor_is_enough(&lab);

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

/// `list`, `--explain`, `--nagios` and `xdb runbook`.
fn how_a_check_is_shown(lab: &Lab) {
    let list = lab.xdb(&["check", "list"]).succeeded("list");
    let line = list
        .lines()
        .find(|line| line.starts_with("pgbouncer-saturation "));
    let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words[1..9].join(" "), "any >= 80 % >= 95 % 60", "{list}");
    assert!(words.contains(&"packaged"), "{list}");
    let list = lab.xdb_json(&["check", "list"]);
    let mut all = list.as_array().unwrap().iter();
    let saturation = all.find(|one| one["name"] == "pgbouncer-saturation");
    assert_eq!(saturation.unwrap()["recover"], 5.0, "{list}");

    let explained = lab
        .xdb(&["check", "xid-age", "--explain"])
        .succeeded("explain");
    for words in [
        "PostgreSQL 17, database postgres:",
        "pg_catalog.age(datfrozenxid)",
        "template1",
        "VALUE",
    ] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
    let explained = lab.xdb_json(&["check", "pgbouncer-clients", "--explain"]);
    let asked = explained["asked"].as_array().unwrap().iter();
    let questions: Vec<_> = asked.map(|one| one["question"].as_str().unwrap()).collect();
    assert_eq!(questions, ["SHOW LISTS", "SHOW CONFIG"]);
    let value = explained["findings"][0]["value"].as_f64();
    assert!(value.unwrap() > 0.0, "{explained}");

    let plugin = lab.xdb(&["check", "pgbouncer-clients", "--nagios"]);
    assert_eq!(plugin.code, 0, "{plugin:?}");
    let line = plugin.stdout.trim();
    assert!(
        line.starts_with("XDB OK - pgbouncer-clients is ok | 'pgbouncer-clients'=")
            && line.ends_with("%;80;95"),
        "{plugin:?}"
    );
    let plugin = lab.xdb(&["check", "replication-lag", "--nagios"]);
    assert_eq!(plugin.code, 2, "{plugin:?}");
    assert!(
        plugin
            .stdout
            .starts_with("XDB CRITICAL - replication-lag no standby"),
        "{plugin:?}"
    );
    let plugin = lab.xdb(&["check", "nothing", "--nagios"]);
    assert_eq!(plugin.code, 3, "{plugin:?}");

    let runbook = lab
        .xdb(&["runbook", "replication-lag"])
        .succeeded("runbook");
    assert!(
        runbook.starts_with("# replication-lag") && runbook.contains("\n## Mitigation\n"),
        "{runbook}"
    );
    assert_eq!(lab.xdb(&["runbook", "nothing"]).code, 2);
}

/// As `packaging/grants.sql` makes it.
fn a_role_of_pg_monitor_is_enough(lab: &Lab) {
    let grants = include_str!("../../packaging/grants.sql");
    lab.write_file("/tmp/grants.sql", grants, "postgres:postgres", "0600");
    let made = lab.sh_as_postgres(
        "psql -X -v ON_ERROR_STOP=1 -v password=lab-password -f /tmp/grants.sql postgres",
    );
    assert_eq!(made.code, 0, "{made:?}");
    let of_kind_sql = |finding: &&String| {
        let name = finding.split(' ').next().unwrap_or_default();
        let path = format!("{}/checks/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.contains("kind = \"sql\"")
    };
    lab.config(
        "[postgres]\nuser = \"xdb_monitor\"\nhost = \"127.0.0.1\"\npassword = \"lab-password\"",
    );
    let (findings, said) = check(lab, &[]);
    let of_sql: Vec<_> = findings.iter().filter(of_kind_sql).collect();
    assert!(of_sql.len() > 15, "{said:?}");
    let is_ok = |finding: &&String| finding.ends_with(" ok");
    assert!(of_sql.iter().all(is_ok), "{said:?}");
    // Without the grant what it sees of others is no well-being.
    lab.sql("REVOKE pg_monitor FROM xdb_monitor");
    for name in [
        "long-transactions",
        "idle-in-transaction",
        "postgresql-connections",
    ] {
        assert_check(lab, name, 4, "unknown", "GRANT pg_monitor");
    }
    lab.config("");
}

#[test]
fn what_cannot_be_looked_at_is_unknown_and_a_server_that_is_down_is_critical() {
    let lab = lab();
    lab.service("postgres", Service::Down);
    assert_check(&lab, "postgresql-up", 1, "critical", "cannot connect");
    for name in ["archiver", "postgresql-connections", "replication-lag"] {
        assert_check(&lab, name, 4, "unknown", "cannot connect");
    }
    assert_check(&lab, "pgbouncer-clients", 0, "ok", "");
    let plugin = lab.xdb(&["check", "xid-age", "--nagios"]);
    assert_eq!(plugin.code, 3, "{plugin:?}");
    // The reason stands once, however many checks have it.
    let plugin = lab.xdb(&["check", "--nagios"]);
    assert_eq!(plugin.code, 2, "{plugin:?}");
    assert!(plugin.stdout.len() < 4096, "{plugin:?}");
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
            .contains(&"pgbouncer-clients-waiting postgres/postgres warning".to_owned())
            .then_some(())
    });
    eventually("the wait is told", SOON, || {
        let said = lab.xdb(&["check", "pgbouncer-clients-waiting"]);
        said.stdout
            .contains("2 waiting (limit 1); maxwait ")
            .then_some(())
    });
    // The first two may have waited for their logins only.
    eventually("the pool is full", SOON, || {
        let (findings, said) = check(&lab, &["pgbouncer-saturation"]);
        let critical = "pgbouncer-saturation postgres/postgres critical".to_owned();
        (findings.contains(&critical) && said.stdout.contains("100 % (limit 95 %); 10 of 10"))
            .then_some(())
    });
    any_column_of_the_console_may_be_judged(&lab);
}

/// Unknown columns and commands, and databases that are paused and disabled.
fn any_column_of_the_console_may_be_judged(lab: &Lab) {
    lab.ok("mkdir -p /etc/xdb/checks");
    let own = |text: &str| {
        let text = format!("title = 't'\nkind = 'pgbouncer'\n{text}\n");
        lab.write_file("/etc/xdb/checks/busy.toml", &text, "root:postgres", "0640");
    };
    own(
        "show = 'servers'\nvalue = 'port'\nfold = 'max'\ngroup = 'database'\ncritical = 5432\nunit = 'port'",
    );
    assert_check(lab, "busy", 1, "critical", "5432 port (limit 5432)");
    own("show = 'POOLS'\nvalue = 'cl_wait'\nwarning = 1");
    let words = "SHOW POOLS has no column cl_wait; it has database, user, cl_active";
    assert_check(lab, "busy", 4, "unknown", words);
    own("show = 'NOTHING'\nvalue = 'x'\nwarning = 1");
    assert_check(lab, "busy", 4, "unknown", "PgBouncer refuses SHOW NOTHING");
    lab.ok("rm /etc/xdb/checks/busy.toml");

    const CONSOLE: &str = "psql -h /var/run/postgresql -p 6432 -U pgbouncer -X pgbouncer";
    let console = |command: &str| {
        let said = lab.sh_as_postgres(&format!("{CONSOLE} -c '{command}'"));
        said.succeeded(command)
    };
    console("DISABLE postgres");
    assert_check(lab, "pgbouncer-disabled", 1, "critical", "disabled 1");
    console("ENABLE postgres");
    assert_check(lab, "pgbouncer-disabled", 0, "ok", "");
    // It waits for the servers that are in use, and the pause lasts meanwhile.
    lab.ok(&format!(
        "setsid setpriv --reuid=postgres --regid=postgres --init-groups {CONSOLE} -c 'PAUSE postgres' >/dev/null 2>&1 </dev/null &"
    ));
    eventually("a paused database is critical", SOON, || {
        let (findings, _) = check(lab, &["pgbouncer-paused"]);
        (findings == ["pgbouncer-paused postgres critical"]).then_some(())
    });
    // Without the user of the statistics nothing is known, and nothing is well.
    lab.config("[pgbouncer]\nuser = \"nobody\"");
    assert_check(
        lab,
        "pgbouncer-paused",
        4,
        "unknown",
        "cannot log in to PgBouncer",
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
