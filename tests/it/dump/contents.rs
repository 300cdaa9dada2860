//! What a dump set holds: databases of odd names, the globals, a standby's rows; and the memory that it takes.

use serde_json::{Value, json};

use super::{DUMPS, PG, SOON, fill, listed, push};
use crate::harness::{Lab, Program, eventually};

/// Quotes, a blank, a slash, letters beyond ASCII, and what libpq would read as a connection string.
const ODD: &str = r#"it's "odd"/dbname=é %"#;
const ODD_IN_SQL: &str = r#""it's ""odd""/dbname=é %""#;

#[test]
fn a_dump_restores_and_holds_the_rows_that_its_manifest_counts() {
    let lab = Lab::start(Program::Walrus);
    assert!(listed(&lab).is_empty());
    lab.sql(&format!("CREATE DATABASE {ODD_IN_SQL}"));
    lab.sql("CREATE ROLE app LOGIN PASSWORD 'secret of app'");
    let in_odd = |sql: &str| {
        let script = format!(
            r#"PGDATABASE={} {PG}/psql -XAtq -v ON_ERROR_STOP=1 -f -"#,
            shell(ODD)
        );
        lab.write_file("/tmp/in.sql", sql, "postgres:postgres", "0600");
        lab.sh_as_postgres(&format!("{script} </tmp/in.sql"))
            .succeeded(sql)
    };
    in_odd(
        r#"CREATE SCHEMA "Odd ""schema""";
        CREATE TABLE "Odd ""schema"""."the table" AS SELECT generate_series(1, 1000) AS a;
        CREATE TABLE parent (a int) PARTITION BY RANGE (a);
        CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (100);
        INSERT INTO parent SELECT generate_series(0, 41);
        CREATE TABLE base (a int); CREATE TABLE heir () INHERITS (base);
        INSERT INTO base VALUES (1); INSERT INTO heir VALUES (2), (3);
        CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
        CREATE TABLE owned (a int); ALTER TABLE owned OWNER TO app;
        CREATE MATERIALIZED VIEW seen AS SELECT * FROM base;"#,
    );

    let set = push(&lab);
    assert_eq!(
        (&set["v"], &set["cluster"], &set["in_recovery"]),
        (&json!(1), &json!("main"), &json!(false))
    );
    assert_eq!(
        set["system_identifier"].to_string(),
        lab.sql("SELECT system_identifier FROM pg_control_system()")
    );
    let databases = set["databases"].as_array().unwrap();
    let names: Vec<&str> = databases
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [ODD, "postgres"]);
    let odd = &databases[0];
    let rows = json!({
        r#""Odd ""schema"""."the table""#: 1000, "public.child": 42, "public.base": 1,
        "public.heir": 2, "public.unlogged": 1, "public.owned": 0,
    });
    assert_eq!(odd["rows"], rows);

    // The manifest tells the truth about the bytes.
    let path = |object: &Value| format!("/srv/s3/pgdump-test/{}", object["key"].as_str().unwrap());
    for object in databases.iter().chain([&set["globals"]]) {
        let file = shell(&path(object));
        assert_eq!(
            lab.ok(&format!("sha256sum <{file} | cut -d' ' -f1")),
            object["sha256"].as_str().unwrap()
        );
        assert_eq!(
            lab.ok(&format!("stat -c %s {file}")),
            object["bytes"].to_string()
        );
    }
    let globals = lab.ok(&format!("cat {}", path(&set["globals"])));
    assert!(globals.contains("CREATE ROLE app") && globals.contains("PASSWORD 'SCRAM-SHA-256"));

    // The restore, as a person would do it, and the same tables counted there.
    lab.sql("CREATE DATABASE again");
    lab.sh_as_postgres(&format!(
        "{PG}/pg_restore --exit-on-error --dbname=again {}",
        shell(&path(odd))
    ))
    .succeeded("pg_restore");
    for (table, rows) in odd["rows"].as_object().unwrap() {
        let count = format!("SELECT count(*) FROM ONLY {table}");
        lab.write_file("/tmp/count.sql", &count, "postgres:postgres", "0600");
        let counted = lab.sh_as_postgres(&format!("{PG}/psql -XAtq -d again -f /tmp/count.sql"));
        assert_eq!(counted.succeeded(&count), rows.to_string(), "{table}");
    }

    // Only what is named, and the list tells sets apart.
    let one = lab.xdb(&["dump", "push", "--database", ODD]);
    assert_eq!(one.code, 0, "{one:?}");
    assert!(one.stdout.contains("is in the bucket"), "{one:?}");
    lab.ok(&format!(
        "mkdir -p {DUMPS}/20200101T000000.000Z-db9 && echo x >{DUMPS}/20200101T000000.000Z-db9/app.dump"
    ));
    lab.ok(&format!("rm {}", shell(&path(odd))));
    let list = listed(&lab);
    let status: Vec<&str> = list
        .iter()
        .map(|it| it["status"].as_str().unwrap())
        .collect();
    assert_eq!(status, ["incomplete", "damaged", "complete"], "{list:?}");
    assert!(list[1]["reason"].as_str().unwrap().ends_with("is missing"));
    assert_eq!(list[2]["manifest"]["databases"][0]["name"], json!(ODD));
    let table = lab.xdb(&["dump", "list"]);
    for word in ["incomplete", "damaged", "complete", "is missing", ODD] {
        assert!(table.stdout.contains(word), "{table:?}");
    }
    judge_name_that_steers_a_terminal(&lab);
    lab.assert_nothing_left_behind();
}

/// A database's name that sets the title of the reader's terminal is printed, and its control characters are not.
fn judge_name_that_steers_a_terminal(lab: &Lab) {
    const STEERS: &str = "a\u{1b}]0;b\u{7}";
    lab.sql(&format!("CREATE DATABASE \"{STEERS}\""));
    let names = lab.sql("SELECT datname FROM pg_database");
    assert!(names.contains(STEERS), "{names:?}");
    let pushed = lab.xdb(&["dump", "push", "--database", STEERS]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let missing = lab.xdb(&["dump", "push", "--database", "no\u{1b}[31m"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    for said in [pushed, missing, lab.xdb(&["dump", "list"])] {
        let everything = format!("{}{}", said.stdout, said.stderr);
        assert!(everything.contains("\\u001b"), "{said:?}");
        let steers = |character: char| character.is_control() && !"\n\t".contains(character);
        assert!(!everything.contains(steers), "{said:?}");
    }
}

/// One word for bash.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn a_streaming_standby_is_dumped() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE kept AS SELECT generate_series(1, 500) AS a");
    // On a standby nobody can read it, so pg_dump leaves its rows out.
    lab.sql("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a");
    lab.sh_as_postgres(&format!(
        "PGPASSWORD=lab-password {PG}/pg_basebackup -h 127.0.0.1 -U postgres -D /tmp/standby -X stream -c fast -R &&
         echo 'port = 5433' >>/tmp/standby/postgresql.conf"
    ))
    .succeeded("pg_basebackup");
    lab.sh_as_postgres(&format!(
        "{PG}/pg_ctl -w -D /tmp/standby -l /tmp/standby.log start"
    ))
    .succeeded("the standby starts");
    lab.config("[postgres]\nport = 5433");
    lab.sql("INSERT INTO kept SELECT generate_series(501, 700)");
    eventually("the standby streams", SOON, || {
        let count = format!(
            "{PG}/psql -p 5433 -XAtqc 'SELECT count(*) FROM kept WHERE pg_is_in_recovery()'"
        );
        (lab.sh_as_postgres(&count).stdout.trim() == "700").then_some(())
    });

    let set = push(&lab);
    assert_eq!(set["in_recovery"], json!(true));
    let dump = &set["databases"][0];
    assert_eq!(dump["rows"], json!({"public.kept": 700}));
    lab.sql("CREATE DATABASE again");
    lab.sh_as_postgres(&format!(
        "{PG}/pg_restore --exit-on-error --dbname=again /srv/s3/pgdump-test/{}",
        dump["key"].as_str().unwrap()
    ))
    .succeeded("pg_restore");
    let counted = lab.sh_as_postgres(&format!(
        "{PG}/psql -XAtq -d again -c 'SELECT count(*) FROM kept' -c 'SELECT count(*) FROM unlogged'"
    ));
    assert_eq!(counted.succeeded("count"), "700\n0");
    // Restored it is no standby, and has the unlogged table; that is no difference.
    lab.xdb(&["dump", "test"]).succeeded("dump test");
    lab.sh_as_postgres(&format!("{PG}/pg_ctl -D /tmp/standby -m immediate stop"));
    lab.assert_nothing_left_behind();
}

#[test]
fn memory_stays_small_however_large_the_dump() {
    const MEBIBYTES: u32 = 320;
    let lab = Lab::start(Program::Walrus);
    fill(&lab, MEBIBYTES);
    let push = lab.xdb_in_background(&["dump", "push", "--json"]);
    let mut peak = 0;
    while push.is_running() {
        let status = lab.sh("cat /proc/$(pgrep -x xdb)/status");
        let peaked = status
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = peaked.and_then(|peaked| peaked.trim().strip_suffix(" kB"));
        peak = peak.max(kibibytes.map_or(0, |peaked| peaked.trim().parse().unwrap()));
    }
    let ended = push.wait(SOON);
    assert_eq!(ended.code, 0, "{ended:?}");
    let set: Value = serde_json::from_str(&ended.stdout).unwrap();
    let stored = set["databases"][0]["bytes"].as_u64().unwrap();
    assert!(stored > u64::from(MEBIBYTES) << 20, "{stored}");
    assert!(
        peak > 0 && peak < 100 << 10,
        "{peak} KiB for {stored} bytes"
    );
    lab.assert_nothing_left_behind();
}
