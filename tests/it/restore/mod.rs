//! `xdb restore`: a cluster that is kept, to the end of the archive or to a moment, and every way in which there is none.

mod background;
mod cut_off;
mod refused;
mod targets;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(30);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";
const TARGET: &str = "/var/lib/postgresql/restored";
const BIN: &str = "/usr/lib/postgresql/17/bin";

for_each_program!(a_table_comes_back_as_it_was_at_a_moment);

/// What tells the moment after one row and before the next.
struct Moment {
    time: String,
    lsn: String,
    name: String,
}

/// A backup, then rows 1, 2, … in `marker`, with a moment after each; all is archived.
fn moments(lab: &Lab, rows: u32) -> Vec<Moment> {
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    lab.xdb_json(&["backup", "push"]);
    let moments = (1..=rows).map(|id| {
        lab.sql(&format!("INSERT INTO marker VALUES ({id})"));
        let name = format!("after_{id}");
        lab.sql(&format!("SELECT pg_create_restore_point('{name}')"));
        Moment {
            lsn: lab.sql("SELECT pg_current_wal_lsn()"),
            time: lab.sql("SELECT clock_timestamp()"),
            name,
        }
    });
    let moments = moments.collect();
    archive_all(lab);
    moments
}

fn archive_all(lab: &Lab) {
    // Where nothing was written since the last switch there is no segment to end.
    lab.sql("SELECT pg_logical_emit_message(true, 'test', 'the last of its segment')");
    let segment = lab.sql("SELECT pg_walfile_name(pg_switch_wal())");
    eventually("the segment is stored", SOON, || {
        let listed = lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"));
        (listed.code == 0).then_some(())
    });
}

fn restore(lab: &Lab, arguments: &[&str]) -> Output {
    lab.xdb(&[&["restore", "--target-dir", TARGET], arguments].concat())
}

fn forget(lab: &Lab) {
    lab.ok(&format!("rm -rf {TARGET}"));
}

/// What `sql` says in the restored cluster, started as the printed commands say.
fn ask_restored(lab: &Lab, sql: &str) -> String {
    let options = format!(
        "-c listen_addresses= -c port=5432 -c unix_socket_directories={TARGET} -c default_transaction_read_only=on"
    );
    let answer = lab.sh_as_postgres(&format!(
        "{BIN}/pg_ctl -D {TARGET} -s -w -l {TARGET}/look.log -o '{options}' start &&
         {BIN}/psql -XAtq -h {TARGET} -d postgres -c \"{sql}\"; {BIN}/pg_ctl -D {TARGET} -s -w stop"
    ));
    answer.succeeded(sql)
}

fn a_table_comes_back_as_it_was_at_a_moment(program: Program) {
    let lab = Lab::start_quiet(program);
    lab.sql("ALTER SYSTEM SET work_mem = '7MB'");
    lab.sql("ALTER SYSTEM SET synchronous_standby_names = ''");
    let moments = moments(&lab, 3);

    // The same by each way to name it, first by restore tests: two rows and no more.
    for until in [&moments[1].time, &moments[1].lsn, &moments[1].name] {
        let rows = "SELECT array_agg(id ORDER BY id) = '{1,2}' FROM public.marker";
        let tested = lab.xdb_json(&["restore-test", "--until", until, "--sql", rows]);
        assert_eq!(tested["passed"], json!(true), "{until}: {tested}");
        let verifications = tested["verifications"].to_string();
        assert!(!verifications.contains("archive_end"), "{verifications}");
        assert!(verifications.contains("end_reached"), "{verifications}");
    }
    // It is not the job: the daemon's own test counts, and no other.
    let jobs = lab.ok("ls /srv/s3/walg-test/xdb/main/jobs 2>/dev/null || true");
    assert!(!jobs.contains("restore-test"), "{jobs}");

    // The plan is told, and nothing is touched.
    let plan = restore(&lab, &["--until", &moments[0].time, "--plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    for words in [
        "backup    base_0000000100000000000000",
        "segments, on timeline 1",
        "free for /var/lib/postgresql/restored",
        "duration  unknown: no restore test has passed yet",
        "lost      all that was done after 20",
    ] {
        assert!(plan.stdout.contains(words), "{words}: {plan:?}");
    }
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0);

    let output = restore(&lab, &["--until", &moments[0].time]);
    assert_eq!(output.code, 0, "{output:?}");
    for words in [
        "pg_ctl -D",
        "RESET archive_mode",
        "00000002.history",
        "backup push --full",
    ] {
        assert!(output.stdout.contains(words), "{words}: {output:?}");
    }
    let left = lab.ok(&format!("ls -A {TARGET}"));
    assert!(
        left.contains("PG_VERSION") && !left.contains("xdb-restore"),
        "{left}"
    );
    let open = lab.ok(&format!(
        "find {TARGET} -perm /077; ls -A {TARGET}/pg_wal | grep wal-g || true"
    ));
    assert_eq!(open, "", "others may read it, or a prefetch is left");
    // Closed while WAL is replayed, and open for the cluster that it is now.
    assert_eq!(lab.ok(&format!("stat -c %a {TARGET}/pg_tblspc")), "700");
    // It is a primary that keeps what it is told, with its own settings, and archives nothing.
    let settings = "SELECT pg_is_in_recovery(), current_setting('archive_mode'), current_setting('fsync'), \
                    current_setting('work_mem'), array_agg(id) FROM marker";
    assert_eq!(ask_restored(&lab, settings), "f|off|on|7MB|{1}");
    // What it looked like is what it is: the live cluster noticed nothing.
    assert_eq!(lab.sql("SELECT count(*) FROM marker"), "3");
    let archived = lab.ok(&format!("ls {REPOSITORY}/wal_005"));
    let is_new = |name: &str| name.starts_with("00000002");
    assert!(!archived.lines().any(is_new), "{archived}");

    // To the end of the archive, and with a test to go by.
    forget(&lab);
    lab.xdb_json(&["restore-test"]);
    let plan: Value = lab.xdb_json(&["restore", "--target-dir", TARGET, "--plan"]);
    assert!(plan["expected_secs"].as_f64() > Some(0.0), "{plan}");
    assert!(
        plan["lost"]
            .as_str()
            .unwrap()
            .contains("this node's server has committed"),
        "{plan}"
    );
    let restored = lab.xdb_json(&["restore", "--target-dir", TARGET]);
    assert_eq!(restored["reason"], Value::Null, "{restored}");
    assert_eq!(
        (&restored["timeline"], &restored["new_timeline"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        ask_restored(&lab, "SELECT array_agg(id) FROM marker"),
        "{1,2,3}"
    );
    lab.assert_nothing_left_behind();
}
