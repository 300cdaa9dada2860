//! `xdb daemon`: serves the node's role, runs what is due, tells Redis each event once.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(60);

fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [dump]\nrepository = \"s3://pgdump-test/main\"\n[schedule]\nchecks = \"1s\"",
    );
    lab
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon answers", SOON, || {
        (lab.http("healthz").0 == 200).then_some(())
    });
    daemon
}

/// The alert on PostgreSQL as Redis shows it now.
fn down_alert(lab: &Lab) -> Option<Value> {
    let shown = lab.redis("HVALS xdb:main:alerts:active");
    let alerts = shown
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    alerts
        .into_iter()
        .find(|alert| alert["check"] == "postgresql-up")
}

/// How often `kind` of that alert was told in the stream.
fn told(lab: &Lab, kind: &str) -> usize {
    let stream = lab.redis("XRANGE xdb:main:alerts:events - +");
    stream
        .lines()
        .filter(|line| line.contains("\"postgresql-up\"") && line.contains(&format!("\"{kind}\"")))
        .count()
}

fn backups(lab: &Lab) -> usize {
    let list = lab.xdb(&["backup", "list", "--json"]).stdout;
    serde_json::from_str::<Vec<Value>>(&list).map_or(0, |all| all.len())
}

#[test]
fn a_node_is_served_watched_and_backed_up_and_a_killed_daemon_repeats_nothing() {
    let lab = lab();
    let daemon = start(&lab);
    eventually("the primary is served", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
    assert_eq!(lab.http("replica").0, 503);
    assert!(
        lab.redis("GET xdb:main:node:$(hostname)")
            .contains("\"v\":1")
    );
    // Never backed up: due at once.
    eventually("a base backup is there", SOON, || {
        (backups(&lab) == 1).then_some(())
    });

    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    let alert = eventually("the alert is in Redis", SOON, || down_alert(&lab));
    assert_eq!(alert["severity"], "critical");
    assert!(
        alert["runbook"].as_str().unwrap().contains("postgresql-up"),
        "{alert}"
    );
    eventually("the role is held, then no more", SOON, || {
        (lab.http("primary").0 == 503).then_some(())
    });
    assert_eq!(lab.http("healthz").0, 200);

    // Killed and started again: the alert goes on, nobody is told twice, no second backup is made.
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);
    let daemon = start(&lab);
    lab.service("postgres", Service::Up);
    eventually("the alert is over", SOON, || {
        down_alert(&lab).is_none().then_some(())
    });
    eventually("the primary is served again", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
    assert_eq!((told(&lab, "raised"), told(&lab, "resolved")), (1, 1));
    assert_eq!(backups(&lab), 1);

    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    lab.assert_nothing_left_behind();
}

#[test]
fn alerts_wait_for_a_redis_that_is_away() {
    let lab = lab();
    let daemon = start(&lab);
    eventually("the primary is served", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
    lab.service("redis", Service::Down);
    assert_ne!(
        lab.sh("redis-cli -a lab-password ping").stdout.trim(),
        "PONG"
    );
    lab.service("postgres", Service::Down);
    eventually("the daemon says that alerts wait", SOON, || {
        let said = lab.sh("cat /tmp/background.*/stdout").stdout;
        (said.contains("alerts wait for Redis") && said.contains("\"checks\"")).then_some(())
    });
    lab.service("redis", Service::Up);
    eventually("the alert arrives", SOON, || down_alert(&lab));
    assert_eq!(told(&lab, "raised"), 1);
    // One JSON object a line, the platform's keys first.
    let said = lab.sh("cat /tmp/background.*/stdout").stdout;
    for line in said.lines() {
        let parsed: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line.starts_with("{\"timestamp\":\"20") && parsed["service"] == "xdb",
            "{line}"
        );
        assert!(
            !line.contains("lab-password") && !line.contains("lab-secret-key"),
            "{line}"
        );
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn without_a_daemon_status_looks_by_itself_and_says_first_that_it_is_away() {
    let lab = lab();
    assert_eq!(lab.http("healthz").0, 0);
    let said = lab.xdb(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    let critical = said
        .stdout
        .lines()
        .find(|line| line.starts_with("CRITICAL  "));
    assert!(
        critical.is_some_and(|line| line.contains("daemon does not answer on this node")),
        "{said:?}"
    );
    assert!(said.stdout.contains("primary"), "{said:?}");
    // It looked: an S3 that is away is told, and makes nothing worse of the rest.
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    let said = lab.xdb(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, &status["verdict"]), (1, &"critical".into()));
    assert!(
        status["evidence"]["base_backup_error"].is_string(),
        "{status}"
    );
    assert_eq!(status["nodes"][0]["role"], "primary", "{status}");
}

/// Certificates of two authorities; that of the server is issued by the first.
const CERTIFICATES: &str = "cd /etc/xdb && for ca in ca other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem
    done 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -addext subjectAltName=DNS:localhost \
        -keyout redis.key -out redis.csr 2>/dev/null
    openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out redis.pem 2>/dev/null
    chmod 0644 *.pem redis.key && cp other.pem trusted.pem";

#[test]
fn a_redis_with_tls_is_verified() {
    let lab = lab();
    lab.ok(CERTIFICATES);
    let _redis = lab.in_background(&[
        "redis-server",
        "--port",
        "0",
        "--tls-port",
        "6390",
        "--requirepass",
        "lab-password",
        "--tls-cert-file",
        "/etc/xdb/redis.pem",
        "--tls-key-file",
        "/etc/xdb/redis.key",
        "--tls-ca-cert-file",
        "/etc/xdb/ca.pem",
        "--tls-auth-clients",
        "no",
    ]);
    let keys = || {
        lab.sh(
            "redis-cli --no-auth-warning -a lab-password -h localhost -p 6390 --tls --cacert /etc/xdb/ca.pem KEYS '*'",
        )
    };
    eventually("Redis answers", SOON, || (keys().code == 0).then_some(()));
    assert_ne!(lab.sh("redis-cli -p 6390 PING").stdout, "PONG\n");
    lab.config(
        "[redis]\nurl = \"rediss://localhost:6390\"\npassword = \"lab-password\"\nca_cert_file = \"/etc/xdb/trusted.pem\"",
    );
    let daemon = start(&lab);
    let told = eventually(
        "a certificate of another authority is refused",
        SOON,
        || {
            let status: Value = serde_json::from_str(&lab.http("api/status").1).ok()?;
            let found = status["findings"].as_array()?.iter().cloned();
            found.into_iter().find(|it| it["check"] == "redis")
        },
    );
    assert!(told.to_string().contains("certificate"), "{told}");
    assert_eq!(lab.http("primary").0, 200);
    assert!(!keys().stdout.contains("xdb:main"), "{:?}", keys());
    // It is replaced while the daemon runs.
    lab.ok("cp /etc/xdb/ca.pem /etc/xdb/trusted.pem");
    eventually("the node is shown in Redis", SOON, || {
        keys().stdout.contains("xdb:main:node:").then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
