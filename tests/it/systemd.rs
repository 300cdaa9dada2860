//! `xdb daemon` under a service manager: manager.pl holds the port, starts it again, and notes what it is told.

use std::time::Duration;

use crate::harness::{Background, Lab, Program, eventually};

const SOON: Duration = Duration::from_secs(60);
const PLACE: &str = "/tmp/manager";

/// What the manager was told so far: a line `PID MESSAGE`.
fn told(lab: &Lab) -> String {
    lab.sh(&format!("cat {PLACE}/told")).stdout
}

fn count(lab: &Lab, message: &str) -> usize {
    let is_message = |line: &&str| line.ends_with(&format!(" {message}"));
    told(lab).lines().filter(is_message).count()
}

fn manager(lab: &Lab) -> Background<'_> {
    let script = include_str!("systemd/manager.pl");
    lab.write_file("/tmp/manager.pl", script, "root:root", "0644");
    lab.ok(&format!("install -d -o postgres {PLACE}"));
    lab.in_background(&["perl", "/tmp/manager.pl", "8009", PLACE])
}

#[test]
fn a_restart_of_the_daemon_drops_no_check() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    let manager = manager(&lab);
    eventually("the daemon is ready", SOON, || {
        (count(&lab, "READY=1") == 1).then_some(())
    });
    // Four that ask all the time, each by a connection of its own as HAProxy does.
    let ask = "while [ ! -e /tmp/enough ]; do
            curl -s -m 30 -o /dev/null -w '%{http_code} %{errormsg}\\n' http://127.0.0.1:8009/healthz >>/tmp/answers; done";
    let clients: Vec<_> = (0..4)
        .map(|_| lab.in_background(&["bash", "-c", ask]))
        .collect();
    let asked = || lab.sh("cat /tmp/answers").stdout.lines().count();
    for restart in 1..=3 {
        let before = asked();
        eventually("the daemon answers all the time", SOON, || {
            (asked() >= before + 20).then_some(())
        });
        lab.ok("pkill -TERM -x xdb");
        eventually("the daemon is back", SOON, || {
            (count(&lab, "READY=1") == restart + 1).then_some(())
        });
    }
    let told = told(&lab);
    assert_eq!(told.matches(" ended\n").count(), 3, "{told}");
    assert_eq!(told.matches(" STOPPING=1\n").count(), 3, "{told}");
    lab.ok("touch /tmp/enough");
    for client in clients {
        client.wait(SOON);
    }
    let answers = lab.sh("cat /tmp/answers").stdout;
    let bad: Vec<_> = answers.lines().filter(|line| *line != "200 ").collect();
    assert!(bad.is_empty(), "{bad:?}");

    manager.signal("TERM");
    assert_eq!(manager.wait(SOON).code, 0);
    lab.assert_nothing_left_behind();
}

#[test]
fn the_watchdog_is_told_for_as_long_as_roles_are_sampled_and_jobs_driven() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    let manager = manager(&lab);
    eventually("the watchdog is told, again and again", SOON, || {
        (count(&lab, "WATCHDOG=1") >= 3).then_some(())
    });
    // A node in trouble is no daemon in trouble.
    lab.service("postgres", crate::harness::Service::Down);
    let before = count(&lab, "WATCHDOG=1");
    eventually("it is told while PostgreSQL is down", SOON, || {
        (count(&lab, "WATCHDOG=1") >= before + 3).then_some(())
    });
    // One that was killed is started again and takes the same socket.
    lab.ok("pkill -KILL -x xdb");
    eventually("a second daemon is ready", SOON, || {
        (count(&lab, "READY=1") == 2).then_some(())
    });
    assert_eq!(lab.ok("curl -sS -m 5 http://127.0.0.1:8009/healthz"), "ok");
    manager.signal("TERM");
    assert_eq!(manager.wait(SOON).code, 0);
}
