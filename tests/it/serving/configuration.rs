//! Files that are wrong: the daemon serves without what they would have set, says so, and `xdb config check` says it before.

use super::*;
use crate::harness::Service;

const WRONG: &str = "[schedule]\ndump = \"whenever\"\nchecks = \"2 moons\"\n\
    [s3]\nendpoint = \"ftp://nowhere\"\n\
    [postgres]\nconnect_timeout = \"5 parsecs\"\n\
    [archive]\npush_timeout = \"5\"\nrepositry = \"s3://a/b\"\n\
    [retention]\nfulls = -1\n\
    [restore_test]\nlevel = \"most\"\n\
    [dump]\ntimeout = 1d\n\
    [wait]\nport = 0\n\
    [nonsense]\nkey = 1\n";

/// Each wrong key of [`WRONG`].
const KEYS: &[&str] = &[
    "schedule.dump",
    "schedule.checks",
    "s3.endpoint",
    "postgres.connect_timeout",
    "archive.push_timeout",
    "archive.repositry",
    "retention.fulls",
    "restore_test.level",
    "dump.timeout",
    "wait.port",
    "nonsense",
];

#[test]
fn what_serving_does_not_need_may_be_wrong_and_is_told() {
    let lab = lab();
    let right = lab.xdb(&["config", "check"]);
    assert_eq!(right.code, 0, "{right:?}");
    let daemon = start(&lab);

    // The running daemon tells before it has to start with it.
    lab.ok("mkdir -p /etc/xdb/checks");
    let own = |name: &str, text: &str| {
        let path = format!("/etc/xdb/checks/{name}.toml");
        lab.write_file(&path, text, "root:postgres", "0640");
    };
    own("own", "title = 'own'\nkind = 'sequel'\n");
    own(
        "archiver",
        "title = 'archiver'\nkind = 'archiver'\nwarning = ",
    );
    own("unreadable", "title = 'x'\n");
    lab.ok("mkfifo -m 0644 /etc/xdb/checks/pipe.toml");
    lab.ok("chown root:root /etc/xdb/checks/unreadable.toml && chmod 0600 /etc/xdb/checks/unreadable.toml");
    lab.config(&format!("{REDIS}{WRONG}"));
    let objects = || -> Vec<String> {
        let alerts = alerts(&lab).into_iter();
        let configuration = alerts.filter(|alert| alert["check"] == "configuration");
        configuration
            .filter_map(|alert| Some(alert["object"].as_str()?.to_owned()))
            .collect()
    };
    eventually("each fault is an alert", SOON, || {
        let objects = objects();
        let told = |key: &&str| objects.iter().any(|object| object == *key);
        (KEYS.iter().all(told) && told(&"/etc/xdb/checks/own.toml")).then_some(())
    });

    let said = lab.xdb(&["config", "check"]);
    assert_eq!(said.code, 2, "{said:?}");
    for key in KEYS {
        let line = said.stderr.lines().find(|line| line.contains(key));
        assert!(
            line.is_some_and(|line| line.contains("/etc/xdb/xdb.toml:")),
            "{key}: {said:?}"
        );
    }
    for place in [
        "own.toml:2: kind is \"sequel\"",
        "archiver.toml:3: ",
        "unreadable.toml",
        "pipe.toml: it is not a regular file",
    ] {
        assert!(said.stderr.contains(place), "{place}: {said:?}");
    }
    assert!(
        said.stderr.contains("HINT:") && !said.stderr.contains("lab-"),
        "{said:?}"
    );

    // SIGHUP and a start with it.
    daemon.signal("HUP");
    assert_eq!(not_served(&lab, "primary", 2), [""; 0]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    let daemon = start(&lab);
    let status = lab.xdb(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    for key in [
        "s3.endpoint",
        "retention.fulls",
        "/etc/xdb/checks/archiver.toml",
    ] {
        let line = format!("WARNING      configuration/{}/{key}: ", lab.ok("hostname"));
        assert!(status.stdout.contains(&line), "{line}: {status:?}");
    }
    // The packaged check counts while the operator's own is wrong.
    let checks = lab.xdb(&["check", "--json"]);
    assert!(checks.stdout.contains("\"archiver\""), "{checks:?}");

    // A new check needs no restart, only SIGHUP; the wrong ones beside it change nothing.
    own(
        "added",
        "title = 'added'\nkind = 'sql'\nquery = 'SELECT 99 AS value'\nunit = 'things'\ncritical = 50\n",
    );
    daemon.signal("HUP");
    let added = eventually("the new check is made", SOON, || {
        alert(&lab, "added", "critical")
    });
    assert_eq!(added["reason"], "99 things (limit 50)", "{added}");

    // What serving needs: the running daemon says that it could not start again, and a new one says why.
    lab.config(&format!("{REDIS}[postgres]\nprot = 5433"));
    eventually("the next start would fail", SOON, || {
        alert(&lab, "configuration", "critical")
    });
    daemon.signal("HUP");
    assert_eq!(not_served(&lab, "primary", 2), [""; 0]);
    let misspelt = lab.xdb(&["status"]);
    misspelt.failed(2, "postgres.prot");
    lab.config(&format!("{REDIS}[postgres]\nport = 70000"));
    serves(&lab, "primary");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    let refused = lab.xdb(&["daemon"]);
    refused.failed(2, "postgres.port");
    assert!(refused.stderr.contains("/etc/xdb/xdb.toml:"), "{refused:?}");
}

#[test]
fn connections_that_are_reserved_are_not_the_applications() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE ROLE app LOGIN PASSWORD 'lab-password'");
    lab.sql("ALTER SYSTEM SET max_connections = 16");
    lab.sql("ALTER SYSTEM SET superuser_reserved_connections = 3");
    lab.sql("ALTER SYSTEM SET reserved_connections = 3");
    lab.service("postgres", Service::Down);
    lab.service("postgres", Service::Up);
    let open = |count: u32| {
        lab.ok(&format!(
            "for i in $(seq {count}); do
                 PGPASSWORD=lab-password setsid /usr/lib/postgresql/17/bin/psql -h 127.0.0.1 -U app -d postgres \
                     -c 'SELECT pg_sleep(200)' >/dev/null 2>&1 </dev/null &
             done"
        ));
    };
    // A superuser looks: a login of the application's would take the place of one of these.
    eventually(
        "every connection that is not reserved is taken",
        SOON,
        || {
            let held = lab.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'");
            let held: u32 = held.parse().unwrap();
            open(10 - held);
            (held == 10).then_some(())
        },
    );
    eventually("applications are refused", SOON, || {
        let said = lab.sh("PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/psql -h 127.0.0.1 -U app -d postgres -c 'SELECT 1'");
        said.stderr
            .contains("connection slots are reserved")
            .then_some(())
    });
    let said = lab.xdb(&["check", "postgresql-connections"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("critical"), "{said:?}");

    // A role's own limit is reached long before.
    lab.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'");
    lab.sql("ALTER ROLE app CONNECTION LIMIT 2");
    eventually("the role's limit is seen", SOON, || {
        open(2);
        let said = lab.xdb(&["check", "postgresql-connections"]);
        let line = said.stdout.lines().find(|line| line.contains("role app"));
        line.is_some_and(|line| line.contains("critical"))
            .then_some(())
    });
}
