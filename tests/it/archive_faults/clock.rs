//! The node's clock jumps under the daemon. PostgreSQL, its archive_command and S3 keep theirs.

use jiff::Timestamp;
use serde_json::Value;

use super::SOON;
use crate::harness::{Lab, Program, eventually};

/// The daemon reads its clock through libfaketime, which reads how far it is off from this file.
const OFFSET: &str = "/tmp/clock/offset";
const DAEMON: &[&str] = &[
    "env",
    "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "FAKETIME_TIMESTAMP_FILE=/tmp/clock/offset",
    "FAKETIME_NO_CACHE=1",
    // A clock that is set is the wall's: time that passed goes on.
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
    "xdb",
    "daemon",
];

/// What the daemon says of the cluster, once its own clock is `hours` off.
fn status_at(lab: &Lab, hours: i64) -> Value {
    eventually("the daemon judges by the new time", SOON, || {
        let said = lab
            .sh("curl -sf -m 5 http://127.0.0.1:8009/api/status")
            .stdout;
        let status: Value = serde_json::from_str(&said).ok()?;
        let at = status["at"].as_str()?;
        let off = lab.ok(&format!("echo $(( $(date -d {at} +%s) - $(date +%s) ))"));
        let off: i64 = off.parse().ok()?;
        ((off - hours * 3600).abs() < 300).then_some(status)
    })
}

/// Sets the daemon's clock; the file is never seen half written.
fn jump(lab: &Lab, hours: i64) -> Value {
    lab.ok(&format!(
        "echo {hours:+}h >{OFFSET}.new && mv {OFFSET}.new {OFFSET}"
    ));
    status_at(lab, hours)
}

/// Seconds since the buckets were looked at, by the daemon's clock.
fn looked_at(status: &Value) -> Option<i64> {
    let time = |at: &Value| at.as_str()?.parse::<Timestamp>().ok();
    let (now, then) = (time(&status["at"])?, time(&status["evidence"]["at"])?);
    Some(now.duration_since(then).as_secs())
}

fn backups(lab: &Lab) -> usize {
    let list = lab.xdb_json(&["backup", "list"]);
    list.as_array().map_or(0, Vec::len)
}

#[test]
fn a_clock_that_jumps_a_day_ahead_and_an_hour_back_raises_no_gap_and_stops_no_job() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    // Half a day from now: a day ahead passes it once, an hour back and forth does not, whatever the time is.
    let nightly = lab.ok("date -u -d '12 hours' +'0 %-H * * *'");
    lab.config(&format!(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n[schedule]\nchecks = \"1s\"\n\
         base_backup = \"{nightly}\"",
    ));
    lab.ok(&format!("mkdir /tmp/clock && echo +0h >{OFFSET}"));
    let daemon = lab.in_background(DAEMON);
    eventually("the first base backup", SOON, || {
        (backups(&lab) == 1).then_some(())
    });
    let writer = lab.writer();
    lab.end_segments(&writer, 2);

    let told = |status: &Value, check: &str| {
        let findings = status["findings"].as_array().unwrap().iter();
        let mut found = findings.filter(|finding| finding["check"] == check);
        found.next().unwrap()["verdict"].clone()
    };
    let await_all_known = |hours| {
        eventually("all is known and well", SOON * 3, || {
            let status = status_at(&lab, hours);
            let well = |check| told(&status, check) == "ok";
            // The daemon judges each 3 s: by now it has put away what it held against the time before.
            // The slower a look, the longer the pause to the next, up to five minutes.
            let judged = looked_at(&status).is_some_and(|ago| (6..330).contains(&ago));
            (judged && well("recoverability") && well("primary")).then_some(())
        });
    };
    await_all_known(0);
    // The night's backup was missed: it is caught up, once. An hour back, the last success is of the future: once more.
    for (hours, expected) in [(24, 2), (-1, 3), (0, 3)] {
        let status = jump(&lab, hours);
        // What was seen by the other time is unknown until the next look, and nothing is lost by that.
        let alarmed = |check| told(&status, check) == "critical";
        assert!(
            !alarmed("recoverability") && !alarmed("primary"),
            "{status}"
        );
        lab.end_segments(&writer, 2);
        eventually("the job's schedule goes on", SOON, || {
            (backups(&lab) == expected).then_some(())
        });
        await_all_known(hours);
        let primary = lab.sh("curl -sf -m 5 http://127.0.0.1:8009/primary");
        assert_eq!(primary.code, 0, "{hours} h: {primary:?}");
    }
    assert!(daemon.is_running());

    // Nobody is paged twice, and not at all for what is well.
    let events = lab.ok(
        "redis-cli --no-auth-warning -a lab-password xrange xdb:main:alerts:events - + | grep '^{'",
    );
    let mut raised: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"))
        .map(|event| format!("{} {} {}", event["kind"], event["check"], event["object"]))
        .collect();
    let all = raised.len();
    raised.sort();
    raised.dedup();
    assert_eq!(raised.len(), all, "{events}");
    for well in ["recoverability", "\"primary\"", "archiver", "base-backup"] {
        assert!(!events.contains(well), "{well}: {events}");
    }
    assert_eq!(lab.sql("SELECT failed_count FROM pg_stat_archiver"), "0");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    lab.judge_archive(writer);
}
