//! What a test cannot look at is named, is never called bad, and keeps nothing else from being looked at.

use serde_json::Value;

use super::{Tested, archive_marker, backed_up, push, restore_test};
use crate::harness::{Lab, Program, Service};

fn verification<'a>(tested: &'a Tested, name: &str) -> (&'a str, &'a str) {
    let all = tested.report["verifications"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name}: {}", tested.report));
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("verdict"), text("reason"))
}

#[track_caller]
fn named(tested: &Tested, name: &str, verdict: &str, words: &[&str]) {
    let (found, reason) = verification(tested, name);
    assert_eq!(found, verdict, "{name}: {reason}");
    for words in words {
        assert!(
            reason.contains(words),
            "{words:?} is not in {name}: {reason}"
        );
    }
}

fn psql(lab: &Lab, database: &str, sql: &str) -> String {
    lab.write_file("/tmp/script.sql", sql, "postgres:postgres", "0600");
    let psql = format!("psql -XAtq -v ON_ERROR_STOP=1 -d {database} -f /tmp/script.sql");
    lab.sh_as_postgres(&psql).succeeded(sql)
}

#[test]
fn databases_that_cannot_be_entered_and_bytes_of_any_kind_end_no_test() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("ALTER SYSTEM SET max_prepared_transactions = 5");
    lab.service("postgres", Service::Down);
    lab.service("postgres", Service::Up);
    for database in ["half", "parked", "shop"] {
        lab.sql(&format!("CREATE DATABASE {database}"));
    }
    lab.sql("CREATE DATABASE legacy TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    psql(
        &lab,
        "legacy",
        r"SET client_encoding = 'SQL_ASCII';
          CREATE TABLE names (id int PRIMARY KEY, name text);
          INSERT INTO names VALUES (1, E'caf\xe9');
          DO $$ BEGIN
            EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, t text)', convert_from('\x636166e9', 'SQL_ASCII'));
            EXECUTE format('INSERT INTO %I VALUES (1, E''\xff''), (2, NULL)', convert_from('\x636166e9', 'SQL_ASCII'));
          END $$;",
    );
    let bytes = psql(
        &lab,
        "legacy",
        "SET client_encoding = 'SQL_ASCII'; SELECT encode(convert_to(name, 'SQL_ASCII'), 'hex') FROM names",
    );
    assert_eq!(bytes, "636166e9");
    psql(
        &lab,
        "parked",
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS id",
    );
    lab.sql("ALTER DATABASE parked ALLOW_CONNECTIONS false");
    lab.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half'");
    for database in ["half", "parked"] {
        assert_ne!(
            lab.sh_as_postgres(&format!("psql -d {database} -c ''"))
                .code,
            0
        );
    }
    psql(
        &lab,
        "shop",
        "CREATE TABLE big AS SELECT convert_to(repeat('x', 540 * 1024 * 1024), 'UTF8') AS b, NULL::bytea AS c;
         UPDATE big SET c = b;
         CREATE TABLE waits (id int PRIMARY KEY);
         BEGIN; INSERT INTO waits VALUES (1); LOCK TABLE waits IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'it''s half done'",
    );
    lab.sql("ALTER DATABASE shop SET default_transaction_read_only = on");
    // A child elsewhere: to read it is to log in there.
    psql(
        &lab,
        "postgres",
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER live FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere', dbname 'postgres');
         CREATE USER MAPPING FOR postgres SERVER live;
         CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         CREATE FOREIGN TABLE far (id int NOT NULL) INHERITS (parent) SERVER live OPTIONS (table_name 'child');
         INSERT INTO parent VALUES (1);
         INSERT INTO child SELECT generate_series(1, 100)",
    );
    assert_ne!(lab.sh_as_postgres("psql -c 'SELECT FROM parent'").code, 0);
    backed_up(&lab, 1);
    let tested = restore_test(
        &lab,
        &[
            "--sql",
            "SELECT count(*) = 101 FROM (SELECT FROM ONLY public.parent UNION ALL SELECT FROM public.child) AS x",
        ],
    );
    tested.passed();
    named(
        &tested,
        "tables",
        "warning",
        &[
            "half: an interrupted DROP DATABASE",
            "parked allows no connections",
        ],
    );
    named(
        &tested,
        "amcheck",
        "warning",
        &[
            "half: an interrupted DROP DATABASE",
            "parked allows no connections",
        ],
    );
    named(
        &tested,
        "row_counts",
        "unknown",
        &["half", "parked", "its name is not UTF-8"],
    );
    named(&tested, "databases", "warning", &["half"]);
    named(
        &tested,
        "prepared_transactions",
        "warning",
        &["shop: it's half done was rolled back"],
    );
    assert_eq!(tested.report["conclusion"], "passed");
    let unseen = tested.report["not_looked_at"].as_array().unwrap();
    let is_half = |one: &Value| one["verification"] == "tables" && one["object"] == "half";
    assert!(unseen.iter().any(is_half), "{unseen:?}");
    // What is asked of another server is not answered by it.
    let far = [
        "--level",
        "start",
        "--sql",
        "SELECT count(*) = 100 FROM public.far",
    ];
    let tested = restore_test(&lab, &far);
    tested.not_passed(4, "has no handler");

    // In a database that allows no connections damage is found, too.
    psql(
        &lab,
        "shop",
        "SET default_transaction_read_only = off; DROP TABLE big",
    );
    let file = lab.sql("SELECT 'base/' || oid FROM pg_database WHERE datname = 'parked'");
    lab.sql("ALTER DATABASE parked ALLOW_CONNECTIONS true");
    let table = psql(
        &lab,
        "parked",
        "CHECKPOINT; SELECT pg_relation_filepath('t')",
    );
    assert!(table.starts_with(&file), "{table}");
    lab.sql("ALTER DATABASE parked ALLOW_CONNECTIONS false");
    lab.service("postgres", Service::Down);
    let path = format!("/var/lib/postgresql/17/main/{table}");
    lab.ok(&format!(
        "printf y | dd of={path} bs=1 seek=8170 conv=notrunc status=none"
    ));
    lab.service("postgres", Service::Up);
    push(&lab);
    archive_marker(&lab, 2);
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "parked: public.t: ERROR: invalid page");
    named(&tested, "tables", "critical", &["not looked at: half"]);
}

#[test]
fn what_the_node_lacks_and_what_fails_by_itself_is_unknown_for_that_object_alone() {
    let lab = Lab::start(Program::Walrus);
    psql(
        &lab,
        "postgres",
        "CREATE EXTENSION hstore;
         CREATE TABLE with_hstore AS SELECT 'a=>1'::hstore AS h;
         CREATE TABLE keyed AS SELECT generate_series(1, 100) AS id;
         CREATE FUNCTION helper(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
         CREATE FUNCTION key_of(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.helper($1); END';
         CREATE INDEX by_key ON keyed (key_of(id));
         -- As before PostgreSQL 17, where a function of an index found what search_path led it to.
         CREATE OR REPLACE FUNCTION key_of(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN helper($1); END';
         CREATE DATABASE french",
    );
    lab.sql("UPDATE pg_database SET datcollate = 'xx_YY.UTF-8', datctype = 'xx_YY.UTF-8' WHERE datname = 'french'");
    let refused = lab.sh_as_postgres("psql -d french -c ''");
    assert!(
        refused.stderr.contains("locale is incompatible"),
        "{refused:?}"
    );
    backed_up(&lab, 1);
    let backup = lab.xdb_json(&["backup", "list"])[0]["name"].clone();
    restore_test(&lab, &["--level", "start"]).passed();
    lab.ok("mv /usr/lib/postgresql/17/lib/hstore.so /tmp/");
    let tested = restore_test(&lab, &[]);
    tested.not_passed(4, "this node lacks what it needs");
    assert_eq!(tested.report["conclusion"], "incomplete");
    assert!(tested.report["rto_secs"].as_f64() > Some(0.0));
    named(
        &tested,
        "tables",
        "unknown",
        &[
            "french: this node lacks",
            "xx_YY.UTF-8",
            "postgres: public.with_hstore: this node lacks",
            "hstore",
        ],
    );
    named(
        &tested,
        "amcheck",
        "unknown",
        &[
            "french: this node lacks",
            "postgres: public.by_key: the index is sound",
            "helper(integer) does not exist",
        ],
    );
    named(
        &tested,
        "databases",
        "warning",
        &[
            "postgres: this node lacks the library $libdir/hstore of the extension hstore",
            "french",
        ],
    );
    assert_eq!(tested.verdict("checksums"), "ok");
    let shown = lab.xdb(&["restore-test", "--level", "check"]);
    assert!(
        shown.stdout.contains("INCOMPLETE: restore test"),
        "{shown:?}"
    );

    // It is kept as what it is, and speaks neither for the backup nor against it.
    let history = lab.xdb(&["restore-test", "history"]);
    assert!(history.stdout.contains("incomplete"), "{history:?}");
    let listed = lab.xdb_json(&["backup", "list"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["status"]),
        (&backup, &Value::from("complete"))
    );

    // A restore says the same, and is none the worse for it.
    let restored = lab.xdb(&["restore", "--target-dir", "/var/lib/postgresql/restored"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    for words in ["xx_YY.UTF-8", "$libdir/hstore of the extension hstore"] {
        assert!(restored.stderr.contains(words), "{restored:?}");
    }
}
