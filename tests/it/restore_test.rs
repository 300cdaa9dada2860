//! `xdb restore-test`: real backups restored, and every way in which one is not what it seems.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Background, Lab, Output, Program, SCRATCH, Service, eventually, for_each_program,
};

const SOON: Duration = Duration::from_secs(30);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";
const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/walg-3.0.9/repository"
);

for_each_program!(
    what_was_written_after_the_backup_comes_back,
    the_repository_that_wal_g_wrote_comes_back,
    a_removed_middle_segment_is_found,
    a_cut_tar_part_is_found,
    s3_cut_in_the_middle_of_replay_is_no_end_of_the_archive,
    a_tablespace_is_refused_before_anything_is_fetched,
    a_killed_test_leaves_nothing_after_the_next_start,
    recovery_follows_a_new_timeline,
);

/// A restore test's report and how it ended.
struct Tested {
    output: Output,
    report: Value,
}

impl Tested {
    fn of(output: Output) -> Self {
        let report = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { output, report }
    }

    fn verdict(&self, name: &str) -> &str {
        let all = self.report["verifications"]
            .as_array()
            .expect("verifications");
        let found = all.iter().find(|verification| verification["name"] == name);
        found
            .and_then(|verification| verification["verdict"].as_str())
            .unwrap_or("not looked at")
    }

    fn reason(&self) -> &str {
        self.report["reason"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn passed(&self) {
        assert_eq!(
            (self.output.code, &self.report["passed"]),
            (0, &json!(true)),
            "{:?}",
            self.output
        );
        assert_eq!(self.report["reason"], Value::Null);
    }

    #[track_caller]
    fn not_passed(&self, code: i32, words: &str) {
        assert_eq!(
            (self.output.code, &self.report["passed"]),
            (code, &json!(false)),
            "{:?}",
            self.output
        );
        assert!(
            self.reason().contains(words),
            "{words:?} is not in {:?}",
            self.output
        );
        assert!(self.output.stderr.contains("HINT:"), "{:?}", self.output);
        for secret in ["lab-secret-key", "lab-password"] {
            assert!(
                !format!("{:?}", self.output).contains(secret),
                "{:?}",
                self.output
            );
        }
    }
}

fn restore_test(lab: &Lab, arguments: &[&str]) -> Tested {
    let tested = Tested::of(lab.xdb(&[&["restore-test", "--json"], arguments].concat()));
    lab.assert_nothing_left_behind();
    tested
}

fn push(lab: &Lab) -> String {
    let pushed = lab.xdb(&["backup", "push", "--json"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let pushed: Value = serde_json::from_str(&pushed.stdout).unwrap();
    pushed["backup"].as_str().unwrap().to_owned()
}

/// Commits `id` into `marker`, in a segment of its own that is archived; returns the segment's name.
fn archive_marker(lab: &Lab, id: u32) -> String {
    lab.sql(&format!("INSERT INTO marker VALUES ({id})"));
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("SELECT pg_switch_wal()");
    eventually("the segment is stored", SOON, || {
        (lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"))
            .code
            == 0)
            .then_some(())
    });
    segment
}

/// A backup, then `segments` archived markers 1, 2, …; returns the segments' names.
fn backed_up(lab: &Lab, segments: u32) -> Vec<String> {
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    push(lab);
    (1..=segments).map(|id| archive_marker(lab, id)).collect()
}

fn markers(ids: &str) -> String {
    format!(
        "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') = '{ids}' FROM public.marker"
    )
}

fn what_was_written_after_the_backup_comes_back(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 2);
    let inside = format!("SELECT current_setting('data_directory') LIKE '{SCRATCH}/run-%/data'");
    let tested = restore_test(&lab, &["--sql", &inside, "--sql", &markers("1,2")]);
    tested.passed();
    let report = &tested.report;
    assert_eq!(
        report["system_identifier"].to_string(),
        lab.sql("SELECT system_identifier FROM pg_control_system()")
    );
    assert_eq!(report["timeline"], json!(1));
    assert!(report["rto_secs"].as_f64() > Some(0.0), "{report}");
    assert_eq!(
        report["rpo_secs"],
        json!(0.0),
        "nothing was committed since: {report}"
    );
    let names: Vec<&str> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["preflight", "fetch", "recover", "verify", "tear_down"]
    );
    for name in [
        "wal",
        "archive_end",
        "files",
        "system_identifier",
        "timeline",
        "end_reached",
        "tables",
        "amcheck",
        "checksums",
    ] {
        assert_eq!(tested.verdict(name), "ok", "{name}: {report}");
    }

    // What is committed and not archived would be lost, since then and no longer.
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("INSERT INTO marker VALUES (3)");
    lab.ok("sleep 1.5");
    let tested = restore_test(&lab, &["--sql", &markers("1,2")]);
    tested.passed();
    let rpo = tested.report["rpo_secs"].as_f64().unwrap();
    assert!((1.5..60.0).contains(&rpo), "{rpo}");

    // A question that is answered otherwise fails the test.
    let tested = restore_test(&lab, &["--sql", &markers("1,2,3")]);
    tested.not_passed(1, "not true");
    // The live cluster noticed nothing.
    assert_eq!(
        lab.sql("SELECT count(*), pg_is_in_recovery() FROM marker"),
        "3|f"
    );
}

fn the_repository_that_wal_g_wrote_comes_back(program: Program) {
    let lab = Lab::start_bare(program);
    lab.copy_in(FIXTURE.as_ref(), "/srv/s3/walg-test/fixture");
    let digest = "SELECT md5(string_agg(id||':'||customer_id||':'||total_cents, ',' ORDER BY id)) = \
                  'ac884a75eab285b9e03af41ed743dc25' FROM public.orders";
    let rows = "SELECT (SELECT count(*) FROM public.customer) = 1001 AND (SELECT sum(total_cents) FROM public.orders) = 1012592500";
    let tested = restore_test(
        &lab,
        &[
            "--repository",
            "s3://walg-test/fixture",
            "--database",
            "shop",
            "--sql",
            digest,
            "--sql",
            rows,
        ],
    );
    tested.passed();
    let report = &tested.report;
    assert_eq!(report["backup"], json!("base_000000010000000000000003"));
    assert_eq!(
        report["system_identifier"],
        json!(7_710_528_144_203_341_750_u64)
    );
    assert!(report["recovered_lsn"] == json!("0/6000000"), "{report}");
    assert!(
        report["recovered_to"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-21T07:47:1"),
        "{report}"
    );
    // No live server here: neither the end of the archive nor a loss can be known, and that is said.
    assert_eq!(report["rpo_secs"], Value::Null);
    assert_eq!(
        (tested.verdict("archive_end"), tested.verdict("rpo")),
        ("unknown", "unknown")
    );
    let shown = lab.xdb(&["restore-test", "--repository", "s3://walg-test/fixture"]);
    assert!(
        shown.stdout.starts_with("PASSED") && shown.stdout.contains("unverified"),
        "{shown:?}"
    );
}

fn a_removed_middle_segment_is_found(program: Program) {
    let lab = Lab::start(program);
    let segments = backed_up(&lab, 3);
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{}.lz4", segments[1]));
    assert_eq!(
        lab.sh(&format!("ls {REPOSITORY}/wal_005/{}.lz4", segments[1]))
            .code,
        2
    );
    // What would come back is shown all the same: the rows before the gap.
    let tested = restore_test(&lab, &["--sql", &markers("1")]);
    tested.not_passed(1, &segments[1]);
    assert_eq!(
        (tested.verdict("wal"), tested.verdict("end_reached")),
        ("critical", "critical")
    );
    assert!(tested.report["rto_secs"].as_f64().is_some());
    let list = lab.xdb(&["backup", "list"]);
    assert!(
        list.stdout
            .contains(&format!("WAL is missing: {}", segments[1])),
        "{list:?}"
    );
}

#[test]
fn a_missing_last_segment_is_found_while_the_server_remembers() {
    let lab = Lab::start(Program::Walrus);
    let segments = backed_up(&lab, 2);
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{}.lz4", segments[1]));
    let tested = restore_test(&lab, &["--sql", &markers("1")]);
    tested.not_passed(1, &format!("PostgreSQL archived {}", segments[1]));
    assert!(
        tested.report["rpo_secs"].as_f64() > Some(0.0),
        "{}",
        tested.report
    );
}

fn a_cut_tar_part_is_found(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 1);
    let part = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005/*/tar_partitions/part_001.tar.lz4"
    ));
    let size: u64 = lab.ok(&format!("stat -c %s {part}")).parse().unwrap();
    lab.ok(&format!("cp {part} /tmp/whole"));
    // In the middle, near the end, and to nothing.
    for cut in [size / 2, size - 20, 0] {
        lab.ok(&format!("cp /tmp/whole {part} && truncate -s {cut} {part}"));
        assert_eq!(lab.ok(&format!("stat -c %s {part}")), cut.to_string());
        let tested = restore_test(&lab, &[]);
        tested.not_passed(1, "base_0000000100000000000000");
        assert_eq!(
            tested.verdict("tar_parts"),
            "critical",
            "cut to {cut} of {size}: {}",
            tested.report
        );
    }
    lab.ok(&format!("rm {part}"));
    restore_test(&lab, &[]).not_passed(1, "the tar parts of base_0000000100000000000000");
    lab.ok(&format!("cp /tmp/whole {part}"));
    restore_test(&lab, &[]).passed();
}

/// The log of the scratch server that runs now.
fn scratch_log(lab: &Lab) -> String {
    lab.sh(&format!("cat {SCRATCH}/run-*/postgresql.log"))
        .stdout
}

/// A restore test in the middle of its replay, which S3's slowness makes long.
fn test_in_replay(lab: &Lab) -> Background<'_> {
    // One segment at a time, nothing fetched ahead.
    lab.config(
        "[archive]\nfetch_timeout = \"3s\"\n[archive.settings]\nWALG_DOWNLOAD_CONCURRENCY = 1",
    );
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 300}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    eventually("WAL is being replayed", SOON, || {
        scratch_log(lab).contains("restored log file").then_some(())
    });
    assert!(test.is_running());
    test
}

fn s3_cut_in_the_middle_of_replay_is_no_end_of_the_archive(program: Program) {
    let lab = Lab::start(program);
    let segments = backed_up(&lab, 6);
    let test = test_in_replay(&lab);
    lab.proxy_enabled(false);
    let log = scratch_log(&lab);
    assert!(
        !log.contains(&format!("restored log file \"{}\"", segments[5])),
        "cut too late: {log}"
    );
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "S3 was lost while WAL was replayed");
    assert_eq!(tested.report["recovered_lsn"], Value::Null);
    lab.assert_nothing_left_behind();
    lab.remove_toxic("slow");
    lab.proxy_enabled(true);
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
}

fn a_tablespace_is_refused_before_anything_is_fetched(program: Program) {
    let lab = Lab::start(program);
    lab.ok("install -d -o postgres -m 0700 /srv/tablespace");
    lab.sql("CREATE TABLESPACE aside LOCATION '/srv/tablespace'");
    lab.sql("CREATE TABLE precious TABLESPACE aside AS SELECT generate_series(1, 100) AS a");
    lab.sql("CHECKPOINT");
    push(&lab);
    let files = "find /srv/tablespace -type f -printf '%p %i %T@\\n' | sort";
    let before = lab.ok(files);
    assert!(!before.is_empty());
    restore_test(&lab, &[]).not_passed(3, "tablespace");
    assert_eq!(lab.ok(files), before, "the live tablespace was touched");
    assert_eq!(lab.sql("SELECT count(*) FROM precious"), "100");
}

fn a_killed_test_leaves_nothing_after_the_next_start(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 6);
    // In the middle of the replay, with a server running; and in the middle of the fetch.
    let replaying = test_in_replay(&lab);
    replaying.signal("KILL");
    assert_eq!(replaying.wait(SOON).code, 137);
    assert_eq!(
        lab.sh(&format!("ls -d {SCRATCH}/run-*/data")).code,
        0,
        "the scratch cluster is left"
    );

    lab.toxic(
        "trickle",
        json!({"type": "bandwidth", "attributes": {"rate": 200}}),
    );
    let fetching = lab.xdb_in_background(&["restore-test", "--json"]);
    let program_runs = format!("pgrep -f '^{} backup-fetch'", program.path());
    eventually("the backup is being fetched", SOON, || {
        (lab.sh(&program_runs).code == 0).then_some(())
    });
    fetching.signal("KILL");
    assert_eq!(fetching.wait(SOON).code, 137);
    eventually("the program died with xdb", SOON, || {
        (lab.sh(&program_runs).code == 1).then_some(())
    });
    assert_eq!(
        lab.sh(&format!("ls -d {SCRATCH}/run-*/data")).code,
        0,
        "the half-fetched cluster is left"
    );

    lab.remove_toxic("trickle");
    lab.remove_toxic("slow");
    lab.config("");
    restore_test(&lab, &["--sql", &markers("1,2,3,4,5,6")]).passed();
    // Only the live server's shared memory is there.
    assert_eq!(lab.ok("ipcs -m | grep -c '^0x'"), "1");
}

#[test]
fn what_a_killed_test_still_runs_is_ended_by_the_next_start() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 6);
    // wal-fetch's prefetch outlives everybody: its own process group, no parent, slow S3.
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 1500}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    let prefetch = "pgrep -f '^/usr/local/bin/walrus wal-prefetch'";
    eventually("a prefetch runs", SOON, || {
        (lab.sh(prefetch).code == 0).then_some(())
    });
    test.signal("KILL");
    assert_eq!(test.wait(SOON).code, 137);
    let orphan = lab.ok(&format!("{prefetch} | head -1"));
    // Stopped, so that it is still there when the next test starts.
    lab.ok(&format!("kill -STOP {orphan}"));
    lab.remove_toxic("slow");
    assert_eq!(
        lab.sh(&format!("kill -0 {orphan}")).code,
        0,
        "the orphan is there"
    );
    restore_test(&lab, &[]).passed();
    assert_eq!(lab.sh(&format!("kill -0 {orphan}")).code, 1);
}

#[test]
fn an_interrupted_test_cleans_up_itself_and_two_never_run_at_once() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 6);
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 143)] {
        let test = test_in_replay(&lab);
        let second = Tested::of(lab.xdb(&["restore-test", "--json"]));
        second.not_passed(3, "another restore test is running");
        assert!(test.is_running(), "the second test disturbed the first");
        test.signal(signal);
        assert_eq!(test.wait(SOON).code, code);
        lab.assert_nothing_left_behind();
        assert_eq!(
            lab.ok("ipcs -m | grep -c '^0x'"),
            "1",
            "shared memory of the scratch server is left"
        );
        lab.remove_toxic("slow");
    }
}

#[test]
fn a_full_scratch_disk_is_no_verdict_on_the_backup() {
    let lab = Lab::setup(Program::Walrus).tmpfs(SCRATCH, "100m").start();
    backed_up(&lab, 1);
    // Enough at first sight, then somebody else takes the room.
    let mut tested = None;
    for filler in ["90M", "60M"] {
        lab.ok(&format!(
            "rm -f {SCRATCH}/filler && fallocate -l {filler} {SCRATCH}/filler"
        ));
        let now = Tested::of(lab.xdb(&["restore-test", "--json"]));
        now.not_passed(4, "free, the restore needs");
        tested = Some(now);
    }
    assert!(
        tested.is_some_and(|tested| tested.report["steps"] == json!([])),
        "nothing was fetched"
    );
    lab.ok(&format!("rm {SCRATCH}/filler"));
    restore_test(&lab, &[]).passed();

    // The backup's own numbers say too little: found by ENOSPC itself.
    let sentinel = lab.ok(&format!("ls {REPOSITORY}/basebackups_005/*_sentinel.json"));
    lab.ok(&format!(
        "jq -c '.UncompressedSize = 1000 | .DataCatalogSize = 1000' {sentinel} >/tmp/s && cat /tmp/s >{sentinel} &&
         fallocate -l 55M {SCRATCH}/filler"
    ));
    let tested = Tested::of(lab.xdb(&["restore-test", "--json"]));
    tested.not_passed(4, "the scratch disk became full");
    lab.ok(&format!("rm {SCRATCH}/filler"));
    lab.assert_nothing_left_behind();
}

#[test]
fn a_test_that_cannot_be_run_says_why() {
    let lab = Lab::start(Program::Walrus);
    restore_test(&lab, &[]).not_passed(4, "holds no finished backup");
    backed_up(&lab, 1);
    restore_test(&lab, &["--backup", "base_000000010000000000000099"])
        .not_passed(4, "no backup base_000000010000000000000099");
    restore_test(&lab, &["--repository", "s3://nowhere/x"]).not_passed(4, "no such bucket");
    lab.config("[archive]\nprogram = \"/usr/local/bin/no-wal-g\"");
    restore_test(&lab, &[]).not_passed(4, "there is no WAL-G program");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    restore_test(&lab, &[]).not_passed(4, "access denied");
    lab.config("[postgres]\nbin_directory = \"/usr/lib/postgresql/99/bin\"");
    restore_test(&lab, &[])
        .not_passed(4, "there is no program /usr/lib/postgresql/99/bin/postgres");
    lab.config("[restore_test]\ndirectory = \"/var/lib/postgresql/17/main/scratch\"");
    Tested::of(lab.xdb(&["restore-test", "--json"]))
        .not_passed(3, "overlaps the live data directory");
    lab.ok("rmdir /var/lib/postgresql/17/main/scratch");
    lab.ok("install -d -m 0777 /var/tmp/open");
    lab.config("[restore_test]\ndirectory = \"/var/tmp/open\"");
    restore_test(&lab, &[]).not_passed(3, "others may write to /var/tmp/open");
    lab.config("[restore_test]\ndirectory = \"/proc/xdb\"");
    restore_test(&lab, &[]).not_passed(4, "cannot make /proc/xdb");
    lab.config("[restore_test]\ntimeout = \"1s\"");
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 800}}),
    );
    restore_test(&lab, &[]).not_passed(4, "not done after 1 s");
    lab.remove_toxic("slow");
    lab.config("");
    let root = Tested::of(lab.sh("xdb restore-test --json"));
    root.not_passed(3, "as root");
    lab.proxy_enabled(false);
    restore_test(&lab, &[]).not_passed(4, "S3 does not answer");
    lab.proxy_enabled(true);
    // PostgreSQL down on this node: the backup is still judged, the loss is unknown.
    lab.service("postgres", Service::Down);
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(
        (&tested.report["rpo_secs"], tested.verdict("rpo")),
        (&Value::Null, "unknown")
    );
    // With a wrong password there is one to ask, and it was not asked: that is no pass.
    lab.service("postgres", Service::Up);
    lab.config("[postgres]\npassword = \"wrong\"");
    restore_test(&lab, &[]).not_passed(4, "password authentication failed");
}

#[test]
fn a_flipped_bit_is_found_where_checksums_are_kept_and_said_to_be_unknowable_where_not() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE big AS SELECT i AS id, repeat('x', 500) AS pad FROM generate_series(1, 2000) AS i");
    lab.sql("CHECKPOINT");
    let file =
        lab.sql("SELECT current_setting('data_directory') || '/' || pg_relation_filepath('big')");
    lab.service("postgres", Service::Down);
    // Inside a row's text: the tuple stays well-formed, only the checksum can tell.
    lab.ok(&format!(
        "printf 'y' | dd of={file} bs=1 seek=12000 conv=notrunc status=none"
    ));
    lab.service("postgres", Service::Up);
    assert_eq!(
        lab.ok(&format!("dd if={file} bs=1 skip=12000 count=1 status=none")),
        "y"
    );
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    push(&lab);
    archive_marker(&lab, 1);
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "big");
    assert_eq!(
        (tested.verdict("tables"), tested.verdict("checksums")),
        ("critical", "critical"),
        "{}",
        tested.report
    );

    lab.service("postgres", Service::Down);
    lab.ok("setpriv --reuid=postgres --clear-groups /usr/lib/postgresql/17/bin/pg_checksums --disable -D /var/lib/postgresql/17/main");
    lab.service("postgres", Service::Up);
    push(&lab);
    archive_marker(&lab, 2);
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(tested.verdict("checksums"), "unknown", "{}", tested.report);
}

fn recovery_follows_a_new_timeline(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 2);
    // The same cluster, recovered from its own archive: timeline 2, its history in the bucket.
    lab.service("postgres", Service::Down);
    lab.ok(
        "cd /var/lib/postgresql/17/main && echo \"restore_command = 'xdb wal-fetch %f %p'\" >>postgresql.conf &&
         touch recovery.signal && chown postgres recovery.signal",
    );
    lab.service("postgres", Service::Up);
    eventually("the server is promoted", SOON, || {
        (lab.sh_as_postgres("psql -XAtc 'SELECT pg_is_in_recovery()'")
            .stdout
            .trim()
            == "f")
            .then_some(())
    });
    let segment = archive_marker(&lab, 3);
    assert!(segment.starts_with("00000002"), "{segment}");
    assert_eq!(
        lab.sh(&format!("ls {REPOSITORY}/wal_005/00000002.history*"))
            .code,
        0
    );
    let tested = restore_test(&lab, &["--sql", &markers("1,2,3")]);
    tested.passed();
    assert_eq!(tested.report["timeline"], json!(2));
    let list = lab.xdb(&["backup", "list"]);
    assert!(list.stdout.contains("(timeline 2)"), "{list:?}");

    // Without its history, the new timeline's WAL is there and cannot be followed: row 3 is lost, and that is no pass.
    lab.ok(&format!("rm {REPOSITORY}/wal_005/00000002.history*"));
    assert_ne!(
        lab.sh(&format!("ls {REPOSITORY}/wal_005/00000002.history*"))
            .code,
        0
    );
    let tested = restore_test(&lab, &["--sql", &markers("1,2")]);
    tested.not_passed(1, "00000002.history is missing");
    assert_eq!(tested.verdict("rpo"), "critical", "{}", tested.report);
}

#[test]
fn a_damaged_sentinel_spoils_its_own_backup_only() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 1);
    let good = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005 | grep -v sentinel"
    ));
    let bad = push(&lab);
    lab.ok(&format!(
        "truncate -s 40 {REPOSITORY}/basebackups_005/{bad}_backup_stop_sentinel.json"
    ));
    restore_test(&lab, &[]).not_passed(1, "its sentinel is damaged");
    restore_test(&lab, &["--backup", &good, "--sql", &markers("1")]).passed();
    let list = lab.xdb(&["backup", "list"]);
    assert!(
        list.stdout.contains("unusable") && list.stdout.contains("complete"),
        "{list:?}"
    );
}

#[test]
fn what_is_archived_during_a_restore_test_does_not_flatter_its_rpo() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 2);
    // Committed and not archived when the test begins; archived while it fetches.
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("INSERT INTO marker VALUES (3)");
    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 400}}),
    );
    let test = lab.xdb_in_background(&["restore-test", "--json", "--sql", &markers("1,2,3")]);
    eventually("the fetch has begun", SOON, || {
        (lab.sh(&format!("ls {SCRATCH}/run-*/data/PG_VERSION")).code == 0).then_some(())
    });
    lab.sql("ALTER SYSTEM RESET archive_command");
    lab.sql("SELECT pg_reload_conf()");
    archive_marker(&lab, 4);
    lab.remove_toxic("slow");
    let tested = Tested::of(test.wait(Duration::from_secs(90)));
    // Row 3, and perhaps 4, came back: they would not have, had the primary burned down when the test began.
    assert!(
        tested.report["rpo_secs"].as_f64() > Some(0.0),
        "{:?}",
        tested.output
    );
}
