//! `sslmode`, from PgBouncer that demands TLS to certificates of a stranger.

use super::*;

/// A CA in /tmp/ca.crt, a stranger's in /tmp/other.crt, and a certificate for the name "database".
fn certificates(lab: &Lab) {
    lab.ok(r#"cd /tmp && set -e
        for ca in ca other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj "/CN=$ca" -keyout $ca.key -out $ca.crt 2>/dev/null
        done
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database \
            -keyout server.key -out server.csr 2>/dev/null
        echo 'subjectAltName = DNS:database' >extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out server.crt 2>/dev/null
        chown postgres server.key && chmod 0600 server.key && chmod 0644 ./*.crt
        echo '127.0.0.1 database stranger' >>/etc/hosts"#);
}

/// What each mode comes to where TLS is demanded with a certificate for "database".
fn judge_modes(lab: &Lab, port: u16) {
    let end = |host: &str, flags: &str| {
        let flags = format!("--host {host} --port {port} --timeout 20 --fail-fast-after 0 {flags}");
        wait(lab, &flags)
    };
    for (host, flags) in [
        ("database", ""),
        ("database", "--sslmode allow"),
        ("stranger", "--sslmode require"),
        ("stranger", "--sslmode verify-ca --sslrootcert /tmp/ca.crt"),
        (
            "database",
            "--sslmode verify-full --sslrootcert /tmp/ca.crt",
        ),
    ] {
        end(host, flags).assert_ready(&format!("{host}:{port} {flags}"));
    }
    for (host, flags, reason) in [
        (
            "stranger",
            "--sslmode verify-full --sslrootcert /tmp/ca.crt",
            "not valid for name",
        ),
        (
            "database",
            "--sslmode verify-full --sslrootcert /tmp/other.crt",
            "UnknownIssuer",
        ),
        (
            "database",
            "--sslmode verify-ca --sslrootcert /tmp/other.crt",
            "UnknownIssuer",
        ),
        // As for libpq, a CA makes of require verify-ca.
        (
            "database",
            "--sslmode require --sslrootcert /tmp/other.crt",
            "UnknownIssuer",
        ),
    ] {
        let ended = end(host, flags);
        ended.assert_failed(flags, 3, "login", secs(0));
        ended.assert_says(reason);
    }
}

#[test]
fn tls_that_pgbouncer_demands() {
    let lab = lab();
    let ended = wait(
        &lab,
        &format!("{WAY} --sslmode require --fail-fast-after 2"),
    );
    ended.assert_failed("TLS refused", 3, "login", secs(2));
    ended.assert_says("server does not support TLS");

    certificates(&lab);
    lab.ok(r#"echo 'client_tls_sslmode = require
client_tls_key_file = /tmp/server.key
client_tls_cert_file = /tmp/server.crt' >>/etc/xdb-lab/pgbouncer.ini && sv restart pgbouncer"#);
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("prefer is the default");
    let ended = wait(
        &lab,
        &format!("{WAY} --sslmode disable --fail-fast-after 2"),
    );
    ended.assert_failed("TLS demanded", 3, "login", secs(2));
    ended.assert_says("SSL required (08P01)");
    judge_modes(&lab, 15432);
}

#[test]
fn tls_that_postgresql_demands() {
    let lab = lab();
    certificates(&lab);
    lab.sql("ALTER SYSTEM SET ssl_cert_file = '/tmp/server.crt'");
    lab.sql("ALTER SYSTEM SET ssl_key_file = '/tmp/server.key'");
    lab.sql("ALTER SYSTEM SET ssl = on");
    lab.ok("sed -i 's/^host /hostssl /' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    let direct = "--host 127.0.0.1 --port 5432";
    eventually("PostgreSQL demands TLS", SOON, || {
        let ended = wait(
            &lab,
            &format!("{direct} --sslmode disable --fail-fast-after 0"),
        );
        (ended.said.code == 3).then(|| {
            ended.assert_failed("TLS demanded", 3, "login", secs(0));
            ended.assert_says("no pg_hba.conf entry");
        })
    });
    judge_modes(&lab, 5432);
    // Where TLS is offered and refused by pg_hba.conf, prefer comes without, as libpq does.
    lab.ok("sed -i 's/^hostssl /hostnossl /' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    wait(&lab, &format!("{direct} --timeout 20")).assert_ready("without TLS after all");
}
