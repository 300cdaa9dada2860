//! A server that neither answers nor refuses.

use super::*;
use crate::harness::Service;

/// Stops a program's processes in their tracks: its socket still takes connections.
fn freeze(lab: &Lab, program: &str) {
    lab.ok(&format!("kill -STOP $(pgrep -x {program})"));
    let states = lab.ok(&format!("ps -o stat= -C {program}"));
    assert!(
        states.lines().all(|state| state.starts_with('T')),
        "{states}"
    );
}

fn thaw(lab: &Lab, program: &str) {
    lab.ok(&format!("kill -CONT $(pgrep -x {program})"));
}

/// A connection to the lab's HAProxy that is established, as /proc shows it (15432 is 3C48).
fn is_connected(lab: &Lab) -> Option<()> {
    let connected = "awk '$3 ~ /:3C48$/ && $4 == \"01\"' /proc/net/tcp | grep -q .";
    (lab.sh(connected).code == 0).then_some(())
}

#[test]
fn a_server_that_accepts_and_stays_silent_is_not_taken_for_pgbouncer() {
    let lab = lab();
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("before");
    freeze(&lab, "haproxy");
    for sslmode in ["disable", "prefer"] {
        let flags = format!("{WAY} --timeout 3 --attempt-timeout 1 --sslmode {sslmode}");
        let ended = wait(&lab, &flags);
        ended.assert_failed("a mute HAProxy", 1, "haproxy", secs(3));
        ended.assert_says("took the connection and said nothing for 1 s");
        assert_eq!(ended.said.stderr.lines().count(), 2, "{ended:?}");
    }
    let waiting = waiting(&lab, &format!("{WAY} --timeout 60 --attempt-timeout 1"));
    eventually_says(&lab, "took the connection and said nothing");
    thaw(&lab, "haproxy");
    Ended::of(waiting).assert_ready("HAProxy speaks again");
}

#[test]
fn a_frozen_postgresql_is_named_behind_a_pgbouncer_that_speaks() {
    let lab = lab();
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("before");
    freeze(&lab, "postgres");
    // HAProxy and PgBouncer must have spoken within an attempt, on a busy machine, too.
    let ended = wait(&lab, &format!("{WAY} --timeout 9 --attempt-timeout 4"));
    ended.assert_failed("a frozen PostgreSQL", 1, "postgres", secs(9));
    ended.assert_says("the query was held back for 4 s");
    thaw(&lab, "postgres");
}

#[test]
fn a_black_hole_ends_each_attempt_at_its_own_deadline() {
    let lab = lab();
    let toxiproxy = |path: &str, body: &str| {
        lab.ok(&format!(
            "curl -sS --fail-with-body -m 10 -d '{body}' http://127.0.0.1:8474{path}"
        ));
    };
    toxiproxy(
        "/proxies",
        r#"{"name": "way", "listen": "127.0.0.1:17000", "upstream": "127.0.0.1:15432"}"#,
    );
    let way = "--host 127.0.0.1 --port 17000";
    wait(&lab, &format!("{way} --timeout 20")).assert_ready("before");
    // Data goes in and nothing comes out, in either direction.
    for stream in ["upstream", "downstream"] {
        toxiproxy(
            "/proxies/way/toxics",
            &format!(
                r#"{{"name": "{stream}", "type": "timeout", "stream": "{stream}", "attributes": {{"timeout": 0}}}}"#
            ),
        );
    }
    let waiting = waiting(&lab, &format!("{way} --timeout 60 --attempt-timeout 2"));
    eventually_says(
        &lab,
        "haproxy: 127.0.0.1:17000 took the connection and said nothing for 2 s",
    );
    let ended = wait(&lab, &format!("{way} --timeout 5 --attempt-timeout 2"));
    ended.assert_failed("a black hole", 1, "haproxy", secs(5));
    assert!(ended.took < secs(30), "{ended:?}");
    for stream in ["upstream", "downstream"] {
        lab.ok(&format!(
            "curl -sSf -X DELETE http://127.0.0.1:8474/proxies/way/toxics/{stream}"
        ));
    }
    Ended::of(waiting).assert_ready("the hole is mended");
}

#[test]
fn a_signal_ends_it_at_once_between_attempts_and_in_the_middle_of_one() {
    let lab = lab();
    let end = |signal: &str, code: i32, last: &str, waiting: Background| {
        let begin = Instant::now();
        waiting.signal(signal);
        let said = waiting.wait(SOON);
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
        assert!(begin.elapsed() < secs(10), "{said:?}");
        assert!(said.stderr.contains(last), "{said:?}");
    };
    freeze(&lab, "haproxy");
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let waiting = waiting(&lab, &format!("{WAY} --attempt-timeout 100"));
        eventually("an attempt is in its middle", SOON, || is_connected(&lab));
        end(signal, code, "still in its first attempt after ", waiting);
        eventually("its connection is gone", SOON, || {
            is_connected(&lab).is_none().then_some(())
        });
    }
    thaw(&lab, "haproxy");
    lab.service("haproxy", Service::Down);
    let waiting = waiting(&lab, WAY);
    eventually_says(&lab, "nothing listens");
    end("TERM", 143, "a signal ended the wait after ", waiting);
}
