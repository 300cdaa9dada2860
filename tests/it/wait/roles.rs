//! The role that is asked for, and several targets.

use super::*;
use crate::harness::Service;

/// Starts PostgreSQL as a standby without a primary.
fn demote(lab: &Lab) {
    lab.service("postgres", Service::Down);
    lab.ok("install -o postgres -g postgres /dev/null /var/lib/postgresql/17/main/standby.signal");
    lab.service("postgres", Service::Up);
    assert_eq!(lab.sql("SELECT pg_is_in_recovery()"), "t");
}

#[test]
fn a_server_in_the_wrong_role_is_asked_again_until_it_is_promoted() {
    let lab = lab();
    let flags = format!("{WAY} --role replica --timeout 4 --fail-fast-after 1");
    let ended = wait(&lab, &flags);
    // A role is no refusal: a failover may be under way.
    ended.assert_failed("wrong role", 1, "role", secs(4));
    ended.assert_says("leads to a primary");

    demote(&lab);
    wait(&lab, &format!("{WAY} --role replica --timeout 30")).assert_ready("a replica");
    wait(&lab, &format!("{WAY} --role any --timeout 30")).assert_ready("any role");
    let waiting = waiting(&lab, &format!("{WAY} --timeout 60"));
    eventually_says(&lab, "role: 127.0.0.1:15432 leads to a replica");
    lab.sql("SELECT pg_promote()");
    Ended::of(waiting).assert_ready("promoted");
}

#[test]
fn a_primary_that_may_not_write_is_none() {
    let lab = lab();
    let read_only = |value: &str| {
        lab.sql(&format!(
            "ALTER SYSTEM SET default_transaction_read_only = {value}"
        ));
        lab.sql("SELECT pg_reload_conf()");
        eventually("the setting is in force", SOON, || {
            (lab.sql("SHOW transaction_read_only") == value).then_some(())
        });
    };
    read_only("on");
    wait(&lab, &format!("{WAY} --role any --timeout 20")).assert_ready("any role");
    let waiting = waiting(&lab, &format!("{WAY} --timeout 60"));
    eventually_says(
        &lab,
        "role: 127.0.0.1:15432 leads to a primary whose transactions are read-only",
    );
    read_only("off");
    Ended::of(waiting).assert_ready("it may write");
}

#[test]
fn several_targets_are_ready_when_all_are() {
    let lab = lab();
    // In the lab 15432 is the way to the primary, and 15433 will be the way to the replica.
    let ports = "[wait]\nhost = \"127.0.0.1\"\nport = 15432\nreplica_port = 15433";
    lab.config(ports);
    let both = "--target primary --target replica";
    let ended = wait(&lab, &format!("{both} --timeout 3"));
    assert_eq!(ended.said.code, 1, "{ended:?}");
    let answer = ended.answer();
    assert_eq!(answer["targets"][0]["ready"], true, "{ended:?}");
    assert_eq!(answer["targets"][1]["hop"], "haproxy", "{ended:?}");
    ended.assert_says("127.0.0.1:15433 (replica) is not ready after ");

    // One that refuses for good ends the wait for the other as well.
    let ended = wait(
        &lab,
        &format!("{both} --dbname nothing --fail-fast-after 0"),
    );
    assert_eq!(ended.said.code, 3, "{ended:?}");

    // No replica at hand, so the second one asks for any role: the port is what counts.
    lab.config(&ports.replace("15433", "15432"));
    let ended = wait(&lab, &format!("{both} --timeout 3"));
    assert_eq!(ended.said.code, 1, "{ended:?}");
    assert_eq!(ended.answer()["targets"][1]["hop"], "role", "{ended:?}");
    wait(&lab, "--target primary --target any --timeout 20").assert_ready("both");
}
