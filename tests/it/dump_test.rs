//! `xdb dump test`: dumps restored for real, and every way in which one is not what its manifest says.

mod cut_off;
mod encryption;
mod restore;
mod verify;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Background, Lab, Program, SCRATCH, eventually};

const SOON: Duration = Duration::from_secs(60);
const DUMPS: &str = "/srv/s3/pgdump-test/main";
const PG: &str = "/usr/lib/postgresql/17/bin";
/// Quotes, a blank, a slash, letters beyond ASCII, and what libpq would read as a connection string.
const ODD: &str = r#"it's "odd"/dbname=é %"#;

/// A dump test's report, and that it ended so.
#[track_caller]
fn test(lab: &Lab, more: &[&str], code: i32, words: &str) -> Value {
    let output = lab.xdb(&[&["dump", "test", "--json"], more].concat());
    assert_eq!(output.code, code, "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(report["passed"], json!(code == 0), "{output:?}");
    if code != 0 {
        output.failed(code, words);
        assert!(
            report["reason"].as_str().unwrap().contains(words),
            "{output:?}"
        );
    }
    assert!(
        !format!("{output:?}").contains("SCRAM-SHA-256"),
        "{output:?}"
    );
    lab.assert_nothing_left_behind();
    report
}

fn verdict<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let all = report["verifications"].as_array().expect("verifications");
    let found = all.iter().find(|verification| verification["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name}: {report}"));
    let reason = found["reason"].as_str().unwrap_or_default();
    (found["verdict"].as_str().unwrap(), reason)
}

fn in_database(lab: &Lab, database: &str, sql: &str) -> String {
    lab.write_file("/tmp/in.sql", sql, "postgres:postgres", "0600");
    let psql = format!("{PG}/psql -XAtq -v ON_ERROR_STOP=1 -f /tmp/in.sql");
    let script = format!("PGDATABASE={} {psql}", shell(database));
    lab.sh_as_postgres(&script).succeeded(sql)
}

/// One word for bash.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The only set in the bucket: its folder's name.
fn set(lab: &Lab) -> String {
    lab.ok(&format!("ls {DUMPS}"))
}

fn manifest(lab: &Lab) -> Value {
    let text = lab.ok(&format!("cat {DUMPS}/*/manifest.json"));
    serde_json::from_str(&text).expect("JSON")
}

fn keep_manifest(lab: &Lab, manifest: &Value) {
    let path = format!("pgdump-test/main/{}/manifest.json", set(lab));
    lab.put_object(&path, &manifest.to_string());
}

fn database<'a>(manifest: &'a mut Value, name: &str) -> &'a mut Value {
    let all = manifest["databases"].as_array_mut().unwrap();
    all.iter_mut().find(|it| it["name"] == name).unwrap()
}

/// The file of what a manifest names.
fn file(object: &Value) -> String {
    shell(&format!(
        "/srv/s3/pgdump-test/{}",
        object["key"].as_str().unwrap()
    ))
}

/// Makes the manifest agree with the bytes that are there: what is wrong is in the dump alone.
fn agree(lab: &Lab, object: &mut Value) {
    let file = file(object);
    object["sha256"] = json!(lab.ok(&format!("sha256sum <{file} | cut -d' ' -f1")));
    object["bytes"] = lab.ok(&format!("stat -c %s {file}")).parse().unwrap();
}

fn keep_aside(lab: &Lab) {
    lab.ok(&format!("rm -rf /tmp/whole && cp -a {DUMPS} /tmp/whole"));
}

fn put_back(lab: &Lab) {
    lab.ok(&format!("rm -rf {DUMPS} && cp -a /tmp/whole {DUMPS}"));
}

/// Databases with what dumps stumble over; the last one takes a while to read on a slow link.
fn fill(lab: &Lab) {
    lab.ok("install -d -o postgres -m 0700 /srv/tablespace");
    lab.sql("CREATE TABLESPACE aside LOCATION '/srv/tablespace'");
    lab.sql(
        "CREATE ROLE app LOGIN PASSWORD 'secret of app'; CREATE ROLE readers; GRANT readers TO app",
    );
    lab.sql("ALTER ROLE app SET statement_timeout = '1s'");
    for name in ["shop", "cut", "swapped", "z_slow"] {
        lab.sql(&format!("CREATE DATABASE {name}"));
    }
    lab.sql(r#"CREATE DATABASE "it's ""odd""/dbname=é %""#);
    lab.sql("CREATE DATABASE counted ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let orders = "CREATE TABLE orders (id int PRIMARY KEY, who text);
        INSERT INTO orders SELECT i, 'customer ' || i FROM generate_series(1, 1000) AS i;
        CREATE SEQUENCE numbers; SELECT nextval('numbers'), nextval('numbers');
        ALTER TABLE orders OWNER TO app;";
    in_database(
        lab,
        "shop",
        &format!(
            "{orders} CREATE TABLE lines (id int REFERENCES orders) TABLESPACE aside; INSERT INTO lines VALUES (1);
             CREATE MATERIALIZED VIEW seen AS SELECT * FROM orders; CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
             GRANT SELECT ON orders TO readers; CREATE EXTENSION amcheck;
             ALTER DATABASE shop SET default_transaction_read_only = on"
        ),
    );
    for name in ["counted", "cut", ODD] {
        in_database(lab, name, orders);
    }
    lab.ok("head -c 2M /dev/urandom >/tmp/random && chmod a+r /tmp/random");
    in_database(lab, "z_slow", "SELECT lo_import('/tmp/random')");
}

/// Begins a test whose last database is being read from S3.
fn in_the_middle(lab: &Lab) -> Background<'_> {
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 100}}),
    );
    let test = lab.xdb_in_background(&["dump", "test", "--json"]);
    let databases = format!("ls {SCRATCH}/run-*/data/base | wc -l");
    eventually("the last database is being restored", SOON, || {
        let made: u32 = lab.sh(&databases).stdout.trim().parse().ok()?;
        // Three that initdb made, and all of the dump's but postgres and this one.
        (made >= 8 && lab.sh("pgrep -x pg_restore").code == 0).then_some(())
    });
    test
}

#[test]
fn a_dump_counts_only_when_it_was_restored() {
    let lab = Lab::setup(Program::Walrus).tmpfs(SCRATCH, "400m").start();
    test(&lab, &[], 4, "holds no finished dump");
    fill(&lab);
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    let live = "find /srv/tablespace -printf '%p %i %T@\n' | sort";
    let before = lab.ok(live);

    let report = test(&lab, &[], 0, "");
    assert_eq!(report["set"], json!(set(&lab)));
    assert_eq!(
        report["system_identifier"].to_string(),
        lab.sql("SELECT system_identifier FROM pg_control_system()")
    );
    assert!(report["bytes"].as_u64() > Some(2_000_000) && report["secs"].as_f64() > Some(0.0));
    for name in [
        "set",
        "globals",
        "database: shop",
        &format!("database: {ODD}"),
    ] {
        assert_eq!(verdict(&report, name), ("ok", ""), "{report}");
    }
    assert_eq!(lab.ok(live), before, "the live tablespace was touched");
    let published = lab.ok("cat /srv/s3/walg-test/xdb/main/jobs/dump-test.json");
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(published["detail"]["set"], report["set"]);

    keep_aside(&lab);
    verify::each_object_is_read_and_compared(&lab);
    each_database_that_is_not_as_dumped_has_its_own_reason(&lab);
    what_a_database_holds_besides_its_rows_is_compared(&lab);
    what_the_listing_shows_is_found_before_anything_is_restored(&lab);
    what_this_node_lacks_is_no_verdict(&lab);
    s3_cut_is_no_verdict_and_a_killed_test_is_cleaned_up_by_the_next(&lab);
    encryption::only_a_right_key_reads_a_dump(&lab);
}

fn each_database_that_is_not_as_dumped_has_its_own_reason(lab: &Lab) {
    let mut manifest = manifest(lab);
    let dump = |database: &str, more: &str, object: &Value| {
        let pg_dump = format!("PGDATABASE={} {PG}/pg_dump -Fc {more}", shell(database));
        lab.sh_as_postgres(&format!("{pg_dump} >/tmp/other.dump"))
            .succeeded("pg_dump");
        lab.ok(&format!("cp /tmp/other.dump {}", file(object)));
    };
    // A table missing; a row more than was counted; a count that was changed; cut short; another database's.
    let shop = database(&mut manifest, "shop");
    dump("shop", "--exclude-table=public.unlogged", shop);
    agree(lab, shop);
    let odd = database(&mut manifest, ODD);
    in_database(lab, ODD, "INSERT INTO orders VALUES (1001, 'new')");
    dump(ODD, "", odd);
    in_database(lab, ODD, "DELETE FROM orders WHERE id = 1001");
    agree(lab, odd);
    database(&mut manifest, "counted")["rows"]["public.orders"] = json!(999);
    let cut = database(&mut manifest, "cut");
    lab.ok(&format!("truncate -s -1000 {}", file(cut)));
    agree(lab, cut);
    let swapped = database(&mut manifest, "swapped");
    dump("postgres", "", swapped);
    agree(lab, swapped);
    keep_manifest(lab, &manifest);

    let report = test(lab, &[], 1, "could not read from input file");
    for (name, words) in [
        (
            "database: shop",
            "public.unlogged is in the manifest and not in the dump",
        ),
        (
            &format!("database: {ODD}"),
            "public.orders was restored with 1001 rows, the manifest counts 1000",
        ),
        (
            "database: counted",
            "public.orders was restored with 1000 rows, the manifest counts 999",
        ),
        (
            "database: cut",
            "pg_restore: could not read from input file",
        ),
        (
            "database: swapped",
            "its dump holds a database of another name",
        ),
    ] {
        let (verdict, reason) = verdict(&report, name);
        assert_eq!(verdict, "critical", "{name}: {report}");
        assert!(reason.contains(words), "{name}: {report}");
    }
    assert_eq!(verdict(&report, "database: z_slow"), ("ok", ""), "{report}");
    let listed = &lab.xdb_json(&["dump", "list"])[0];
    assert_eq!(listed["status"], "disproved", "{listed}");
    assert_eq!(listed["tested"]["passed"], json!(false), "{listed}");
    let shown = lab.xdb(&["dump", "list"]).stdout;
    assert!(shown.contains("disproved"), "{shown}");
    assert!(shown.contains("could not read from input file"), "{shown}");
    // It is the only set: there is no dump to count on.
    let status = lab.xdb(&["status", "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let evidence = &status["evidence"];
    assert_eq!(
        (&evidence["dump"], &evidence["dump_error"]),
        (&Value::Null, &Value::Null),
        "{evidence}"
    );
    put_back(lab);

    // The same size, other content: and without its roles no database is judged.
    let globals = file(&self::manifest(lab)["globals"]);
    lab.ok(&format!(
        "sed -i 's/^-- Roles/-- Rules/' {globals} && grep -q '^-- Rules' {globals}"
    ));
    let report = test(
        lab,
        &[],
        1,
        "globals.sql is not what was stored: its SHA-256 differs",
    );
    assert_eq!(
        report["verifications"].as_array().unwrap().len(),
        2,
        "{report}"
    );
    put_back(lab);
}

fn what_a_database_holds_besides_its_rows_is_compared(lab: &Lab) {
    let mut manifest = manifest(lab);
    assert!(
        manifest["pg_dump_version"]
            .as_str()
            .unwrap()
            .contains("17.")
    );
    assert!(
        manifest["server_version_text"]
            .as_str()
            .unwrap()
            .starts_with("17.")
    );
    for (name, field, value) in [
        ("shop", "/extensions/amcheck", json!("0.9")),
        ("cut", "/sequences/public.numbers/value", json!(3)),
        ("postgres", "/extensions/gone", json!("1")),
        ("z_slow", "/large_objects/number", json!(2)),
        ("swapped", "/estimated_rows", json!({"public.gone": 5})),
    ] {
        let database = database(&mut manifest, name);
        let (parent, field) = field.rsplit_once('/').unwrap();
        let parent = database.pointer_mut(parent).expect(name);
        parent[field] = value;
    }
    let default = r#"/collations/pg_catalog."default""#;
    let odd = database(&mut manifest, ODD).pointer_mut(default).unwrap();
    (odd["recorded"], odd["actual"]) = (json!("1"), json!("2"));
    // As an older xdb wrote it.
    let counted = database(&mut manifest, "counted").as_object_mut().unwrap();
    for field in [
        "lsn",
        "extensions",
        "collations",
        "sequences",
        "large_objects",
    ] {
        assert!(
            counted.remove(field).is_some_and(|it| !it.is_null()),
            "{field}"
        );
    }
    keep_manifest(lab, &manifest);
    let report = test(lab, &[], 1, "the manifest says the value 3");
    let odd = format!("collations: {ODD}");
    for (name, word, words) in [
        (
            "database: shop",
            "warning",
            "amcheck was restored in version 1.4, the manifest says 0.9",
        ),
        (
            "database: cut",
            "critical",
            "public.numbers was restored with the value 2, the manifest says the value 3",
        ),
        (
            "database: swapped",
            "critical",
            "public.gone is in the manifest and not in the dump",
        ),
        (
            "not compared: swapped",
            "unknown",
            "the manifest's estimate is 5",
        ),
        (
            "database: postgres",
            "critical",
            "the extension gone is in the manifest",
        ),
        (
            "database: z_slow",
            "critical",
            "1 large objects were restored, the manifest counts 2",
        ),
        (
            &odd,
            "warning",
            "sorts by version 2: indexes on text may miss rows",
        ),
        ("database: counted", "ok", ""),
        (
            "not compared: counted",
            "unknown",
            "the sequences, which the manifest does not name",
        ),
    ] {
        let (verdict, reason) = verdict(&report, name);
        assert_eq!(verdict, word, "{name}: {report}");
        assert!(reason.contains(words), "{name}: {report}");
    }
    put_back(lab);
}

fn what_the_listing_shows_is_found_before_anything_is_restored(lab: &Lab) {
    let object = file(database(&mut manifest(lab), "shop"));
    lab.ok(&format!("truncate -s -100 {object}"));
    let report = test(lab, &[], 1, "its manifest says");
    assert_eq!(report["steps"], json!([]), "something was restored");
    lab.ok(&format!("rm {object}"));
    test(lab, &[], 1, "shop.dump is missing");
    put_back(lab);
    test(
        lab,
        &["--set", "20200101T000000.000Z-db9"],
        4,
        "no dump set 20200101T000000.000Z-db9",
    );
}

fn what_this_node_lacks_is_no_verdict(lab: &Lab) {
    let control = "/usr/share/postgresql/17/extension/amcheck.control";
    lab.ok(&format!("mv {control} /tmp/"));
    assert_ne!(lab.sh(&format!("test -e {control}")).code, 0);
    let report = test(lab, &[], 4, "this node lacks what it needs");
    assert_eq!(verdict(&report, "database: shop").0, "unknown", "{report}");
    lab.ok(&format!("mv /tmp/amcheck.control {control}"));

    // The disk: too small at first sight; then too small, and nobody knows before.
    let filler = |left: &str| {
        let rest = format!("$(( $(stat -f -c '%a*%S' {SCRATCH}) - {left} ))");
        lab.ok(&format!("fallocate -l {rest} {SCRATCH}/filler"));
    };
    filler("(90<<20)");
    let output = lab.xdb(&["dump", "test"]);
    output.failed(4, "free, the restore needs");
    lab.ok(&format!("rm {SCRATCH}/filler"));
    let mut manifest = manifest(lab);
    for database in manifest["databases"].as_array_mut().unwrap() {
        database["database_bytes"] = Value::Null;
    }
    keep_manifest(lab, &manifest);
    filler("(70<<20)");
    let output = lab.xdb(&["dump", "test"]);
    output.failed(4, "the scratch disk became full");
    lab.ok(&format!("rm {SCRATCH}/filler"));
    lab.assert_nothing_left_behind();
    put_back(lab);
}

fn s3_cut_is_no_verdict_and_a_killed_test_is_cleaned_up_by_the_next(lab: &Lab) {
    let running = in_the_middle(lab);
    lab.proxy_enabled(false);
    let output = running.wait(SOON);
    output.failed(4, "S3 was lost while a dump was read");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["passed"], json!(false), "{report}");
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");
    lab.assert_nothing_left_behind();

    let running = in_the_middle(lab);
    lab.ok("pkill -KILL -x pg_restore");
    let output = running.wait(SOON);
    output.failed(4, "SIGKILL");
    lab.remove_toxic("slow");
    lab.assert_nothing_left_behind();

    let running = in_the_middle(lab);
    let busy = lab.xdb(&["dump", "test"]);
    busy.failed(3, "another restore is running");
    running.signal("KILL");
    assert_eq!(running.wait(SOON).code, 137);
    lab.remove_toxic("slow");
    lab.ok(&format!("ls {SCRATCH}/run-*/data/PG_VERSION"));
    let shown = lab.xdb(&["dump", "test", "--set", &set(lab)]);
    assert!(
        shown.stdout.starts_with("PASSED: dump test of"),
        "{shown:?}"
    );
    lab.assert_nothing_left_behind();
}
