//! Settings of server, database and role that would change what the sessions of xdb do, and those of the programs that it
//! runs: base backups, dumps and both tests work as without them, and `/primary` is served.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Lab, Program, eventually};

const SOON: Duration = Duration::from_secs(60);
/// The daemon begins no base backup of its own beside those of the test.
const CONFIG: &str = "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
                      [schedule]\nbase_backup = \"0 0 1 1 *\"\n";
const PG: &str = "/usr/lib/postgresql/17/bin";

/// Where a setting may be set; not each may be set everywhere.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Server,
    /// Of every database that takes connections.
    Database,
    Role,
}

/// A setting, its value, and where it is tried.
const HOSTILE: &[(&str, &str, &[Level])] = {
    use Level::{Database, Role, Server};
    const ALL: &[Level] = &[Server, Database, Role];
    &[
        ("default_transaction_isolation", "serializable", ALL),
        ("default_transaction_read_only", "on", ALL),
        ("default_transaction_deferrable", "on", ALL),
        ("statement_timeout", "1", ALL),
        ("lock_timeout", "1", ALL),
        ("idle_session_timeout", "1", ALL),
        ("idle_in_transaction_session_timeout", "1", ALL),
        // Of the server it counts for the login itself, whatever the session asks for.
        ("transaction_timeout", "200", &[Database, Role]),
        ("search_path", "hostile", ALL),
        ("client_encoding", "LATIN1", ALL),
        ("DateStyle", "German, DMY", ALL),
        ("IntervalStyle", "sql_standard", ALL),
        ("TimeZone", "Asia/Kolkata", ALL),
        ("bytea_output", "escape", ALL),
        ("extra_float_digits", "-15", ALL),
        ("quote_all_identifiers", "on", ALL),
        ("client_min_messages", "debug5", ALL),
        ("row_security", "off", ALL),
        ("standard_conforming_strings", "off", ALL),
        ("exit_on_error", "on", ALL),
        ("default_tablespace", "nowhere", &[Database, Role]),
        ("default_table_access_method", "nowhere", &[Database, Role]),
        (
            "restrict_nonsystem_relation_kind",
            "view, foreign-table",
            ALL,
        ),
        ("session_replication_role", "replica", &[Database, Role]),
        ("temp_file_limit", "0", &[Database, Role]),
        ("lc_messages", "C.UTF-8", ALL),
        ("role", "weak", &[Database, Role]),
    ]
};

/// Of a session that sets and mends them.
const SANE: &str = "PGCLIENTENCODING=UTF8 PGOPTIONS='-c statement_timeout=0 -c lock_timeout=0 -c transaction_timeout=0 \
                    -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off \
                    -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
                    -c client_min_messages=error -c search_path=pg_catalog -c role=none -c session_preload_libraries='";

fn psql(lab: &Lab, sql: &str) -> String {
    let command = format!("{SANE} {PG}/psql -XAtq -v ON_ERROR_STOP=1 <<'END'\n{sql}\nEND");
    lab.sh_as_postgres(&command).succeeded(sql)
}

fn alter(level: Level, is_set: bool) -> String {
    let objects: &[&str] = match level {
        Level::Server => &["SYSTEM"],
        Level::Database => &["DATABASE postgres", "DATABASE template1", "DATABASE shop"],
        Level::Role => &["ROLE postgres"],
    };
    let mut sql = String::new();
    for object in objects {
        for (name, value, levels) in HOSTILE {
            if levels.contains(&level) && is_set {
                sql.push_str(&format!("ALTER {object} SET {name} = '{value}';\n"));
            } else if levels.contains(&level) {
                sql.push_str(&format!("ALTER {object} RESET {name};\n"));
            }
        }
    }
    sql + "SELECT pg_reload_conf();"
}

#[test]
fn backups_dumps_and_tests_depend_on_no_setting_of_server_database_or_role() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(CONFIG);
    lab.sql("CREATE ROLE weak");
    lab.sql("CREATE DATABASE shop");
    lab.write_file(
        "/tmp/shop.sql",
        "CREATE TABLE orders (id int PRIMARY KEY, who text, seen timestamptz, paid bytea);
         INSERT INTO orders SELECT i, 'Zoë € ' || i, now(), '\\x00ff' FROM generate_series(1, 1000) AS i;
         CREATE VIEW half AS SELECT * FROM orders WHERE id <= 500;
         CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM half;",
        "postgres:postgres",
        "0600",
    );
    lab.sh_as_postgres(&format!(
        "{PG}/psql -Xq -v ON_ERROR_STOP=1 -d shop -f /tmp/shop.sql"
    ))
    .succeeded("fill");
    // A job that has never run is due at once.
    lab.xdb(&["backup", "push"]).succeeded("backup push");
    let daemon = lab.xdb_in_background(&["daemon"]);
    let primary = || {
        let curl = "curl -s -m 3 -o /dev/null -w '%{http_code}' http://127.0.0.1:8009/primary";
        lab.sh(curl).stdout
    };
    eventually("/primary is 200", SOON, || {
        (primary() == "200").then_some(())
    });

    // A role's settings hide a database's, and those the server's: so each is tried alone.
    for level in [Level::Server, Level::Database, Level::Role] {
        psql(&lab, &alter(level, true));
        if level == Level::Database {
            // Pinned by superusers alone.
            psql(
                &lab,
                "ALTER DATABASE shop SET session_preload_libraries = 'no_such_library'",
            );
            let refused = lab.sh_as_postgres(&format!("{PG}/psql -Xc 'SELECT 1' -d shop"));
            assert!(refused.stderr.contains("no_such_library"), "{refused:?}");
        }
        let plain = format!(
            "PGOPTIONS='-c transaction_timeout=0 -c statement_timeout=0 -c role=none' {PG}/psql -XAtqc 'SHOW default_transaction_isolation'"
        );
        eventually("a plain session is changed", SOON, || {
            let output = lab.sh_as_postgres(&plain);
            output.stdout.contains("serializable").then_some(())
        });

        let backup = lab.xdb(&["backup", "push", "--full"]);
        assert_eq!(backup.code, 0, "{backup:?}");
        let set = lab.xdb_json(&["dump", "push"]);
        let rows = &set["databases"][1]["rows"];
        assert_eq!(rows, &json!({"public.orders": 1000}), "{set}");
        let dump_test = lab.xdb(&["dump", "test", "--json"]);
        assert_eq!(dump_test.code, 0, "{dump_test:?}");
        // At the cheapest level that asks the restored server for something.
        let query = "SELECT count(*) = 1000 FROM public.orders";
        let restore_test = lab.xdb(&[
            "restore-test",
            "--json",
            "--level",
            "start",
            "--sql",
            query,
            "--database",
            "shop",
        ]);
        assert_eq!(restore_test.code, 0, "{restore_test:?}");
        for _ in 0..3 {
            assert_eq!(primary(), "200");
        }

        psql(&lab, &alter(level, false));
        psql(&lab, "ALTER DATABASE shop RESET session_preload_libraries");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
