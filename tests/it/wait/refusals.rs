//! Refusals that last are final; where the password may come from.

use super::*;

#[test]
fn a_refusal_is_final_once_it_has_lasted() {
    let lab = lab_with_app();
    let refused = |what: &str, flags: &str, reason: &str| {
        let flags = format!("--host 127.0.0.1 --timeout 60 --fail-fast-after 3 {flags}");
        let ended = wait(&lab, &flags);
        ended.assert_failed(what, 3, "login", secs(3));
        ended.assert_says(reason);
        ended.assert_says(" refuses for good after ");
        assert!(ended.took < secs(30), "{what}: {ended:?}");
        assert_eq!(ended.said.stderr.lines().count(), 2, "{what}: {ended:?}");
    };
    let behind = |flags: &str| format!("--port 15432 {flags}");
    refused(
        "wrong password",
        &behind("# wrong password"),
        "SASL authentication failed",
    );
    refused(
        "no such role",
        &behind("--user nobody"),
        "SASL authentication failed",
    );
    refused(
        "no such database",
        &behind("--dbname nothing"),
        "\"nothing\" does not exist (3D000)",
    );
    refused(
        "no password",
        &behind("# no password"),
        "none is configured",
    );
    refused(
        "PostgreSQL's own refusal",
        "--port 5432 # wrong password",
        "(28P01)",
    );

    lab.ok("sed -i '1i host all app all reject' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    refused(
        "pg_hba reject",
        "--port 5432 --user app",
        "pg_hba.conf rejects connection",
    );
    refused(
        "pg_hba reject behind PgBouncer",
        &behind("--user app"),
        "pg_hba.conf rejects connection",
    );

    // As for a password and a database: 0 is at once.
    let ended = wait(&lab, &format!("{WAY} --fail-fast-after 0 --dbname nothing"));
    ended.assert_failed("at once", 3, "login", secs(0));
    assert!(ended.took < secs(10), "{ended:?}");
    // As long as the refusal is young it is no more than time that is up.
    let ended = wait(&lab, &format!("{WAY} --timeout 3 # wrong password"));
    ended.assert_failed("timeout before fail-fast", 1, "login", secs(3));
}

/// PgBouncer passes a refusal on to one client and tells the next ones from memory, in other words.
#[test]
fn probes_that_are_refused_side_by_side_all_end_with_3() {
    let lab = lab_with_app();
    wait(&lab, &format!("{WAY} --user app --timeout 20")).assert_ready("before");
    lab.ok("sed -i '1i host all app all reject' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf(), pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    let said = lab.sh_as_postgres(&format!(
        "for probe in 1 2 3 4; do
            {{ xdb wait {WAY} --user app --timeout 60 --fail-fast-after 5 2>&1; echo \"code $?\"; }} >/tmp/probe.$probe &
        done; wait; cat /tmp/probe.?"
    ));
    assert_eq!(said.stdout.matches("code 3\n").count(), 4, "{said:?}");
    assert!(
        said.stdout.contains("cached error: pg_hba.conf rejects"),
        "{said:?}"
    );
    // Told from memory or not, it is one reason: each probe says it once, and once at its end.
    assert_eq!(said.stdout.lines().count(), 4 * 3, "{said:?}");
}

#[test]
fn a_password_file_is_read_when_nothing_else_gives_a_password() {
    let lab = lab();
    lab.write_file(
        "/tmp/pgpass",
        "127.0.0.1:15432:*:postgres:lab-password\n",
        "postgres:postgres",
        "0600",
    );
    let wait = |environment: &str| {
        let begin = Instant::now();
        let command =
            format!("XDB_CONFIG=/dev/null {environment} xdb wait --json {WAY} --timeout 2");
        Ended::new(lab.sh_as_postgres(&command), begin.elapsed())
    };
    wait("PGPASSFILE=/tmp/pgpass").assert_ready("PGPASSFILE");
    wait("PGPASSWORD=lab-password").assert_ready("PGPASSWORD");
    lab.ok("install -o postgres -g postgres -m 0600 /tmp/pgpass /var/lib/postgresql/.pgpass");
    wait("").assert_ready(".pgpass");
    lab.ok("chmod 0644 /tmp/pgpass");
    let ended = wait("PGPASSFILE=/tmp/pgpass");
    ended.assert_failed("a file for all to read", 1, "login", secs(2));
    ended.assert_says("chmod 0600");
    // The seed's way: /etc/environment, which the unit need not import.
    lab.ok("rm /var/lib/postgresql/.pgpass; echo 'PGPASSWORD=\"lab-password\"' >>/etc/environment");
    wait("").assert_ready("/etc/environment");
}
