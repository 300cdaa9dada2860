//! Each hop down in turn: which one the probe names.

use super::*;
use crate::harness::Service;

#[test]
fn a_primary_behind_both_proxies_is_ready_at_once() {
    let lab = lab();
    let ended = wait(&lab, &format!("{WAY} --timeout 20"));
    ended.assert_ready("through HAProxy");
    assert!(ended.took < secs(10), "{ended:?}");
    // Without HAProxy, without PgBouncer, and over the sockets.
    for way in [
        "--host 127.0.0.1 --port 6432",
        "--host 127.0.0.1 --port 5432",
        "--host /var/run/postgresql --port 5432",
        "--url postgresql://postgres@127.0.0.1:15432/postgres?sslmode=disable",
    ] {
        wait(&lab, &format!("{way} --timeout 10")).assert_ready(way);
    }
    let log = lab.ok("cat /var/log/xdb-lab/pgbouncer.log");
    assert!(
        !log.contains("unexpected eof"),
        "a probe leaves in order: {log}"
    );
}

#[test]
fn the_last_line_names_the_hop_that_failed() {
    let lab = lab();
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("before");

    let ended = wait(&lab, "--host no-such-host.invalid --timeout 3");
    ended.assert_failed("no such name", 1, "name", secs(3));
    ended.assert_says("no-such-host.invalid does not resolve");

    lab.service("pgbouncer", Service::Down);
    let ended = wait(&lab, "--host 127.0.0.1 --port 6432 --timeout 2");
    ended.assert_failed("PgBouncer down", 1, "pgbouncer", secs(2));
    ended.assert_says("nothing listens at 127.0.0.1:6432");

    eventually("HAProxy takes its server for dead", SOON, || {
        let servers = lab.ok("curl -sf 'http://127.0.0.1:8404/;csv' | cut -d, -f1,2,18");
        servers.contains("primary,BACKEND,DOWN").then_some(())
    });
    for sslmode in ["disable", "prefer", "require"] {
        let ended = wait(&lab, &format!("{WAY} --timeout 2 --sslmode {sslmode}"));
        ended.assert_failed("HAProxy without backend", 1, "haproxy", secs(2));
        ended.assert_says("no live backend");
    }

    lab.service("haproxy", Service::Down);
    assert_eq!(lab.sh("pgrep -x haproxy").code, 1);
    let ended = wait(&lab, &format!("{WAY} --timeout 2s"));
    ended.assert_failed("HAProxy down", 1, "haproxy", secs(2));
    ended.assert_says("nothing listens at 127.0.0.1:15432");
    // Once for the change and once at the end, though it was tried some eight times.
    assert_eq!(ended.said.stderr.lines().count(), 2, "{ended:?}");

    lab.service("postgres", Service::Down);
    let ended = wait(&lab, "--host 127.0.0.1 --port 5432 --timeout 1");
    ended.assert_failed("PostgreSQL down, asked itself", 1, "postgres", secs(1));
    let ended = wait(&lab, "--host /var/run/postgresql --timeout 1");
    ended.assert_failed("no socket", 1, "postgres", secs(1));
}

#[test]
fn pgbouncer_that_logs_clients_in_while_postgresql_is_down_fools_nobody() {
    let lab = lab();
    // A login while it is up, so that PgBouncer has its welcome cached.
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("before");
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    let ended = wait(&lab, &format!("{WAY} --timeout 9"));
    ended.assert_failed("PostgreSQL down", 1, "postgres", secs(9));
    ended.assert_says("server login has been failing, cached error: ");
}

#[test]
fn a_login_that_pgbouncer_holds_back_is_no_silent_proxy() {
    let lab = lab();
    lab.service("postgres", Service::Down);
    // Nobody has logged in yet: PgBouncer is without a welcome.
    let waiting = waiting(&lab, &format!("{WAY} --timeout 60 --attempt-timeout 2"));
    eventually_says(&lab, "postgres: the login was held back");
    lab.service("postgres", Service::Up);
    Ended::of(waiting).assert_ready("PostgreSQL came");
}
