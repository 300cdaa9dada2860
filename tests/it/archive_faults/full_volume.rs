//! The volume of `pg_wal` runs full while S3 is away.

use super::{SOON, backed_up};
use crate::harness::{Lab, Program, eventually};

const VOLUME: &str = "/srv/wal";

/// `pg_wal` on a volume of its own.
fn start() -> Lab {
    let lab = Lab::setup(Program::Walrus).tmpfs(VOLUME, "384m").start();
    lab.ok("sv -w 30 down postgres");
    let wal = "/var/lib/postgresql/17/main/pg_wal";
    lab.ok(&format!(
        "cp -a {wal}/. {VOLUME}/ && rm -r {wal} && ln -s {VOLUME} {wal} && chown -h postgres:postgres {wal}"
    ));
    lab.ok("sv -w 30 start postgres");
    backed_up(lab, "push_timeout = \"2s\"")
}

/// Lets what waits have waited for most of an hour, and what is done be done for longer: a rate of little WAL.
fn an_hour_passes(lab: &Lab) {
    let marks = format!("{VOLUME}/archive_status");
    lab.ok(&format!(
        "touch -d '2 hours ago' {marks}/*.done; touch -d '55 minutes ago' {marks}/*.ready"
    ));
}

fn assert_volume(lab: &Lab, code: i32, words: &[&str]) {
    let said = lab.xdb(&["check", "wal-volume"]);
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.stdout.contains(word), "{word}: {said:?}");
    }
}

fn free_mib(lab: &Lab) -> u64 {
    let free = lab.ok(&format!(
        "df -BM --output=avail {VOLUME} | tail -1 | tr -d ' M'"
    ));
    free.parse().expect("a number")
}

#[test]
fn a_volume_that_fills_while_s3_is_away_is_told_in_time_and_drains_when_s3_returns() {
    let lab = start();
    // Segments end where the test ends them: how long it takes must not fill the volume.
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    let writer = lab.writer();
    lab.end_segments(&writer, 1);
    assert_volume(&lab, 0, &[]);

    lab.proxy_enabled(false);
    lab.end_segments(&writer, 2);
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    an_hour_passes(&lab);
    assert_volume(&lab, 1, &["warning", "is full in", "(limit 24 h)"]);

    // Until there is room for a handful of segments.
    while free_mib(&lab) > 80 {
        lab.end_segments(&writer, 1);
    }
    an_hour_passes(&lab);
    assert_volume(&lab, 1, &["critical", "is full in", "min (limit 4 h)"]);
    let status = lab.xdb(&["archive", "status"]);
    assert!(status.stdout.contains("MiB free, full in"), "{status:?}");
    assert_eq!(lab.lies(), "");

    lab.proxy_enabled(true);
    lab.end_segments(&writer, 1);
    eventually("the backlog drains", SOON * 2, || {
        (lab.waiting().len() < 2).then_some(())
    });
    // PostgreSQL removes what is archived at a checkpoint.
    lab.sql("CHECKPOINT");
    assert!(free_mib(&lab) > 160, "the volume is not emptied");
    assert_volume(&lab, 0, &[]);
    lab.judge_archive(writer);
}
