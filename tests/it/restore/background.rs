//! Background work of the old cluster, links in its data directory, and logins that the copy refuses.

use serde_json::{Value, json};

use super::{BIN, SOON, TARGET, archive_all, forget, restore};
use crate::harness::{Lab, Program, Service, eventually};

const LIVE: &str = "/var/lib/postgresql/17/main";
/// The database that stays open where others are locked.
const DOOR: &str = "app";

/// What the printed text says after `begin`, on the line that begins so.
fn printed<'a>(text: &'a str, begin: &str) -> &'a str {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no {begin:?} in {text}"))
}

/// pg_cron with a job each second, two libraries to preload, and links in the data directory.
fn old_cluster() -> Lab {
    let lab = Lab::start_quiet(Program::Walrus);
    lab.sql("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'pg_cron'");
    lab.sql("ALTER SYSTEM SET cron.host = '/var/run/postgresql'");
    lab.sql("ALTER SYSTEM SET primary_conninfo = 'host=db0 password=of_the_conninfo'");
    lab.sql("ALTER SYSTEM SET restore_command = 'false of_the_conninfo'");
    lab.service("postgres", Service::Down);
    lab.ok(&format!(
        "install -d -o postgres /etc/lab /srv/wal /srv/notes {LIVE}/conf.d && cd {LIVE} &&
         mv postgresql.conf /etc/lab/ && ln -s /etc/lab/postgresql.conf postgresql.conf &&
         echo \"work_mem = '9MB'\" >/etc/lab/more.conf && ln -s /etc/lab/more.conf conf.d/more.conf &&
         echo \"include_dir '$PWD/conf.d'\" >>/etc/lab/postgresql.conf &&
         ln -s /srv/notes notes && chown -R postgres /etc/lab &&
         cp -a pg_wal/. /srv/wal/ && rm -r pg_wal && ln -s /srv/wal pg_wal && chown -h postgres pg_wal notes"
    ));
    lab.service("postgres", Service::Up);
    assert_eq!(lab.sql("SHOW work_mem"), "9MB");
    lab.sql(&format!("CREATE DATABASE {DOOR}"));
    lab.sql("CREATE EXTENSION pg_cron");
    lab.sql("CREATE EXTENSION pg_stat_statements");
    lab.sql("CREATE TABLE ran (at timestamptz DEFAULT clock_timestamp())");
    lab.sql("SELECT cron.schedule('job', '1 seconds', 'INSERT INTO public.ran DEFAULT VALUES')");
    eventually("the job runs", SOON, || {
        (lab.sql("SELECT count(*) > 1 FROM ran") == "t").then_some(())
    });
    lab
}

fn psql_copy(lab: &Lab, sql: &str) -> String {
    let answer = lab.sh_as_postgres(&format!(
        "{BIN}/psql -XAtq -h {TARGET} -p 5442 -d postgres -c \"{sql}\""
    ));
    answer.succeeded(sql)
}

#[test]
fn a_copy_runs_nothing_of_the_old_cluster_and_has_it_back_after_the_printed_command() {
    let lab = old_cluster();
    let pushed = lab.xdb(&["backup", "push"]);
    let result = pushed.succeeded("backup push");
    for link in [
        "postgresql.conf -> /etc/lab/postgresql.conf",
        "conf.d/more.conf -> /etc/lab/more.conf",
        "pg_wal -> /srv/wal",
        "notes -> /srv/notes",
    ] {
        assert!(
            result.contains(&format!("a symbolic link: {link}")),
            "{result}"
        );
    }
    archive_all(&lab);
    // From here on whatever runs the job on the live server is the copy.
    lab.sql("SELECT cron.unschedule('job')");
    lab.sql("CREATE TABLE live (ran bigint)");
    let conf = lab.ok("cat /etc/lab/postgresql.conf");
    let tested = lab.xdb_json(&["restore-test"]);
    assert_eq!(tested["passed"], json!(true), "{tested}");

    let output = restore(&lab, &[]);
    // A setting may hold a password, and none is repeated.
    for result in [&output.stdout, &output.stderr] {
        assert!(!result.contains("of_the_conninfo"), "{result}");
    }
    let restored = output.succeeded("restore");
    assert_eq!(lab.ok("cat /etc/lab/postgresql.conf"), conf);
    assert_eq!(
        lab.ok(&format!("cd {TARGET} && stat -c %a postgresql.auto.conf.brought && grep -lr of_the_conninfo . --include=postgresql.*")),
        "600\n./postgresql.auto.conf.brought"
    );
    assert!(
        restored.contains("The backup brought no usable postgresql.conf"),
        "{restored}"
    );
    let held = "shared_preload_libraries (its ALTER SYSTEM is in postgresql.auto.conf.brought)";
    assert!(restored.contains(held), "{restored}");
    let before = lab.sql("SELECT count(*) FROM ran");
    let start = printed(&restored, &format!("{BIN}/pg_ctl -D {TARGET} -w -l"));
    assert!(
        start.contains("-c port=5442 ") && start.contains("read_only=on"),
        "{start}"
    );
    lab.sh_as_postgres(&format!("{start} >/dev/null"))
        .succeeded(start);
    let rows = "SELECT count(*) FROM ran";
    let copied = psql_copy(&lab, rows);
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%cron%'";
    assert_eq!(psql_copy(&lab, workers), "0");
    // The job would have run twice by then, here or there.
    psql_copy(&lab, "SELECT pg_sleep(2.5)");
    assert_eq!(psql_copy(&lab, rows), copied);
    assert_eq!(lab.sql("SELECT count(*) FROM ran"), before);
    assert_eq!(psql_copy(&lab, "SHOW transaction_read_only"), "on");
    let stop = printed(&restored, &format!("{BIN}/pg_ctl -D {TARGET} -w stop"));
    lab.sh_as_postgres(&format!("{stop} >/dev/null"))
        .succeeded(stop);

    // As this node's server it gets its libraries back by what was printed, and what needs them works.
    let reset = printed(&restored, "psql -c 'ALTER SYSTEM");
    let given_back = printed(&restored, "grep -iE '^ *(shared_preload_libraries) *=' ");
    let options = format!(
        "-c listen_addresses= -c port=5442 -c unix_socket_directories={TARGET} -c cron.host={TARGET} -c archive_mode=off"
    );
    lab.sh_as_postgres(&format!(
        "set -e; export PGHOST={TARGET} PGPORT=5442
         {BIN}/pg_ctl -D {TARGET} -s -w -l {TARGET}/look.log -o '{options}' start
         {reset}
         {given_back}
         {BIN}/pg_ctl -D {TARGET} -s -w -l {TARGET}/look.log -o '{options}' restart"
    ))
    .succeeded(reset);
    assert_eq!(
        psql_copy(&lab, "SHOW shared_preload_libraries"),
        "pg_stat_statements, pg_cron"
    );
    assert_eq!(
        psql_copy(&lab, "SELECT count(*) > 0 FROM pg_stat_statements"),
        "t"
    );
    eventually("the copy's own worker runs", SOON, || {
        (psql_copy(&lab, workers) != "0").then_some(())
    });
    lab.sh_as_postgres(stop).succeeded(stop);
}

/// Runs `hostile` in the live server, archives all up to there, and undoes it in what is not archived.
fn archived_with(lab: &Lab, hostile: &[&str], undone: &[&str]) {
    let commands = |all: &[&str]| -> String {
        let all = all.iter().map(|sql| format!(" -c \"{sql}\""));
        all.collect()
    };
    let segment = lab
        .sh_as_postgres(&format!(
            "{BIN}/psql -XAtq -d {DOOR}{} -c 'SELECT pg_walfile_name(pg_switch_wal())'{}",
            commands(hostile),
            commands(undone)
        ))
        .succeeded("the hostile settings");
    eventually("it is archived", SOON, || {
        let listed = format!("ls {}/wal_005/{segment}.lz4", super::REPOSITORY);
        (lab.sh(&listed).code == 0).then_some(())
    });
}

#[test]
fn a_login_that_the_copy_refuses_ends_the_wait_and_keeps_what_was_recovered() {
    let lab = Lab::start_quiet(Program::Walrus);
    lab.sql(&format!("CREATE DATABASE {DOOR}"));
    lab.sql("CREATE TABLE marker AS SELECT 1 AS id");
    lab.xdb_json(&["backup", "push"]);
    let locked = [
        "ALTER DATABASE template1 ALLOW_CONNECTIONS false",
        "ALTER DATABASE postgres ALLOW_CONNECTIONS false",
    ];
    let open = [
        "ALTER DATABASE postgres ALLOW_CONNECTIONS true",
        "ALTER DATABASE template1 ALLOW_CONNECTIONS true",
    ];

    // Any other database lets xdb in.
    archived_with(&lab, &locked, &open);
    let restored = lab.xdb_json(&["restore", "--target-dir", TARGET]);
    assert_eq!(restored["reason"], Value::Null, "{restored}");
    forget(&lab);

    // None does, and none will.
    archived_with(
        &lab,
        &["ALTER ROLE postgres NOLOGIN"],
        &["ALTER ROLE postgres LOGIN"],
    );
    let refused = restore(&lab, &[]);
    refused.failed(4, "role \"postgres\" is not permitted to log in");
    assert!(
        refused
            .stderr
            .contains("kept in /var/lib/postgresql/restored"),
        "{refused:?}"
    );
    let single = printed(&refused.stderr, "HINT: allow a login");
    let single = single.split('`').nth(1).expect("a command");
    lab.sh_as_postgres(&format!("echo 'ALTER ROLE postgres LOGIN' | {single}"))
        .succeeded(single);
    assert_eq!(super::ask_restored(&lab, "SELECT id FROM marker"), "1");
    forget(&lab);

    // Stopped while it knocks, or killed. ALTER DATABASE refuses to lock the database that it is sent from.
    archived_with(
        &lab,
        &["UPDATE pg_database SET datallowconn = false"],
        &["UPDATE pg_database SET datallowconn = (datname <> 'template0')"],
    );
    let knocking = || {
        let restoring = lab.xdb_in_background(&["restore", "--target-dir", TARGET]);
        eventually("the copy refuses xdb", SOON, || {
            let log = lab.sh(&format!("cat {TARGET}/xdb-restore/postgresql.log"));
            let refuses = "is not currently accepting connections";
            log.stdout.contains(refuses).then_some(())
        });
        restoring
    };
    let restoring = knocking();
    restoring.signal("TERM");
    assert_eq!(restoring.wait(SOON).code, 143);
    let left = lab.ok(&format!("ls -A {TARGET}"));
    assert!(
        left.contains("PG_VERSION") && !left.contains("xdb-restore"),
        "{left}"
    );
    lab.assert_nothing_left_behind();
    let open_postgres = || {
        lab.sh_as_postgres(&format!(
            "echo 'ALTER DATABASE postgres ALLOW_CONNECTIONS true' | {BIN}/postgres --single -D {TARGET} template1"
        ))
        .succeeded("single-user mode")
    };
    open_postgres();
    assert_eq!(super::ask_restored(&lab, "SELECT id FROM marker"), "1");
    forget(&lab);

    let restoring = knocking();
    restoring.signal("KILL");
    assert_eq!(restoring.wait(SOON).code, 137);
    lab.assert_nothing_left_behind();
    let again = restore(&lab, &[]);
    again.failed(3, "holds a cluster that has recovered");
    let finish = format!("HINT: complete it: xdb restore --target-dir {TARGET} --finish");
    assert_eq!(printed(&again.stderr, "HINT: "), finish, "{again:?}");
    // What fails on the way to a data directory removes nothing.
    let in_the_way = format!("{TARGET}/base/x");
    lab.ok(&format!(
        "install -d -o postgres {TARGET}/base {in_the_way}"
    ));
    let failed = restore(&lab, &["--finish"]);
    failed.failed(4, "kept in /var/lib/postgresql/restored");
    assert!(failed.stderr.contains("--finish"), "{failed:?}");
    assert_ne!(lab.sh(&format!("ls {TARGET}/PG_VERSION")).code, 0);
    lab.ok(&format!("rm -r {TARGET}/base"));
    let finished = lab.xdb_json(&["restore", "--target-dir", TARGET, "--finish"]);
    assert_eq!(finished["reason"], Value::Null, "{finished}");
    assert_eq!(finished["new_timeline"], json!(2), "{finished}");
    let left = lab.ok(&format!("ls -A {TARGET}"));
    assert!(
        left.contains("PG_VERSION") && !left.contains("xdb-restore"),
        "{left}"
    );
    open_postgres();
    assert_eq!(super::ask_restored(&lab, "SELECT id FROM marker"), "1");
}
