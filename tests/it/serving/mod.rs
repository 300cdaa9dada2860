//! What decides whether HAProxy sends applications to a node: `/primary` and `/replica` under idle clients, a PgBouncer that
//! is full, paused, stopped or dead, hostile settings, and files that are wrong.

mod configuration;
mod http;
mod pgbouncer;
mod sessions;
mod state;

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Background, Lab, Program, eventually};

const SOON: Duration = Duration::from_secs(60);
const REDIS: &str = "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n";

fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(REDIS);
    lab
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    serves(lab, "primary");
    daemon
}

/// Waits until the daemon answers `path` with 200.
fn serves(lab: &Lab, path: &str) {
    eventually(&format!("/{path} is 200"), SOON, || {
        (ask(lab, path) == 200).then_some(())
    });
}

fn ask(lab: &Lab, path: &str) -> u32 {
    let curl =
        format!("curl -s -m 3 -o /dev/null -w '%{{http_code}}' http://127.0.0.1:8009/{path}");
    lab.sh(&curl).stdout.parse().unwrap_or_default()
}

/// Asks each half second for `secs`, inside of the lab; gives each answer that was not 200.
fn not_served(lab: &Lab, path: &str, secs: u32) -> Vec<String> {
    let script = format!(
        "for i in $(seq {}); do
             curl -s -m 3 -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:8009/{path}; sleep 0.5
         done",
        secs * 2
    );
    let answers = lab.sh(&script).stdout;
    assert!(answers.lines().count() > 1, "{answers}");
    let other = answers.lines().filter(|answer| *answer != "200");
    other.map(str::to_owned).collect()
}

/// Runs `fault`, and gives after how many seconds `/path` was no longer 200; asked each tenth of a second.
fn secs_until_refused(lab: &Lab, path: &str, fault: &str) -> f64 {
    let script = format!(
        "{fault}
         begin=$(date +%s.%N)
         for i in $(seq 300); do
             [ \"$(curl -s -m 3 -o /dev/null -w '%{{http_code}}' http://127.0.0.1:8009/{path})\" = 200 ] || break
             sleep 0.1
         done
         echo $begin $(date +%s.%N)"
    );
    let said = lab.ok(&script);
    let last = said.lines().last().unwrap_or_default();
    let times: Vec<f64> = last
        .split(' ')
        .filter_map(|time| time.parse().ok())
        .collect();
    times[1] - times[0]
}

/// The alerts that stand in Redis.
fn alerts(lab: &Lab) -> Vec<Value> {
    let shown = lab.ok("redis-cli --no-auth-warning -a lab-password HVALS xdb:main:alerts:active");
    let alerts = shown
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    alerts.collect()
}

fn alert(lab: &Lab, check: &str, severity: &str) -> Option<Value> {
    let mut alerts = alerts(lab).into_iter();
    alerts.find(|alert| alert["check"] == check && alert["severity"] == severity)
}
