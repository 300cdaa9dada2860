//! `xdb wait` against HAProxy, PgBouncer and PostgreSQL, with each of them failing in turn.

use std::time::{Duration, Instant};

use crate::harness::{Background, Lab, Output, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(20);
/// Where applications connect in the lab.
const WAY: &[&str] = &["wait", "--host", "127.0.0.1", "--port", "15432"];

fn lab() -> Lab {
    Lab::setup(Program::Walrus).behind_haproxy().start()
}

fn wait(lab: &Lab, more: &[&str]) -> Output {
    lab.xdb(&[WAY, more].concat())
}

/// The last line names `hop` and the runbook, no line comes twice, and no password is in it.
fn assert_ended(what: &str, said: &Output, code: i32, hop: &str) {
    assert_eq!(said.code, code, "{what}: {said:?}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    let last = lines.last().unwrap_or_else(|| panic!("{what}: {said:?}"));
    assert!(
        last.contains(&format!(" s: {hop}: ")) && last.contains("runbooks/wait.md"),
        "{what}: {said:?}"
    );
    assert!(
        lines.windows(2).all(|pair| pair[0] != pair[1]),
        "{what}: {said:?}"
    );
    assert!(!said.stderr.contains("lab-password"), "{what}: {said:?}");
    assert_eq!(said.stdout, "", "{what}");
}

#[test]
fn a_primary_behind_both_proxies_is_ready_at_once() {
    let lab = lab();
    let begin = Instant::now();
    let said = wait(&lab, &["--timeout", "20"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{said:?}");
    assert!(said.stderr.contains("is ready"), "{said:?}");
    // Without PgBouncer, and over the socket.
    for host in ["127.0.0.1", "/var/run/postgresql"] {
        let said = lab.xdb(&["wait", "--host", host, "--role", "any", "--timeout", "5s"]);
        assert_eq!(said.code, 0, "{host}: {said:?}");
    }
}

#[test]
fn the_last_line_names_the_hop_that_failed() {
    let lab = lab();
    assert_eq!(wait(&lab, &["--timeout", "20"]).code, 0);

    let unknown = ["wait", "--host", "no-such-host.invalid", "--timeout", "3"];
    assert_ended("no such name", &lab.xdb(&unknown), 1, "name");

    // The login just now has PgBouncer's welcome cached.
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    let said = wait(&lab, &["--timeout", "9"]);
    assert_ended("PostgreSQL down", &said, 1, "PostgreSQL");
    assert!(said.stderr.contains("cached error"), "{said:?}");

    lab.service("pgbouncer", Service::Down);
    eventually("HAProxy takes its server for dead", SOON, || {
        let servers = lab.ok("curl -sf 'http://127.0.0.1:8404/;csv' | cut -d, -f1,2,18");
        servers.contains("primary,BACKEND,DOWN").then_some(())
    });
    let said = wait(&lab, &["--timeout", "2"]);
    assert_ended("PgBouncer down", &said, 1, "HAProxy");
    assert!(said.stderr.contains("no live backend"), "{said:?}");

    lab.service("haproxy", Service::Down);
    let begin = Instant::now();
    let said = wait(&lab, &["--timeout", "2s"]);
    assert_ended("HAProxy down", &said, 1, "HAProxy");
    assert!(said.stderr.contains("nothing listens"), "{said:?}");
    // Once for the change and once at the end, though it was tried some eight times.
    assert_eq!(said.stderr.lines().count(), 2, "{said:?}");
    assert!(begin.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_starting_server_is_waited_for() {
    let lab = lab();
    lab.service("postgres", Service::Down);
    let waiting = background(&lab, &["--timeout", "60"]);
    eventually("it has seen PostgreSQL down", SOON, || {
        // Nobody has logged in yet, so PgBouncer has no welcome and holds the login back.
        said_so_far(&lab)
            .contains("PgBouncer: the login was held back")
            .then_some(())
    });
    lab.service("postgres", Service::Up);
    let said = waiting.wait(SOON);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("is ready"), "{said:?}");
}

#[test]
fn a_refusal_is_final_once_it_has_lasted() {
    let lab = lab();
    let refused = |what: &str, environment: &str, flags: &str| {
        let begin = Instant::now();
        let said = lab.sh_as_postgres(&format!(
            "{environment} xdb wait --host 127.0.0.1 --timeout 60 --fail-fast-after 3s {flags}"
        ));
        assert_ended(what, &said, 3, "login");
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(20),
            "{what}: {took:?}"
        );
        assert!(!said.stderr.contains("hush"), "{what}: {said:?}");
    };
    refused(
        "wrong password",
        "XDB_POSTGRES_PASSWORD=hush",
        "--port 15432",
    );
    refused("no such role", "", "--port 15432 --user nobody");
    refused("no such database", "", "--port 15432 --database nothing");
    refused(
        "PostgreSQL's own refusal",
        "XDB_POSTGRES_PASSWORD=hush",
        "--port 5432",
    );
    refused("no password", "XDB_CONFIG=/dev/null", "--port 15432");

    // At boot the password may come late: as long as the refusal is young, it is waited for.
    let late = lab.sh_as_postgres(&format!(
        "XDB_POSTGRES_PASSWORD=hush xdb {} --timeout 3",
        WAY.join(" ")
    ));
    assert_ended("timeout before fail-fast", &late, 1, "login");
    lab.sql("CREATE ROLE late LOGIN");
    let way = ["wait", "--host", "127.0.0.1", "--user", "late"];
    let waiting = lab.xdb_in_background(&way);
    eventually("it was refused", SOON, || {
        said_so_far(&lab).contains("login: ").then_some(())
    });
    lab.sql("ALTER ROLE late PASSWORD 'lab-password'");
    let said = waiting.wait(SOON);
    assert_eq!(said.code, 0, "{said:?}");
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
    let wait = format!(
        "XDB_CONFIG=/dev/null PGPASSFILE=/tmp/pgpass xdb {} --timeout 2",
        WAY.join(" ")
    );
    let said = lab.sh_as_postgres(&wait);
    assert_eq!(said.code, 0, "{said:?}");
    lab.ok("chmod 0644 /tmp/pgpass");
    let said = lab.sh_as_postgres(&wait);
    assert_ended("a file for all to read", &said, 1, "login");
    assert!(said.stderr.contains("chmod 0600"), "{said:?}");
}

#[test]
fn a_server_in_the_wrong_role_is_asked_again_until_time_is_up() {
    let lab = lab();
    let begin = Instant::now();
    let said = wait(
        &lab,
        &[
            "--role",
            "replica",
            "--timeout",
            "4",
            "--fail-fast-after",
            "1s",
        ],
    );
    assert_ended("wrong role", &said, 1, "role");
    assert!(said.stderr.contains("leads to a primary"), "{said:?}");
    assert!(begin.elapsed() >= Duration::from_secs(4));
}

#[test]
fn a_signal_ends_it_at_once() {
    let lab = lab();
    lab.service("haproxy", Service::Down);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let waiting = background(&lab, &[]);
        eventually("it waits", SOON, || {
            said_so_far(&lab).contains("HAProxy: ").then_some(())
        });
        let begin = Instant::now();
        waiting.signal(signal);
        assert_eq!(waiting.wait(SOON).code, code);
        assert!(begin.elapsed() < Duration::from_secs(2));
        lab.ok("rm -rf /tmp/background.*");
    }
}

#[test]
fn wrong_usage_is_2() {
    let lab = Lab::start_bare(Program::Walrus);
    for flags in [
        &["--timeout", "soon"][..],
        &["--timeout", "0"],
        &["--port", "0"],
        &["--role", "leader"],
        &["--no-such-flag"],
    ] {
        let said = lab.xdb(&[&["wait"], flags].concat());
        assert_eq!(said.code, 2, "{flags:?}: {said:?}");
    }
}

fn background<'a>(lab: &'a Lab, more: &[&str]) -> Background<'a> {
    lab.xdb_in_background(&[WAY, more].concat())
}

fn said_so_far(lab: &Lab) -> String {
    lab.sh("cat /tmp/background.*/stderr").stdout
}
