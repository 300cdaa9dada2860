//! Settings of server, database and role that would change what xdb's own sessions do.

use super::*;

/// Each of them alone made a session of xdb's fail, wait or lie, or could.
const HOSTILE: &[(&str, &str)] = &[
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "1"),
    ("lock_timeout", "1"),
    ("idle_session_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("transaction_timeout", "200"),
    ("search_path", "hostile"),
    ("DateStyle", "\"German, DMY\""),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "\"Asia/Kolkata\""),
    ("bytea_output", "escape"),
    ("extra_float_digits", "\"-15\""),
    ("quote_all_identifiers", "on"),
    ("client_min_messages", "debug5"),
    ("row_security", "off"),
    ("standard_conforming_strings", "off"),
    ("exit_on_error", "on"),
];

/// Of a session that is to mend them again.
const SANE: &str = "PGOPTIONS='-c statement_timeout=0 -c lock_timeout=0 -c transaction_timeout=0 -c idle_session_timeout=0 \
                    -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off \
                    -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
                    -c client_min_messages=warning -c search_path=pg_catalog'";

fn psql(lab: &Lab, port: u16, sql: &str) -> String {
    let command = format!("{SANE} psql -XAtq -v ON_ERROR_STOP=1 -p {port} <<'END'\n{sql}\nEND");
    lab.sh_as_postgres(&command).succeeded(sql)
}

/// A standby on 5499 with a PgBouncer on 6433 and an xdb daemon on 8010.
fn standby(lab: &Lab) -> Background<'_> {
    let made = lab.sh_as_postgres(
        "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/pg_basebackup -h 127.0.0.1 -U postgres -D /tmp/standby -X stream -c fast &&
         echo \"port = 5499
                archive_mode = off
                primary_conninfo = 'host=127.0.0.1 user=postgres password=lab-password application_name=db2'\" >>/tmp/standby/postgresql.conf &&
         touch /tmp/standby/standby.signal &&
         /usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -l /tmp/standby.log -w start >/dev/null &&
         sed 's/port=5432/port=5499/; s/^listen_port.*/listen_port = 6433/' /etc/xdb-lab/pgbouncer.ini >/tmp/pgbouncer.ini &&
         mkdir -p /tmp/xdb2 && { setsid pgbouncer /tmp/pgbouncer.ini >/tmp/pgbouncer.out 2>&1 </dev/null & }",
    );
    assert_eq!(made.code, 0, "{made:?}");
    let daemon = lab.in_background(&[
        "env",
        "XDB_POSTGRES_PORT=5499",
        "XDB_POSTGRES_DATA_DIRECTORY=/tmp/standby",
        "XDB_PGBOUNCER_PORT=6433",
        "XDB_HTTP_LISTEN=0.0.0.0:8010",
        "XDB_NODE_HOSTNAME=db2",
        "XDB_NODE_STATE_DIRECTORY=/tmp/xdb2",
        "xdb",
        "daemon",
    ]);
    eventually("the replica is served", SOON, || {
        (replica(lab) == "200").then_some(())
    });
    daemon
}

fn replica(lab: &Lab) -> String {
    lab.sh("curl -s -m 3 -o /dev/null -w '%{http_code}' http://127.0.0.1:8010/replica")
        .stdout
}

/// `level` is `SYSTEM`, `DATABASE postgres` or `ROLE postgres`; `value` is `None` to take it back.
fn alter(level: &str, is_set: bool) -> String {
    let alter = |(name, value): &(&str, &str)| {
        if is_set {
            let value = value.trim_matches('"');
            format!("ALTER {level} SET {name} = '{value}';")
        } else {
            format!("ALTER {level} RESET {name};")
        }
    };
    // Of the server it counts for the login itself, whatever the session asks for.
    let counts = |setting: &&(&str, &str)| level != "SYSTEM" || setting.0 != "transaction_timeout";
    let alter = HOSTILE.iter().filter(counts).map(alter);
    alter.collect::<Vec<_>>().join("\n")
}

#[test]
fn both_roles_stay_right_whatever_server_database_and_role_set() {
    let lab = lab();
    let primary = start(&lab);
    lab.sql("CREATE SCHEMA hostile");
    lab.sql("CREATE FUNCTION hostile.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT NOT pg_catalog.pg_is_in_recovery()'");
    let replica_daemon = standby(&lab);
    for level in ["SYSTEM", "DATABASE postgres", "ROLE postgres"] {
        let ports: &[u16] = if level == "SYSTEM" {
            &[5432, 5499]
        } else {
            &[5432]
        };
        for port in ports {
            psql(
                &lab,
                *port,
                &format!("{}\nSELECT pg_reload_conf();", alter(level, true)),
            );
        }
        eventually("a session on the standby fails", SOON, || {
            let said = lab.sh_as_postgres("PGOPTIONS='-c statement_timeout=0 -c transaction_timeout=0' psql -XAtq -p 5499 -c 'SELECT 1'");
            said.stderr.contains("serializable").then_some(())
        });
        // Settings count for new sessions only: xdb and both PgBouncers must log in again.
        for port in [5432, 5499] {
            psql(
                &lab,
                port,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            );
            eventually("xdb has a new session", SOON, || {
                let sessions = psql(
                    &lab,
                    port,
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'xdb'",
                );
                (sessions != "0").then_some(())
            });
        }
        assert_eq!(not_served(&lab, "primary", 9), [""; 0], "{level}");
        // Each sample of 8 s must be 200: a silence is held for a while, and would only then be a 503. A poll that ends with
        // the first good answer could not see that.
        let answers: Vec<String> = (0..16)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(500));
                replica(&lab)
            })
            .filter(|answer| answer != "200")
            .collect();
        assert_eq!(answers, [""; 0], "{level}");
        for name in [
            "postgresql-up",
            "postgresql-connections",
            "archive-backlog-age",
        ] {
            let said = lab.xdb(&["check", name]);
            assert_eq!(said.code, 0, "{level}: {said:?}");
        }
        for port in ports {
            psql(
                &lab,
                *port,
                &format!("{}\nSELECT pg_reload_conf();", alter(level, false)),
            );
        }
    }
    for daemon in [primary, replica_daemon] {
        daemon.signal("TERM");
        assert_eq!(daemon.wait(SOON).code, 143);
    }
    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -m immediate stop; pkill -f '[/]tmp/pgbouncer.ini'");
}
