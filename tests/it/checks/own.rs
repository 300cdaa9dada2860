//! Checks that an operator defines in /etc/xdb/checks.

use std::time::{Duration, Instant};

use super::{SOON, assert_check, check, lab};
use crate::harness::{Lab, eventually};

#[test]
fn an_operators_own_checks_are_run_with_deadlines_and_cannot_write() {
    let lab = lab();
    lab.ok("mkdir -p /etc/xdb/checks");
    let own = |name: &str, text: &str| {
        let path = format!("/etc/xdb/checks/{name}.toml");
        let text = format!("title = 't'\nkind = 'sql'\nwarning = 10\ncritical = 20\n{text}\n");
        lab.write_file(&path, &text, "root:postgres", "0640");
    };
    own(
        "own",
        "query = \"VALUES ('a', 5), ('b', 15), ('c', 25), ('d', NULL)\"",
    );
    assert_check(&lab, "own", 4, "unknown", "no column");
    own("own", "query = 'SELECT 1 AS value WHERE false'");
    assert_check(&lab, "own", 4, "unknown", "the answer has no row");
    own(
        "own",
        "no_rows = 'ok'\nquery = 'SELECT 1 AS value WHERE false'",
    );
    assert_check(&lab, "own", 0, "ok", "");
    own("own", "query = \"SELECT 'NaN'::float8 AS value\"");
    assert_check(&lab, "own", 4, "unknown", "the value is NaN");
    own(
        "own",
        "[[query]]\nfrom_version = 99\nsql = 'SELECT 1 AS value'",
    );
    assert_check(&lab, "own", 4, "unknown", "no query for PostgreSQL 17");
    own(
        "own",
        "unit = 'x'\nquery = \"SELECT * FROM (VALUES ('a', 5), ('b', 15), ('c', 25), ('d', NULL)) AS v (object, value)\"",
    );
    let (findings, said) = check(&lab, &["own"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        findings,
        [
            "own a ok",
            "own b warning",
            "own c critical",
            "own d unknown"
        ]
    );

    own("slow", "query = 'SELECT pg_sleep(60) AS value'");
    let begin = Instant::now();
    assert_check(&lab, "slow", 4, "unknown", "statement timeout");
    assert!(begin.elapsed() < Duration::from_secs(15));
    own(
        "locked",
        "query = 'SELECT count(*) AS value FROM public.locked'",
    );
    lab.sql("CREATE TABLE public.locked ()");
    let _lock = lab.in_background(&[
        "psql",
        "-Xc",
        "BEGIN; LOCK TABLE public.locked; SELECT pg_sleep(60)",
    ]);
    eventually("the table is locked", SOON, || {
        (lab.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'public.locked'::regclass") == "1").then_some(())
    });
    assert_check(&lab, "locked", 4, "unknown", "timeout");
    own("writes", "query = 'CREATE TABLE public.written ()'");
    assert_check(&lab, "writes", 4, "unknown", "read-only transaction");
    own(
        "rows",
        "query = 'SELECT g AS value, g::text AS object FROM pg_catalog.generate_series(1, 10000) AS g'",
    );
    assert_check(&lab, "rows", 4, "unknown", "more than 1000 rows");
    // What one query leaves in its session reaches no other: it would hold back VACUUM, or change what the other returns.
    own(
        "begins",
        "query = \"BEGIN; SET statement_timeout = 0; SELECT 5 AS value\"",
    );
    own(
        "follows",
        "query = \"SELECT CASE pg_catalog.current_setting('statement_timeout') WHEN '5s' THEN 5 ELSE 25 END AS value\"",
    );
    lab.ok("rm /etc/xdb/checks/slow.toml /etc/xdb/checks/locked.toml");
    let (findings, said) = check(&lab, &[]);
    for name in ["begins", "follows"] {
        let is_ok = |finding: &String| finding.starts_with(name) && finding.ends_with(" ok");
        assert!(findings.iter().any(is_ok), "{name}: {said:?}");
    }
    own(
        "elsewhere",
        "role = 'replica'\nquery = 'SELECT 99 AS value'",
    );
    let said = lab.xdb(&["check", "elsewhere"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("elsewhere runs on the replica only"),
        "{said:?}"
    );

    own("wrong", "query = 'SELECT 1 AS value'\nwarnings = 1");
    let said = lab.xdb(&["check"]);
    assert_eq!(said.code, 2, "{said:?}");
    let place = "/etc/xdb/checks/wrong.toml:6: there is no key warnings";
    assert!(said.stderr.contains(place), "{said:?}");
    // The others are made all the same.
    assert!(said.stdout.contains("\nfollows "), "{said:?}");
    let files = ["wrong", "own"].map(|name| format!("/etc/xdb/checks/{name}.toml"));
    let lint = lab.xdb(&["check", "--lint", &files[0], &files[1]]);
    assert_eq!(lint.code, 2, "{lint:?}");
    assert!(
        lint.stderr.contains(place) && lint.stdout.contains("own.toml: ok"),
        "{lint:?}"
    );
    // An override that is broken leaves the packaged check.
    own("xid-age", "query = ");
    let said = lab.xdb(&["check", "xid-age"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.contains("template1"), "{said:?}");
    a_query_in_each_database(&lab);
}

/// What hangs or fails in one database leaves the others judged.
fn a_query_in_each_database(lab: &Lab) {
    lab.ok("rm /etc/xdb/checks/*.toml");
    for name in ["fine", "hangs", "fails", "closed"] {
        lab.sql(&format!("CREATE DATABASE {name}"));
    }
    lab.sql("ALTER DATABASE closed CONNECTION LIMIT 0");
    lab.write_file(
        "/etc/xdb/checks/each.toml",
        "title = 't'\nkind = 'sql'\ndatabases = 'each'\nwarning = 10\nquery = '''
         SELECT CASE current_database() WHEN 'hangs' THEN (SELECT 1 FROM pg_sleep(60)) WHEN 'fails' THEN 1 / (random() * 0)::int
                ELSE 5 END AS value, 'a' AS object'''\n",
        "root:postgres",
        "0640",
    );
    lab.sql("CREATE ROLE seer LOGIN PASSWORD 'lab-password' IN ROLE pg_monitor");
    lab.config("[postgres]\nuser = \"seer\"\nhost = \"127.0.0.1\"\npassword = \"lab-password\"");
    let (findings, said) = check(lab, &["each"]);
    let expected = [
        "each closed unknown",
        "each fails unknown",
        "each fine/a ok",
        "each hangs unknown",
        "each postgres/a ok",
    ];
    assert_eq!(findings, expected, "{said:?}");
    for words in [
        "division by zero",
        "statement timeout",
        "too many connections",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
    lab.config("");
    // The packaged ones of this kind name the database of what they find.
    let in_fine = |sql: &str| {
        let said = lab.sh_as_postgres(&format!("psql -Xqd fine -c \"{sql}\""));
        said.succeeded(sql)
    };
    in_fine("CREATE TABLE public.t (id serial); CREATE UNIQUE INDEX unready ON public.t (id)");
    in_fine("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.unready'::regclass");
    in_fine("SELECT setval('public.t_id_seq', 2100000000)");
    lab.sql("ALTER DATABASE closed CONNECTION LIMIT -1");
    assert_check(lab, "invalid-indexes", 1, "warning", "fine/public.unready");
    let words = "at 2100000000 of 2147483647";
    assert_check(lab, "sequences", 1, "critical", words);
}
