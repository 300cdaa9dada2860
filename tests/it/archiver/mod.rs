//! The daemon's archiver behind `wal-push`: what PostgreSQL marked as done is in the bucket, whatever fails.

mod s3;

use std::time::Duration;

use serde_json::json;

use crate::harness::{Background, Lab, Program, eventually, for_each_program};

const DATA: &str = "/var/lib/postgresql/17/main";
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";
const SOCKET: &str = "/var/lib/xdb/archive.sock";
const SPY_LOG: &str = "/tmp/spy.log";
const SOON: Duration = Duration::from_secs(60);

for_each_program!(
    a_backlog_goes_through_the_daemon_side_by_side,
    the_programs_daemon_may_be_killed_or_hang,
);

/// A lab whose program notes how it is called, with the archiver on.
fn lab(program: Program, spy: &str) -> Lab {
    lab_with(program, spy, "")
}

/// The same with more lines below `[archive]`.
fn lab_with(program: Program, spy: &str, archive: &str) -> Lab {
    let lab = Lab::setup(program).with_daemon().start();
    // What is archived stays to be compared.
    lab.sql("ALTER SYSTEM SET wal_keep_size = '2GB'");
    lab.sql("SELECT pg_reload_conf()");
    let path = program.path();
    lab.write_file(
        &format!("{path}-spy"),
        &format!("#!/bin/sh\necho \"$1\" >>{SPY_LOG}\n{spy}\nexec {path} \"$@\"\n"),
        "root:root",
        "0755",
    );
    lab.ok(&format!("install -m 0666 /dev/null {SPY_LOG}"));
    lab.config(&config(program, archive));
    lab
}

fn config(program: Program, archive: &str) -> String {
    format!(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [archive]\nprogram = \"{}-spy\"\n{archive}\n[schedule]\nbase_backup = \"0 0 1 1 *\"",
        program.path()
    )
}

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the archiver serves", SOON, || {
        let said = lab.sh_as_postgres(&format!(
            "perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(\"{SOCKET}\") or exit;
             syswrite $s, \"C\\0\\3\"; sysread $s, $a, 1; print $a'"
        ));
        (said.stdout == "O").then_some(())
    });
    daemon
}

/// How often the program was run as `verb`.
fn called(lab: &Lab, verb: &str) -> usize {
    let log = lab.ok(&format!("cat {SPY_LOG}"));
    log.lines().filter(|line| *line == verb).count()
}

fn a_push_is_under_way(lab: &Lab) {
    eventually("a push is under way", SOON, || {
        let staged = lab.sh("ls /var/lib/xdb/archiver/pg_wal/0*").stdout;
        (!staged.is_empty()).then_some(())
    });
}

/// Fills `count` segments; gives the last one's name.
fn write(lab: &Lab, count: usize) -> String {
    lab.sql("CREATE TABLE IF NOT EXISTS filler (a int)");
    let mut last = String::new();
    for _ in 0..count {
        lab.sql("INSERT INTO filler VALUES (1)");
        last = lab.sql("SELECT pg_walfile_name(pg_switch_wal())");
    }
    last
}

/// Waits until `segment` is archived, then holds all that PostgreSQL marked as done against the bucket.
fn all_that_is_done_is_stored(lab: &Lab, segment: &str) {
    eventually("the segment is archived", Duration::from_secs(120), || {
        let last = lab.sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
        (last.get(..24) >= Some(segment)).then_some(())
    });
    let wrong = lab.sh_as_postgres(&format!(
        "cd {DATA} && for done in pg_wal/archive_status/*.done; do
             name=$(basename $done .done); [ -e pg_wal/$name ] || continue
             rm -f /tmp/fetched
             xdb wal-fetch $name /tmp/fetched && cmp /tmp/fetched pg_wal/$name || echo $name
         done"
    ));
    assert_eq!((wrong.code, wrong.stdout.as_str()), (0, ""), "{wrong:?}");
    assert!(
        lab.sh(&format!("ls {STORED}/{segment}.lz4")).code == 0,
        "{segment} is marked as done and not in the bucket"
    );
}

/// The process ids of the program's daemons, with spaces between.
fn programs_daemons(lab: &Lab) -> String {
    lab.sh("pgrep -d ' ' -f '[d]aemon .*/archiver/'")
        .stdout
        .trim()
        .to_owned()
}

fn a_backlog_goes_through_the_daemon_side_by_side(program: Program) {
    let lab = lab(program, "");
    lab.proxy_enabled(false);
    let last = write(&lab, 12);
    assert!(lab.sh(&format!("ls {STORED}/*")).code != 0, "S3 is cut");
    lab.proxy_enabled(true);
    let daemon = start(&lab);
    lab.sql("SELECT pg_stat_reset_shared('archiver')");
    let before = called(&lab, "wal-push");
    all_that_is_done_is_stored(&lab, &last);
    // One for each processor, where one uses no more; and none was started again.
    let processors: usize = lab.ok("nproc").trim().parse().unwrap();
    let daemons = match program {
        Program::Walrus => processors.min(4),
        Program::WalG => 1,
    };
    assert_eq!(called(&lab, "daemon"), daemons);
    // One attempt of the time before may still have been under way.
    assert!(
        called(&lab, "wal-push") <= before + 1,
        "the daemon was not used"
    );
    let mode = lab.ok(&format!("stat -c %a:%G {SOCKET}"));
    assert_eq!(mode, "660:postgres");
    let log = lab.ok("cat /var/log/postgresql/lab.log");
    assert!(!log.contains("could not rename"), "{log}");

    // PostgreSQL may ask again for what is stored, and the bucket may have lost it meanwhile.
    let push = format!("cd {DATA} && xdb wal-push pg_wal/{last}");
    assert_eq!(lab.sh_as_postgres(&push).code, 0);
    // A stock client of the protocol is served, too.
    let stock = format!("walrus daemon-client --socket {SOCKET} wal-push {last}");
    assert_eq!(lab.sh_as_postgres(&stock).code, 0);
    lab.ok(&format!("rm {STORED}/{last}.lz4"));
    assert_eq!(lab.sh_as_postgres(&push).code, 0);
    all_that_is_done_is_stored(&lab, &last);

    // Another server's segment of the same name is not taken for the one that is stored.
    lab.ok(&format!(
        "install -d -o postgres /tmp/other/pg_wal && head -c 16M /dev/urandom >/tmp/other/pg_wal/{last} && chown -R postgres /tmp/other"
    ));
    let other = lab.sh_as_postgres(&format!("cd /tmp/other && xdb wal-push pg_wal/{last}"));
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("other content"), "{other:?}");

    // A file that is just being edited stops no archiving while the daemon runs.
    lab.write_file("/etc/xdb/xdb.toml", "[archive", "root:postgres", "0640");
    assert_eq!(lab.xdb(&["config", "show"]).code, 2);
    let last = write(&lab, 1);
    let done = format!("test -e {DATA}/pg_wal/archive_status/{last}.done");
    eventually("it is archived", SOON, || {
        (lab.sh(&done).code == 0).then_some(())
    });
    lab.config(&config(program, ""));
    all_that_is_done_is_stored(&lab, &last);

    daemon.signal("TERM");
    daemon.wait(SOON);
    assert_eq!(
        lab.sh(&format!("test -e {SOCKET}")).code,
        1,
        "the socket stays"
    );
    lab.assert_nothing_left_behind();
}

fn the_programs_daemon_may_be_killed_or_hang(program: Program) {
    let lab = lab(program, "");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let daemon = start(&lab);
    all_that_is_done_is_stored(&lab, &write(&lab, 1));
    let writer = lab.writer();
    for signal in ["KILL", "STOP"] {
        let latency = json!({"type": "latency", "attributes": {"latency": 500}});
        lab.toxic("slow", latency);
        let before = programs_daemons(&lab);
        let one = before.split(' ').next().unwrap_or_default();
        assert!(!one.is_empty(), "the program's daemons run");
        let last = write(&lab, 6);
        a_push_is_under_way(&lab);
        lab.ok(&format!("kill -{signal} {one}"));
        lab.remove_toxic("slow");
        eventually("all are gone", SOON, || {
            lab.sh(&format!(
                "for each in {before}; do kill -0 $each && exit 1; done; true"
            ))
            .code
            .eq(&0)
            .then_some(())
        });
        all_that_is_done_is_stored(&lab, &last);
        eventually("it is started again", SOON, || {
            let next = write(&lab, 1);
            all_that_is_done_is_stored(&lab, &next);
            (!programs_daemons(&lab).is_empty()).then_some(())
        });
    }
    daemon.signal("TERM");
    daemon.wait(SOON);
    lab.judge_archive(writer);
}

#[test]
fn a_daemon_that_says_stored_and_stores_elsewhere_is_not_believed() {
    let elsewhere = "[ \"$1\" != daemon ] || export WALG_S3_PREFIX=s3://walg-test/elsewhere";
    let lab = lab(Program::Walrus, elsewhere);
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let daemon = start(&lab);
    let writer = lab.writer();
    let last = write(&lab, 3);
    all_that_is_done_is_stored(&lab, &last);
    let lied = lab.ok("ls /srv/s3/walg-test/elsewhere/wal_005");
    assert!(
        lied.contains(&last),
        "the fault did not take effect: {lied}"
    );
    assert!(called(&lab, "wal-push") > 0);
    daemon.signal("TERM");
    daemon.wait(SOON);
    lab.judge_archive(writer);
}

#[test]
fn s3_may_be_cut_or_hang_under_the_daemon() {
    let lab = lab(Program::Walrus, "");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let daemon = start(&lab);
    all_that_is_done_is_stored(&lab, &write(&lab, 1));
    let writer = lab.writer();
    for hangs in [false, true] {
        if hangs {
            let hang = json!({"type": "timeout", "attributes": {"timeout": 0}});
            lab.toxic("hang", hang);
        } else {
            lab.proxy_enabled(false);
        }
        let failed = lab.sql("SELECT failed_count FROM pg_stat_archiver");
        let last = write(&lab, 4);
        eventually("archiving fails", Duration::from_secs(90), || {
            (lab.sql("SELECT failed_count FROM pg_stat_archiver") != failed).then_some(())
        });
        assert!(lab.sh(&format!("ls {STORED}/{last}.lz4")).code != 0);
        if hangs {
            lab.remove_toxic("hang");
        } else {
            lab.proxy_enabled(true);
        }
        all_that_is_done_is_stored(&lab, &last);
    }
    lab.ok("grep -q 'archive command failed with exit code 1' /var/log/postgresql/lab.log");
    assert_eq!(
        lab.sh("grep 'FATAL.*archive command' /var/log/postgresql/lab.log")
            .stdout,
        ""
    );
    daemon.signal("TERM");
    daemon.wait(SOON);
    lab.judge_archive(writer);
}

#[test]
fn xdb_may_be_killed_in_a_push_and_stay_away() {
    let lab = lab(Program::Walrus, "");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let daemon = start(&lab);
    all_that_is_done_is_stored(&lab, &write(&lab, 1));
    let writer = lab.writer();
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 500}}),
    );
    let last = write(&lab, 6);
    a_push_is_under_way(&lab);
    daemon.signal("KILL");
    eventually("the program's daemon died with it", SOON, || {
        programs_daemons(&lab).is_empty().then_some(())
    });
    lab.ok(&format!("test -S {SOCKET}"));
    lab.remove_toxic("slow");
    // By wal-push alone.
    all_that_is_done_is_stored(&lab, &last);
    assert!(called(&lab, "wal-push") > 0);
    // The stale socket is replaced.
    let again = start(&lab);
    let alone = called(&lab, "wal-push");
    all_that_is_done_is_stored(&lab, &write(&lab, 3));
    assert_eq!(called(&lab, "wal-push"), alone);
    again.signal("TERM");
    again.wait(SOON);
    lab.judge_archive(writer);
}

#[test]
fn daemons_that_keep_memory_after_a_load_are_ended_and_start_again_with_the_next_segment() {
    let lab = lab_with(Program::Walrus, "", "");
    // As large as wal-g's after a load, for as long as the real daemon below it runs.
    let path = Program::Walrus.path();
    let fat = "$fat = 'x' x 100_000_000; $SIG{TERM} = sub { exit }; system(@ARGV)";
    lab.write_file(
        &format!("{path}-spy"),
        &format!(
            "#!/bin/sh\necho \"$1\" >>{SPY_LOG}\n[ \"$1\" = daemon ] && exec perl -e \"{}\" {path} \"$@\"\nexec {path} \"$@\"\n",
            fat.replace('$', "\\$")
        ),
        "root:root",
        "0755",
    );
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    let daemon = start(&lab);
    all_that_is_done_is_stored(&lab, &write(&lab, 3));
    let daemons = called(&lab, "daemon");
    let fat = lab.ok("ps -eo rss=,args= | awk '/[p]erl.*daemon/ { sum += $1 } END { print sum }'");
    assert!(fat.parse::<u64>().unwrap() > 80_000, "{fat} KiB");
    eventually("idle daemons give their memory back", SOON * 3, || {
        programs_daemons(&lab).is_empty().then_some(())
    });
    all_that_is_done_is_stored(&lab, &write(&lab, 1));
    assert!(called(&lab, "daemon") > daemons, "it was started again");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
