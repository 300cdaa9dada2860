//! What each level looks at, the operator's assertions, and what is kept.

use serde_json::{Value, json};

use super::{Tested, archive_marker, backed_up, markers, push, restore_test};
use crate::harness::{Lab, Program, SCRATCH};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/restore-checks");
const CHECKS: &str = "/etc/xdb/restore-checks";

fn names(tested: &Tested) -> Vec<&str> {
    let all = tested.report["verifications"].as_array().unwrap();
    all.iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect()
}

fn assertion(lab: &Lab, file: &str, text: &str) {
    lab.write_file(&format!("{CHECKS}/{file}"), text, "root:postgres", "0640");
}

#[test]
fn each_level_looks_at_more_and_the_assertions_are_asked_at_the_last() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE DATABASE shop");
    let shop = |sql: &str| {
        let psql = format!("psql -XAtqd shop -v ON_ERROR_STOP=1 -c \"{sql}\"");
        lab.sh_as_postgres(&psql).succeeded(sql)
    };
    shop(
        "CREATE TABLE customer (id int PRIMARY KEY);
         CREATE TABLE orders (id int PRIMARY KEY, customer_id int, placed_at timestamptz DEFAULT now());
         INSERT INTO customer SELECT generate_series(1, 10);
         INSERT INTO orders SELECT g, g FROM generate_series(1, 10) AS g",
    );
    // Of such a table a sample of 64 MiB finds too many rows, or none: all live ones are in its last page.
    lab.sql("CREATE TABLE bloated AS SELECT i AS id, repeat('x', 1900) AS pad FROM generate_series(1, 40000) AS i");
    lab.sql("DELETE FROM bloated WHERE id <= 39996");
    lab.sql("VACUUM bloated");
    let bloated = lab.sql("SELECT pg_relation_size('bloated') / 1048576");
    assert!(bloated.parse::<u32>().unwrap() > 70, "{bloated} MiB");
    backed_up(&lab, 1);
    // What the live server does since the backup makes no difference to what came back.
    shop("DELETE FROM orders WHERE id > 5");
    shop("INSERT INTO customer SELECT generate_series(11, 999)");
    shop("CREATE TABLE newer AS SELECT generate_series(1, 10)");
    lab.copy_in(EXAMPLES.as_ref(), CHECKS);

    let start = ["wal", "archive_end", "rpo", "tar_parts", "backup_label"];
    let opened = ["consistent", "system_identifier", "timeline", "end_reached"];
    let tested = restore_test(&lab, &["--level", "start"]);
    tested.passed();
    assert_eq!(names(&tested), [&start[..], &opened].concat());
    assert_eq!(tested.report["level"], json!("start"));
    let tested = restore_test(&lab, &["--level", "check"]);
    tested.passed();
    let check = [&start[..], &["files"], &opened, &["amcheck", "checksums"]].concat();
    assert_eq!(names(&tested), check);
    // Neither says what the job would.
    let counts = "ls /srv/s3/walg-test/xdb/main/jobs/restore-test.json";
    assert_ne!(lab.sh(counts).code, 0);
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(lab.sh(counts).code, 0);
    assert_eq!(tested.report["level"], json!("full"));
    let full = [
        "tables",
        "row_counts",
        "amcheck",
        "assertion: databases-are-there.sql",
        "assertion: every-order-has-its-customer.sql",
        "assertion: orders-are-recent.sql",
        "checksums",
    ];
    assert_eq!(
        names(&tested),
        [&start[..], &["files"], &opened, &full].concat()
    );
    assert_eq!(tested.verdict("row_counts"), "ok", "{}", tested.report);

    // What says nothing of the backup is no verdict on it.
    assertion(&lab, "z.sql", "SELECT true");
    let first_line = "assertion: z.sql: its first line is not `-- database: NAME`";
    restore_test(&lab, &[]).not_passed(4, first_line);
    lab.ok(&format!("rm {CHECKS}/z.sql"));
    let wrong = [
        (
            "a.sql",
            "-- database: shop\nSELECT count(*) > 10, count(*) || ' old customers' FROM public.customer WHERE id < 11",
            "false: 10 old customers",
        ),
        (
            "b.sql",
            "-- database: shop\nSELECT true, '' WHERE false",
            "it returned no row",
        ),
        (
            "c.sql",
            "-- database: shop\nDELETE FROM public.orders RETURNING true",
            "read-only transaction",
        ),
        (
            "d.sql",
            "-- database: shop\nSELECT true FROM orders",
            "name its schema",
        ),
        (
            "e.sql",
            "-- database: gone\nSELECT true",
            "there is no database gone in what was restored",
        ),
    ];
    for (file, text, _) in wrong {
        assertion(&lab, file, text);
    }
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "assertion: a.sql: false: 10 old customers");
    let all = tested.report["verifications"].as_array().unwrap();
    for (file, _, words) in wrong {
        let named = |one: &&Value| one["name"] == format!("assertion: {file}");
        let found = all.iter().find(named).unwrap();
        assert_eq!(found["verdict"], "critical", "{found}");
        assert!(found["reason"].as_str().unwrap().contains(words), "{found}");
    }
    for (arguments, words) in [
        (
            ["--assertions", "/nowhere", "--level", "full"],
            "there is no such directory",
        ),
        (
            ["--assertions", CHECKS, "--level", "check"],
            "asked at level full only",
        ),
    ] {
        lab.xdb(&[&["restore-test"], &arguments[..]].concat())
            .failed(2, words);
    }
    assert_eq!(lab.xdb(&["restore-test", "--level", "half"]).code, 2);
}

#[test]
fn a_kept_test_can_be_started_and_the_next_one_leaves_it_alone() {
    let lab = Lab::setup(Program::Walrus).tmpfs(SCRATCH, "150m").start();
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    push(&lab);
    archive_marker(&lab, 1);
    let tested = Tested::of(lab.xdb(&["restore-test", "--json", "--keep", "--level", "start"]));
    tested.passed();
    let kept = tested.report["kept"].as_str().unwrap().to_owned();
    let marker = format!("jq -r '[.kept, .backup] | @tsv' {kept}/xdb-restore-test.json");
    let backup = tested.report["backup"].as_str().unwrap();
    assert_eq!(lab.ok(&marker), format!("true\t{backup}"));
    // No server runs there; one that somebody starts answers.
    assert_ne!(lab.sh(&format!("ls {kept}/data/postmaster.pid")).code, 0);
    let pg_ctl =
        format!("/usr/lib/postgresql/17/bin/pg_ctl -D {kept}/data -l {kept}/postgresql.log -w");
    let answer = lab.sh_as_postgres(&format!(
        "{pg_ctl} start >/dev/null && psql -XAth {kept}/socket -c \"{}\"; {pg_ctl} stop >/dev/null",
        markers("1")
    ));
    assert_eq!(answer.stdout.trim(), "t", "{answer:?}");

    let output = lab.xdb(&["restore-test", "--level", "start"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stderr.contains(&format!("rm -r {kept}")),
        "{output:?}"
    );
    assert_eq!(lab.sh(&format!("ls {kept}/data/PG_VERSION")).code, 0);
    // Where it takes the room, it is named.
    lab.ok(&format!("fallocate -l 60M {kept}/filler"));
    let output = lab.xdb(&["restore-test", "--level", "start"]);
    output.failed(4, "the restore needs");
    assert!(output.stderr.contains(&format!(
        "HINT: earlier tests were kept there, and take room: {kept};"
    )));
    lab.ok(&format!("rm -r {kept}"));
    lab.assert_nothing_left_behind();
}
