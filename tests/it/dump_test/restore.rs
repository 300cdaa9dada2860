//! `xdb dump restore`: whole databases, tables and schemas, and every way in which a restore must leave nothing behind.

mod faults;

use serde_json::{Value, json};

use super::{ODD, database, in_database, keep_aside, keep_manifest, manifest, put_back, set};
use crate::harness::{Lab, Output, Program, Service, eventually};

/// A line break, and what libpq would read as a connection string.
const ODDER: &str = "new\nline=é";

fn restore(lab: &Lab, more: &[&str]) -> Output {
    let output = lab.xdb(&[&["dump", "restore"], more].concat());
    assert!(
        !format!("{output:?}").contains("SCRAM-SHA-256"),
        "{output:?}"
    );
    output
}

#[track_caller]
fn restored(lab: &Lab, more: &[&str]) -> Value {
    let output = restore(lab, &[more, &["--json"]].concat());
    let text = output.succeeded("dump restore");
    nothing_is_left(lab);
    serde_json::from_str(&text).expect("JSON")
}

/// The databases under names of xdb's own.
fn own_databases(lab: &Lab) -> String {
    lab.sql("SELECT datname FROM pg_database WHERE datname ~ '^xdb_re' ORDER BY 1")
}

#[track_caller]
fn nothing_is_left(lab: &Lab) {
    assert_eq!(own_databases(lab), "", "a database is left");
    lab.assert_nothing_left_behind();
}

fn databases(lab: &Lab) -> String {
    lab.sql("SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database")
}

fn drop_database(lab: &Lab, name: &str) {
    let name = name.replace('"', "\"\"");
    lab.sql(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
}

/// A database with what restores stumble over, and one whose role is gone from the server when it is restored.
fn fill_more(lab: &Lab) {
    lab.sql("CREATE DATABASE parts");
    lab.sql("CREATE DATABASE empty");
    lab.sql("CREATE DATABASE orphan");
    lab.sql(&format!("CREATE DATABASE \"{ODDER}\""));
    lab.sql("CREATE ROLE gone LOGIN PASSWORD 'secret of gone'; GRANT readers TO gone");
    in_database(
        lab,
        "orphan",
        "CREATE TABLE kept AS SELECT 1 AS a; ALTER TABLE kept OWNER TO gone",
    );
    in_database(
        lab,
        ODDER,
        "CREATE TABLE kept AS SELECT generate_series(1, 3) AS a",
    );
    lab.ok("head -c 6M /dev/urandom | base64 -w 76 >/tmp/wide && chmod a+r /tmp/wide");
    in_database(
        lab,
        "parts",
        r#"CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE TABLE events (at int, m mood, n serial) PARTITION BY RANGE (at);
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (5);
        CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (5) TO (10);
        CREATE INDEX ON events (at);
        INSERT INTO events SELECT i, 'good' FROM generate_series(0, 9) AS i;
        CREATE TABLE places (id int PRIMARY KEY);
        INSERT INTO places VALUES (1), (2);
        CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, place int REFERENCES places);
        INSERT INTO visits (place) SELECT 1 FROM generate_series(1, 7);
        CREATE SCHEMA "Odd ""schema""";
        CREATE TABLE "Odd ""schema"""."The Table" (a int UNIQUE);
        INSERT INTO "Odd ""schema"""."The Table" SELECT generate_series(1, 11);
        CREATE VIEW "Odd ""schema""".seen AS SELECT * FROM "Odd ""schema"""."The Table";
        CREATE TABLE large AS SELECT repeat('x', 200 << 20) AS value;
        CREATE TABLE aside (line text) TABLESPACE aside;
        COPY aside FROM '/tmp/wide';
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER live FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/var/run/postgresql', dbname 'postgres');
        CREATE USER MAPPING FOR postgres SERVER live;
        CREATE FOREIGN TABLE far (datname name) SERVER live OPTIONS (schema_name 'pg_catalog', table_name 'pg_database');
        CREATE MATERIALIZED VIEW from_far AS SELECT * FROM far;
        COMMENT ON DATABASE parts IS 'it''s; a "comment"';
        REVOKE CONNECT ON DATABASE parts FROM PUBLIC; GRANT CONNECT ON DATABASE parts TO app;
        ALTER DATABASE parts SET statement_timeout = '2s';
        ALTER DATABASE parts SET default_transaction_isolation = serializable;
        ALTER DATABASE parts OWNER TO app;
        ALTER ROLE app IN DATABASE parts SET work_mem = '5MB';
        ALTER DATABASE parts CONNECTION LIMIT 0"#,
    );
}

#[test]
fn a_dump_is_restored_beside_the_live_database_or_in_its_place() {
    let lab = Lab::setup(Program::Walrus)
        .tmpfs("/srv/tablespace", "40m")
        .start();
    super::fill(&lab);
    fill_more(&lab);
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    keep_aside(&lab);
    drop_database(&lab, "orphan");
    lab.sql("DROP ROLE gone");

    a_plan_changes_nothing(&lab);
    a_whole_database_comes_back_with_its_properties(&lab);
    tables_and_schemas_come_back_alone(&lab);
    missing_roles_are_named_made_or_done_without(&lab);
    what_the_server_lacks_is_refused(&lab);
    an_existing_database_is_replaced_at_the_end_only(&lab);
    another_server_is_named_by_a_url(&lab);
    sets_of_others_and_damaged_ones_are_refused(&lab);
    faults::each_leaves_nothing_under_any_name(&lab);
    a_standby_is_refused(&lab);
}

fn a_plan_changes_nothing(lab: &Lab) {
    let before = databases(lab);
    let plan = restore(lab, &["shop", "--plan"]).succeeded("--plan");
    for words in ["shop_restored on", "a new database", "1002 rows", "disk"] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    let plan = restore(lab, &["parts", "--plan", "--table", "events", "--json"]);
    let plan: Value = serde_json::from_str(&plan.succeeded("--plan")).unwrap();
    assert_eq!(
        (&plan["tables"], &plan["rows"]),
        (&json!(2), &json!(10)),
        "{plan}"
    );
    restore(lab, &["nope", "--plan"]).failed(3, "holds no database \"nope\"");
    let output = restore(lab, &["parts", "--table", "evnts"]);
    output.failed(3, "the dump holds no table evnts");
    assert!(output.stderr.contains("public.events"), "{output:?}");
    restore(lab, &["parts", "--schema", "Odd schema"]).failed(3, "no schema Odd schema");
    restore(lab, &["parts", "--table", "from_far"]).failed(3, "no table but a materialized view");
    restore(lab, &["parts", "--into", &"x".repeat(64)]).failed(3, "cannot be a database's name");
    assert_eq!(databases(lab), before);
}

fn a_whole_database_comes_back_with_its_properties(lab: &Lab) {
    let report = restored(lab, &["parts"]);
    assert_eq!(report["into"], "parts_restored");
    assert_eq!(report["checksum_verified"], true);
    let notes = report["notes"].to_string();
    assert!(notes.contains("public.from_far was not filled"), "{notes}");
    let properties = "SELECT datdba::regrole, datconnlimit, (SELECT string_agg(one::text, ' ' ORDER BY one::text) FROM unnest(datacl) AS one), shobj_description(oid, 'pg_database'),
        (SELECT string_agg(setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
        FROM pg_database AS d WHERE datname = ";
    let was = lab.sql(&format!("{properties} 'parts'"));
    assert_eq!(lab.sql(&format!("{properties} 'parts_restored'")), was);
    assert!(was.contains("app|0|") && was.contains("work_mem"), "{was}");
    let rows = "SET statement_timeout = 0;
        SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM ONLY events_2), (SELECT length(value) FROM large),
               (SELECT count(*) FROM \"Odd \"\"schema\"\"\".seen), nextval('visits_id_seq'), nextval('events_n_seq')";
    assert_eq!(
        in_database(lab, "parts_restored", rows),
        "10|5|209715200|11|8|11"
    );
    drop_database(lab, "parts_restored");

    for (name, rows) in [
        (ODD, "1000"),
        (ODDER, "3"),
        ("counted", "1000"),
        ("z_slow", "0"),
        ("empty", "0"),
    ] {
        let report = restored(lab, &[name, "--into", "copy=x y"]);
        assert_eq!(report["rows"].to_string(), rows, "{report}");
        drop_database(lab, "copy=x y");
    }
    let report = restored(lab, &["counted", "--schema-only"]);
    assert_eq!(
        (&report["rows"], &report["checksum_verified"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(
        in_database(lab, "counted_restored", "SELECT count(*) FROM orders"),
        "0"
    );
    let encoding =
        "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'counted_restored'";
    assert_eq!(lab.sql(encoding), "LATIN1");
    drop_database(lab, "counted_restored");
}

fn tables_and_schemas_come_back_alone(lab: &Lab) {
    let all = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace <> 'pg_catalog'::regnamespace AND relnamespace <> 'information_schema'::regnamespace";
    let tables = |name: &str| in_database(lab, name, &format!("SET statement_timeout = 0; {all}"));
    restored(lab, &["parts", "--table", "events", "--into", "one"]);
    assert_eq!(tables("one"), "events,events_1,events_2");
    let sql = "SET statement_timeout = 0; INSERT INTO events (at) VALUES (1) RETURNING n";
    assert_eq!(in_database(lab, "one", sql), "11");
    let indexes =
        "SET statement_timeout = 0; SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'events%'";
    assert_eq!(in_database(lab, "one", indexes), "3");
    drop_database(lab, "one");

    let report = restored(
        lab,
        &[
            "parts",
            "--table",
            "visits",
            "--table",
            r#"Odd "schema".The Table"#,
            "--into",
            "one",
        ],
    );
    assert_eq!(report["rows"], 18, "{report}");
    assert!(
        report["left_out"]
            .to_string()
            .contains("it needs public.places"),
        "{report}"
    );
    assert_eq!(tables("one"), "The Table,visits");
    let sql = "SET statement_timeout = 0; INSERT INTO visits (place) VALUES (99) RETURNING id";
    assert_eq!(in_database(lab, "one", sql), "8");
    drop_database(lab, "one");

    let report = restored(
        lab,
        &["parts", "--schema", r#"Odd "schema""#, "--into", "one"],
    );
    assert_eq!(
        (&report["tables"], &report["rows"]),
        (&json!(1), &json!(11)),
        "{report}"
    );
    let sql = r#"SET statement_timeout = 0; SELECT count(*) FROM "Odd ""schema""".seen"#;
    assert_eq!(in_database(lab, "one", sql), "11");
    drop_database(lab, "one");
}

fn missing_roles_are_named_made_or_done_without(lab: &Lab) {
    let before = databases(lab);
    restore(lab, &["orphan", "--into", "orphan"]).failed(3, "lacks roles: gone");
    assert_eq!(databases(lab), before);
    restored(lab, &["orphan", "--into", "orphan", "--no-owner"]);
    let owner = "SELECT relowner::regrole FROM pg_class WHERE relname = 'kept'";
    assert_eq!(in_database(lab, "orphan", owner), "postgres");

    lab.sql("ALTER ROLE app PASSWORD 'another'");
    let password = "SELECT md5(rolpassword) FROM pg_authid WHERE rolname = 'app'";
    let was = lab.sql(password);
    let report = restored(lab, &["orphan", "--globals"]);
    assert_eq!(report["roles_created"], json!(["gone"]), "{report}");
    assert_eq!(in_database(lab, "orphan_restored", owner), "gone");
    assert_eq!(lab.sql("SELECT pg_has_role('gone', 'readers', 'MEMBER') AND rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = 'gone'"), "t");
    assert_eq!(lab.sql(password), was, "a role that was there was changed");
    drop_database(lab, "orphan_restored");
    drop_database(lab, "orphan");
}

fn what_the_server_lacks_is_refused(lab: &Lab) {
    let before = databases(lab);
    let refused = |words: &str| {
        restore(lab, &["shop"]).failed(3, words);
        assert_eq!(databases(lab), before, "{words}");
    };
    let control = "/usr/share/postgresql/17/extension/amcheck.control";
    lab.ok(&format!("mv {control} /tmp/"));
    refused("lacks extensions: amcheck");
    lab.ok(&format!("mv /tmp/amcheck.control {control}"));

    let mut newer = manifest(lab);
    newer["server_version"] = json!(180_000);
    keep_manifest(lab, &newer);
    refused("older than the dump's 18");
    put_back(lab);

    let mut large = manifest(lab);
    database(&mut large, "shop")["database_bytes"] = json!(1_u64 << 50);
    keep_manifest(lab, &large);
    refused("a twentieth of the volume is left to the server");
    put_back(lab);
}

fn an_existing_database_is_replaced_at_the_end_only(lab: &Lab) {
    let (into, rows) = (&["shop", "--into", "shop"], "SELECT count(*) FROM orders");
    restore(lab, into).failed(3, "there is a database shop already");
    let clean = [&into[..], &["--clean"]].concat();
    in_database(
        lab,
        "shop",
        "SET default_transaction_read_only = off; DELETE FROM lines; DELETE FROM orders WHERE id > 10",
    );
    let session = lab.in_background(&[
        "env",
        "PGDATABASE=shop",
        "/usr/lib/postgresql/17/bin/psql",
        "-c",
        "SELECT pg_sleep(600)",
    ]);
    eventually("a session is there", super::SOON, || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'";
        (lab.sql(count) == "1").then_some(())
    });
    let output = restore(lab, &clean);
    output.failed(3, "1 sessions are connected to the database shop");
    assert!(output.stderr.contains("PAUSE shop"), "{output:?}");
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'");
    session.wait(super::SOON);
    assert_eq!(in_database(lab, "shop", rows), "10");
    let report = restored(lab, &clean);
    assert_eq!(report["replaced"], true, "{report}");
    assert_eq!(in_database(lab, "shop", rows), "1000");
}

fn another_server_is_named_by_a_url(lab: &Lab) {
    lab.sql("CREATE ROLE owner SUPERUSER LOGIN PASSWORD 'pass:word'");
    let url = |password: &str| {
        format!("postgresql://owner:{password}@127.0.0.1:5432/postgres?sslmode=disable")
    };
    let output = restore(lab, &["counted", "--target", &url("wrong%3Aone")]);
    assert!(
        output.code == 4 && !output.stderr.contains("wrong"),
        "{output:?}"
    );
    let output = restore(lab, &["counted", "--target", "mysql://owner:pass@far"]);
    assert!(
        output.code == 2 && !output.stderr.contains("pass@"),
        "{output:?}"
    );
    let report = restored(lab, &["counted", "--target", &url("pass%3Aword")]);
    assert_eq!(report["server"], "127.0.0.1:5432");
    drop_database(lab, "counted_restored");

    // While this node's own server is away, the cluster's name says whose a set is.
    let mut foreign = manifest(lab);
    foreign["cluster"] = json!("other");
    keep_manifest(lab, &foreign);
    let target = url("pass%3Aword");
    let plan = || restore(lab, &["shop", "--no-owner", "--target", &target, "--plan"]);
    plan().succeeded("by its identifier it is this cluster's");
    lab.config("[postgres]\nport = 1");
    plan().failed(3, "holds no dump of this cluster");
    lab.config("");
    put_back(lab);
}

fn sets_of_others_and_damaged_ones_are_refused(lab: &Lab) {
    let (name, before) = (set(lab), databases(lab));
    let mut foreign = manifest(lab);
    foreign["system_identifier"] = json!(7);
    keep_manifest(lab, &foreign);
    restore(lab, &["shop"]).failed(3, "holds no dump of this cluster");
    let plan = restore(lab, &["shop", "--set", &name, "--plan"]).succeeded("--plan");
    assert!(plan.contains("is a dump of another cluster"), "{plan}");
    put_back(lab);

    let mut changed = manifest(lab);
    let shop = database(&mut changed, "shop");
    let file = super::file(shop);
    shop["rows"]["public.orders"] = json!(999);
    keep_manifest(lab, &changed);
    restore(lab, &["shop"]).failed(
        1,
        "public.orders was restored with 1000 rows, the manifest counts 999",
    );
    put_back(lab);
    // The last byte: all is restored when it is read.
    lab.ok(&format!(
        "printf X | dd of={file} bs=1 seek=$(($(stat -c %s {file}) - 1)) conv=notrunc status=none"
    ));
    restore(lab, &["shop"]).failed(1, "its SHA-256 differs");
    put_back(lab);
    lab.ok(&format!(
        "printf XXXX | dd of={file} bs=1 seek=0 conv=notrunc status=none"
    ));
    restore(lab, &["shop"]).failed(1, "does not begin as a dump");
    lab.ok(&format!("truncate -s -1 {file}"));
    let output = restore(lab, &["shop"]);
    output.failed(1, "its manifest says");
    assert!(
        !output.stderr.contains("prepare"),
        "something was written: {output:?}"
    );
    // Another database of the set is whole.
    restored(lab, &["counted"]);
    drop_database(lab, "counted_restored");
    put_back(lab);
    let path = format!("{}/{name}/manifest.json", super::DUMPS);
    lab.ok(&format!("truncate -s -100 {path}"));
    restore(lab, &["shop"]).failed(1, "its manifest cannot be read");
    restore(lab, &["shop", "--set", &name]).failed(1, "its manifest cannot be read");
    put_back(lab);
    nothing_is_left(lab);
    assert_eq!(databases(lab), before);
}

fn a_standby_is_refused(lab: &Lab) {
    let signal = "/var/lib/postgresql/17/main/standby.signal";
    lab.ok(&format!(
        "install -o postgres /dev/null {signal} && sv -w 60 restart postgres"
    ));
    eventually("the standby answers", super::SOON, || {
        let asked = lab.sh_as_postgres("psql -XAtqc 'SELECT pg_is_in_recovery()'");
        (asked.stdout.trim() == "t").then_some(())
    });
    restore(lab, &["shop"]).failed(3, "is a standby");
    lab.ok(&format!("rm {signal}"));
    lab.service("postgres", Service::Down);
}
