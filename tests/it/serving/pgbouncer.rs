//! A PgBouncer that is full, paused, suspended, stopped or dead, and a PostgreSQL that is gone.

use super::*;
use crate::harness::Service;

/// Longer than silence is held.
const LONGER_THAN_HELD: u32 = 18;

fn console(lab: &Lab, command: &str) -> String {
    lab.ok(&format!(
        "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/psql -XAt -h 127.0.0.1 -p 6432 -U postgres pgbouncer -c '{command}'"
    ))
}

fn sleepers(lab: &Lab, count: u32) {
    lab.ok(&format!(
        "for i in $(seq {count}); do
             PGPASSWORD=lab-password setsid /usr/lib/postgresql/17/bin/psql -h 127.0.0.1 -p 6432 -U postgres \
                 -c 'SELECT pg_sleep(100)' >/dev/null 2>&1 </dev/null &
         done"
    ));
}

fn end_sleepers(lab: &Lab) {
    lab.ok("pkill -f '[S]ELECT pg_sleep.100.' || true");
    eventually("the sleepers are gone", SOON, || {
        (lab.sh("pgrep -f '[S]ELECT pg_sleep.100.'").code == 1).then_some(())
    });
}

fn login(lab: &Lab) -> String {
    let said = lab.sh(
        "PGCONNECT_TIMEOUT=2 PGPASSWORD=lab-password timeout 3 /usr/lib/postgresql/17/bin/psql -XAt -h 127.0.0.1 -p 6432 -U postgres -c 'SELECT 1'",
    );
    format!("{} {}{}", said.code, said.stdout, said.stderr)
}

#[test]
fn a_pgbouncer_that_lives_is_served_however_full_or_paused() {
    let lab = lab();
    let daemon = start(&lab);

    sleepers(&lab, 6);
    eventually("they are all there", SOON, || {
        (console(&lab, "SHOW CLIENTS").matches("psql").count() >= 7).then_some(())
    });
    console(&lab, "SET max_client_conn = 5");
    eventually("PgBouncer is full", SOON, || {
        login(&lab)
            .contains("no more connections allowed")
            .then_some(())
    });
    assert_eq!(not_served(&lab, "primary", LONGER_THAN_HELD), [""; 0]);
    let full = eventually("full is a warning", SOON, || {
        alert(&lab, "pgbouncer-up", "warning")
    });
    assert!(
        full["reason"].as_str().unwrap().contains("max_client_conn"),
        "{full}"
    );
    assert_eq!(full["runbook"], "runbooks/pgbouncer-up.md");
    console(&lab, "SET max_client_conn = 100");
    end_sleepers(&lab);

    // All server connections of the pool are taken: new clients wait at their first query.
    sleepers(&lab, 12);
    eventually("clients wait", SOON, || {
        login(&lab).starts_with("124").then_some(())
    });
    assert_eq!(not_served(&lab, "primary", LONGER_THAN_HELD), [""; 0]);
    end_sleepers(&lab);
    eventually("a login works", SOON, || {
        login(&lab).starts_with("0 1").then_some(())
    });

    for (pause, resume) in [("PAUSE", "RESUME"), ("DISABLE postgres", "ENABLE postgres")] {
        console(&lab, pause);
        assert!(!login(&lab).starts_with('0'), "{pause}");
        assert_eq!(
            not_served(&lab, "primary", LONGER_THAN_HELD),
            [""; 0],
            "{pause}"
        );
        console(&lab, resume);
        eventually("a login works", SOON, || {
            login(&lab).starts_with("0 1").then_some(())
        });
    }
    // It takes no connection until the session that suspended it resumes it.
    let suspend = "(echo 'SUSPEND;'; sleep 25; echo 'RESUME;') | PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/psql -h 127.0.0.1 -p 6432 -U postgres pgbouncer";
    let suspended = lab.in_background(&["bash", "-c", suspend]);
    eventually("PgBouncer is suspended", SOON, || {
        login(&lab).contains("timeout expired").then_some(())
    });
    assert_eq!(not_served(&lab, "primary", LONGER_THAN_HELD), [""; 0]);
    suspended.wait(SOON);
    eventually("no warning is left", SOON, || {
        alert(&lab, "pgbouncer-up", "warning")
            .is_none()
            .then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn what_is_gone_is_served_no_more_at_the_next_sample_and_named_within_seconds() {
    let lab = lab();
    let daemon = start(&lab);
    // Two samples, and the machine's own time.
    let limit = 3.0;
    for (service, check) in [("pgbouncer", "pgbouncer-up"), ("postgres", "postgresql-up")] {
        let kill = format!(
            "sv stop {service} >/dev/null & kill -9 $(cat /run/service/{service}/supervise/pid)"
        );
        let secs = secs_until_refused(&lab, "primary", &kill);
        assert_ne!(ask(&lab, "primary"), 200, "{service} is dead");
        assert!(secs < limit, "{service} killed: {secs}");
        let begin = std::time::Instant::now();
        let critical = eventually("it is critical", SOON, || alert(&lab, check, "critical"));
        assert!(begin.elapsed() < Duration::from_secs(15), "{critical}");
        assert_eq!(critical["runbook"], format!("runbooks/{check}.md"));
        eventually("status shows it", SOON, || {
            let status = lab.xdb(&["status"]);
            assert_eq!(status.code, 1, "{status:?}");
            let line = format!("CRITICAL     {check}/");
            status.stdout.contains(&line).then_some(())
        });
        // Nothing speaks of how full a dead PgBouncer is.
        let inside = |alert: &Value| {
            let check = alert["check"].as_str().unwrap_or_default().to_owned();
            ["pgbouncer-saturation", "pgbouncer-clients-waiting"].contains(&check.as_str())
        };
        assert!(!alerts(&lab).iter().any(inside), "{:?}", alerts(&lab));
        lab.ok(&format!("sv -w 30 stop {service} || true"));
        lab.service(service, Service::Up);
        serves(&lab, "primary");
        eventually("the alert is over", SOON, || {
            alert(&lab, check, "critical").is_none().then_some(())
        });
    }
    // An orderly stop is known at the next sample, too.
    let stop =
        "sv stop postgres >/dev/null; until ! pgrep -x postgres >/dev/null; do sleep 0.05; done";
    let secs = secs_until_refused(&lab, "primary", stop);
    assert!(secs < limit, "stopped: {secs}");
    lab.service("postgres", Service::Up);
    serves(&lab, "primary");

    // A session of xdb's that is ended tells nothing of the server.
    lab.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'xdb%'");
    assert_eq!(not_served(&lab, "primary", 3), [""; 0]);
    // Neither do all that it opens, ended as soon as each is there.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'xdb%'";
    let ending = lab.in_background(&[
        "timeout",
        "10",
        "bash",
        "-c",
        &format!("while psql -XAtq -d template1 -c \"{end}\"; do sleep 0.01; done"),
    ]);
    assert_eq!(not_served(&lab, "primary", 8), [""; 0]);
    let ended: u32 = ending
        .wait(SOON)
        .stdout
        .lines()
        .filter_map(|count| count.parse::<u32>().ok())
        .sum();
    assert!(ended > 5, "{ended} sessions were ended");

    // Silence is held, and not for ever.
    let secs = secs_until_refused(
        &lab,
        "primary",
        "kill -STOP $(cat /run/service/pgbouncer/supervise/pid)",
    );
    assert!((8.0..29.0).contains(&secs), "frozen: {secs}");
    let critical = eventually("it is critical", SOON, || {
        alert(&lab, "pgbouncer-up", "critical")
    });
    assert!(
        critical["reason"].as_str().unwrap().contains("no login"),
        "{critical}"
    );
    lab.ok("kill -CONT $(cat /run/service/pgbouncer/supervise/pid)");
    serves(&lab, "primary");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
