//! S3 fails under the archiver in every way, while a client writes.

use serde_json::json;

use super::{SOON, a_push_is_under_way, called, lab_with, programs_daemons, start};
use crate::harness::{Background, Lab, Program, Writer, eventually};

/// The HTTP status that a request through the proxy gets; `000` for none.
fn answers(lab: &Lab) -> String {
    lab.sh("curl -s -m 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:7000/walg-test")
        .stdout
}

/// Writes until the archiver failed and nothing is stored any more.
fn fails(lab: &Lab, writer: &Writer) {
    let failed = lab.sql("SELECT failed_count FROM pg_stat_archiver");
    lab.end_segments(writer, 3);
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count FROM pg_stat_archiver") != failed).then_some(())
    });
    assert!(lab.waiting().len() >= 3, "{:?}", lab.waiting());
    assert_eq!(lab.lies(), "");
}

fn all_archived(lab: &Lab) {
    eventually("nothing waits", SOON * 2, || {
        lab.waiting().is_empty().then_some(())
    });
    assert_eq!(lab.lies(), "");
}

/// A daemon that archives what a client writes; a base backup is there, to be restored from.
fn archiving(lab: &Lab) -> (Background<'_>, Writer<'_>) {
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let daemon = start(lab);
    let writer = lab.writer();
    lab.end_segments(&writer, 1);
    all_archived(lab);
    (daemon, writer)
}

fn judge(lab: &Lab, daemon: &Background, writer: Writer) {
    daemon.signal("TERM");
    daemon.wait(SOON);
    lab.judge_archive(writer);
}

#[test]
fn whatever_s3_does_what_is_marked_done_is_stored_and_no_row_is_lost() {
    let lab = lab_with(Program::Walrus, "", "push_timeout = \"10s\"");
    let (daemon, writer) = archiving(&lab);

    lab.proxy_enabled(false);
    assert_eq!(answers(&lab), "000");
    fails(&lab, &writer);
    lab.proxy_enabled(true);
    all_archived(&lab);

    for status in [503, 403] {
        lab.answer_always(status);
        assert_eq!(answers(&lab), status.to_string());
        fails(&lab, &writer);
        lab.upstream("127.0.0.1:7070");
        all_archived(&lab);
    }

    // What is sent does not arrive, and no connection ends: a body that began hangs.
    let latency = json!({"type": "latency", "attributes": {"latency": 300}});
    lab.toxic("slow", latency);
    lab.end_segments(&writer, 3);
    a_push_is_under_way(&lab);
    let hang = json!({"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}});
    lab.toxic("hang", hang);
    assert_eq!(answers(&lab), "000");
    fails(&lab, &writer);
    lab.remove_toxic("hang");
    lab.remove_toxic("slow");
    all_archived(&lab);

    assert!(called(&lab, "daemon") > 0);
    let log = lab.sh("grep 'FATAL.*archive command' /var/log/postgresql/lab.log");
    assert_eq!(log.stdout, "");
    judge(&lab, &daemon, writer);
}

/// A link of so many kB/s, and 14 MB that nothing compresses.
fn slowly(lab: &Lab, rate: u32) {
    lab.sql("CREATE TABLE noise (bytes bytea)");
    lab.sql("ALTER TABLE noise ALTER bytes SET STORAGE EXTERNAL");
    let slow = json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": rate}});
    lab.toxic("slow", slow);
    lab.sql(
        "INSERT INTO noise SELECT (SELECT decode(string_agg(md5(random()::text || g || n), ''), 'hex')
         FROM generate_series(1, 65536) AS g) FROM generate_series(1, 14) AS n",
    );
}

#[test]
fn a_slow_link_is_no_reason_to_kill_an_upload_that_gets_on() {
    let lab = lab_with(Program::Walrus, "", "push_timeout = \"45s\"");
    let (daemon, writer) = archiving(&lab);
    let before = eventually("the program's daemons serve", SOON, || {
        lab.end_segments(&writer, 1);
        all_archived(&lab);
        let running = programs_daemons(&lab);
        (!running.is_empty()).then_some(running)
    });
    let alone = called(&lab, "wal-push");
    // A segment takes 48 s and more; nothing moving for 27 s would be the end.
    let began = std::time::Instant::now();
    let archived = lab.sql("SELECT archived_count FROM pg_stat_archiver");
    slowly(&lab, 290);
    lab.end_segments(&writer, 1);
    eventually("the segment is archived", SOON * 4, || {
        let now = lab.sql("SELECT archived_count FROM pg_stat_archiver");
        (now != archived && lab.waiting().is_empty()).then_some(())
    });
    // The fault took effect when it took longer than the deadline.
    assert!(began.elapsed().as_secs() > 45, "{:?}", began.elapsed());
    assert_eq!(
        (programs_daemons(&lab), called(&lab, "wal-push")),
        (before, alone)
    );
    lab.remove_toxic("slow");
    judge(&lab, &daemon, writer);
}

#[test]
fn a_server_that_takes_no_logins_is_archived_all_the_same() {
    let lab = lab_with(Program::Walrus, "", "");
    let (daemon, writer) = archiving(&lab);
    slowly(&lab, 400);
    lab.end_segments(&writer, 1);
    a_push_is_under_way(&lab);
    let before = (programs_daemons(&lab), called(&lab, "wal-push"));
    assert!(!before.0.is_empty(), "the program's daemons run");

    // Its archiver process goes on; nobody gets in, and no session answers.
    let stopped = "$(head -1 /var/lib/postgresql/17/main/postmaster.pid) $(pgrep -f '^postgres: .*(idle|INSERT|SELECT|UPDATE)')";
    lab.ok(&format!("kill -STOP {stopped}"));
    eventually("the daemon does not know the role any more", SOON, || {
        let said = lab.sh("curl -s -m 5 http://127.0.0.1:8009/primary").stdout;
        said.contains("the role is not known").then_some(())
    });
    // wal-push asks how it is each five seconds, which nothing shows: two rounds.
    std::thread::sleep(std::time::Duration::from_secs(11));
    a_push_is_under_way(&lab);
    assert_eq!(
        (programs_daemons(&lab), called(&lab, "wal-push")),
        before,
        "the upload goes on"
    );
    lab.ok(&format!("kill -CONT {stopped}"));
    all_archived(&lab);
    // A wal-push that the daemon of a busy machine does not answer within a second stores by itself, so that is not counted here.
    assert_eq!(programs_daemons(&lab), before.0, "the program goes on");
    // Not before: what is under way would break.
    lab.remove_toxic("slow");
    judge(&lab, &daemon, writer);
}

#[test]
fn changed_keys_are_read_after_a_refusal() {
    let lab = lab_with(Program::Walrus, "", "");
    let (daemon, writer) = archiving(&lab);
    let daemons = called(&lab, "daemon");

    lab.ok(
        "sed -i 's/:-lab-secret-key/:-another-secret/' /run/service/s3/run && sv -w 30 restart s3",
    );
    eventually("S3 refuses the old key", SOON, || {
        let ask = "curl -s -o /dev/null -w '%{http_code}' --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key http://127.0.0.1:7070/walg-test";
        (lab.ok(ask) == "403").then_some(())
    });
    fails(&lab, &writer);
    lab.ok("sed -i 's/lab-secret-key/another-secret/' /etc/xdb/xdb.toml");
    all_archived(&lab);
    eventually("the archiver uses the new key", SOON * 2, || {
        let alone = called(&lab, "wal-push");
        lab.end_segments(&writer, 1);
        all_archived(&lab);
        (called(&lab, "daemon") > daemons && called(&lab, "wal-push") == alone).then_some(())
    });
    // What judges asks with the usual key.
    daemon.signal("TERM");
    daemon.wait(SOON);
    lab.ok(
        "sed -i 's/:-another-secret/:-lab-secret-key/' /run/service/s3/run && sv -w 30 restart s3",
    );
    lab.ok("sed -i 's/another-secret/lab-secret-key/' /etc/xdb/xdb.toml");
    lab.judge_archive(writer);
}
