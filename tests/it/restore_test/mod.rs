//! `xdb restore-test`: real backups restored, and every way in which one is not what it seems.

mod archive_end;
mod beside;
mod cut_off;
mod damage;
mod detect;
mod history;
mod levels;
mod not_looked_at;
mod not_run;
mod tablespaces;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, SCRATCH, Service, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(30);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";
const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/walg-3.0.9/repository"
);

for_each_program!(
    what_was_written_after_the_backup_comes_back,
    the_repository_that_wal_g_wrote_comes_back,
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
    let pushed = lab.xdb_json(&["backup", "push"]);
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
        [
            "preflight",
            "fetch",
            "recover",
            "sync",
            "verify",
            "tear_down"
        ]
    );
    for name in [
        "wal",
        "archive_end",
        "backup_label",
        "files",
        "consistent",
        "system_identifier",
        "timeline",
        "end_reached",
        "tables",
        "row_counts",
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
    // Row 3, and perhaps 4, came back: they would not have, had the primary been lost when the test began.
    assert!(
        tested.report["rpo_secs"].as_f64() > Some(0.0),
        "{:?}",
        tested.output
    );
}
