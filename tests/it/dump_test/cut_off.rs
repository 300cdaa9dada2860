//! What the tested copy must not reach, and what a test does not count: other servers, partial sets, background work.

use serde_json::{Value, json};

use super::{SOON, in_database, test, verdict};
use crate::harness::{Lab, Program, Service, eventually};

/// Databases that no dump holds, templates, and one whose views read the live server.
fn fill_with_oddities(lab: &Lab) {
    lab.sql("CREATE TABLE dialled (at timestamptz)");
    lab.sql(
        "CREATE FUNCTION dial() RETURNS int LANGUAGE sql AS 'INSERT INTO public.dialled VALUES (now()) RETURNING 1';
         CREATE VIEW door AS SELECT public.dial() AS a",
    );
    for name in ["closed", "far", "gold", "half_dropped", "limited", "other"] {
        lab.sql(&format!("CREATE DATABASE {name}"));
    }
    for name in ["gold", "other", "template1"] {
        in_database(
            lab,
            name,
            "CREATE TABLE kept AS SELECT generate_series(1, 3) AS a",
        );
    }
    in_database(
        lab,
        "far",
        "CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink;
         CREATE SERVER live FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/var/run/postgresql', dbname 'postgres');
         CREATE USER MAPPING FOR postgres SERVER live;
         CREATE FOREIGN TABLE door (a int) SERVER live;
         CREATE MATERIALIZED VIEW by_table AS SELECT * FROM door;
         CREATE MATERIALIZED VIEW on_view AS SELECT a + 1 AS b FROM by_table;
         CREATE MATERIALIZED VIEW by_function AS
             SELECT * FROM dblink('host=/var/run/postgresql dbname=postgres', 'SELECT public.dial()') AS t (a int);
         CREATE TABLE near AS SELECT generate_series(1, 7) AS a;
         CREATE MATERIALIZED VIEW own AS SELECT count(*) AS n FROM near",
    );
    // The mark says that `xdb dump restore` makes it; without the mark it is a person's.
    lab.sql("CREATE DATABASE xdb_restore_0123456789abcdef CONNECTION LIMIT 1323246620");
    lab.sql("CREATE DATABASE xdb_restore_fedcba9876543210");
    lab.sql("ALTER DATABASE gold IS_TEMPLATE true");
    lab.sql("ALTER DATABASE limited CONNECTION LIMIT 0");
    lab.sql("ALTER DATABASE closed ALLOW_CONNECTIONS false");
    lab.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'");
}

#[test]
fn a_test_reaches_no_other_server_and_names_what_no_dump_holds() {
    let lab = Lab::start(Program::Walrus);
    fill_with_oddities(&lab);
    let pushed = lab.xdb_json(&["dump", "push"]);
    let databases = pushed["databases"].as_array().unwrap();
    let names: Vec<&str> = databases
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "far",
            "gold",
            "limited",
            "other",
            "postgres",
            "template1",
            "xdb_restore_fedcba9876543210"
        ]
    );
    let copy = "xdb_restore_0123456789abcdef";
    assert!(!pushed.to_string().contains(copy), "{pushed}");
    assert_eq!(pushed["partial"], json!(false));
    let left_out = pushed["left_out"].to_string();
    let list = lab.xdb(&["dump", "list"]);
    for words in [
        "closed",
        "half_dropped",
        "rows of foreign tables, which are on other servers: public.door",
    ] {
        assert!(left_out.contains(words), "{words}: {left_out}");
        assert!(list.stdout.contains(words), "{words}: {list:?}");
    }

    // Each of the views dialled when it was made, and so it would again.
    let dialled = || lab.sql("SELECT count(*) FROM dialled");
    let before = dialled();
    assert_ne!(before, "0");
    let report = test(&lab, &[], 0, "");
    assert_eq!(dialled(), before, "the live server was dialled: {report}");
    for name in &names {
        let name = format!("database: {name}");
        assert_eq!(verdict(&report, &name), ("ok", ""), "{report}");
    }
    assert_eq!(report["network"], json!("none"));
    assert_eq!(report["left_out"], pushed["left_out"]);
    let notes = report["notes"].to_string();
    for view in ["by_table", "on_view", "by_function"] {
        assert!(
            notes.contains(&format!("materialized view public.{view} was not filled")),
            "{notes}"
        );
    }
    assert!(!notes.contains("public.own"), "{notes}");

    what_dials_while_rows_are_restored_is_no_verdict(&lab);
    a_partial_dump_neither_counts_nor_hides_the_full_one(&lab);
    a_restore_test_reaches_no_other_server(&lab, &before);
}

fn what_dials_while_rows_are_restored_is_no_verdict(lab: &Lab) {
    in_database(
        lab,
        "other",
        "CREATE EXTENSION dblink;
         CREATE FUNCTION asked() RETURNS boolean LANGUAGE sql AS
             $$ SELECT count(*) > 0 FROM public.dblink('host=/var/run/postgresql dbname=postgres', 'SELECT 1') AS t (a int) $$;
         CREATE TABLE checked (a int CHECK (asked())); INSERT INTO checked VALUES (1)",
    );
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    let report = test(
        lab,
        &[],
        4,
        "it needs another server, and a test reaches none",
    );
    assert_eq!(verdict(&report, "database: other").0, "unknown", "{report}");
    assert_eq!(
        verdict(&report, "database: postgres"),
        ("ok", ""),
        "{report}"
    );
    in_database(lab, "other", "DROP TABLE checked");
}

fn a_partial_dump_neither_counts_nor_hides_the_full_one(lab: &Lab) {
    let full = lab.xdb_json(&["dump", "push"]);
    let partial = lab.xdb_json(&["dump", "push", "--database", "postgres"]);
    assert_eq!(partial["partial"], json!(true));
    let is_listed = || {
        let list = lab.xdb_json(&["dump", "list"]);
        let newest = list.as_array().unwrap().last().unwrap();
        assert_eq!(newest["set"], partial["set"]);
        assert_eq!(
            (&newest["status"], &newest["partial"]),
            (&json!("complete"), &json!(true))
        );
        let table = lab.xdb(&["dump", "list"]);
        assert!(table.stdout.contains("  partial "), "{table:?}");
    };
    is_listed();
    let tested = test(lab, &[], 0, "");
    assert_eq!(tested["set"], full["set"]);
    let by_name = test(lab, &["--set", partial["set"].as_str().unwrap()], 0, "");
    assert_eq!(by_name["set"], partial["set"]);
    let published = lab.ok("cat /srv/s3/walg-test/xdb/main/jobs/dump-test.json");
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(published["detail"]["set"], full["set"]);
    let status = lab.xdb(&["status"]);
    assert!(
        status.stdout.contains(full["set"].as_str().unwrap()),
        "{status:?}"
    );
    assert!(status.stdout.contains("partial and newer"), "{status:?}");

    // As an older xdb wrote them, without a mark.
    for set in [&full, &partial] {
        let mut manifest = set.clone();
        manifest.as_object_mut().unwrap().remove("partial");
        let key = format!(
            "pgdump-test/main/{}/manifest.json",
            set["set"].as_str().unwrap()
        );
        lab.put_object(&key, &manifest.to_string());
    }
    is_listed();
    let tested = test(lab, &[], 0, "");
    assert_eq!(tested["set"], full["set"]);
}

fn a_restore_test_reaches_no_other_server(lab: &Lab, before: &str) {
    lab.xdb(&["backup", "push"]).succeeded("backup push");
    let answer = |query: &str| {
        lab.xdb(&[
            "restore-test",
            "--json",
            "--level",
            "start",
            "--database",
            "far",
            "--sql",
            query,
        ])
    };
    for query in [
        "SELECT count(*) > 0 FROM public.door",
        "SELECT count(*) > 0 FROM public.dblink('host=127.0.0.1 password=lab-password user=postgres', 'SELECT public.dial()') AS t (a int)",
    ] {
        let output = answer(query);
        assert_ne!(output.code, 0, "{output:?}");
        assert!(
            ["Network is unreachable", "could not", "has no handler"]
                .iter()
                .any(|words| output.stdout.contains(words)),
            "{output:?}"
        );
        let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(report["conditions"]["network"], json!("none"), "{output:?}");
    }
    assert_eq!(answer("SELECT count(*) = 7 FROM public.near").code, 0);
    assert_eq!(lab.sql("SELECT count(*) FROM dialled"), before);
    lab.assert_nothing_left_behind();
}

#[test]
fn an_extension_that_must_be_preloaded_is_restored_and_does_nothing_there() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE DATABASE shop");
    lab.ok(
        "printf '%s\\n' \"shared_preload_libraries = 'pg_cron'\" \"cron.database_name = 'shop'\" \
         \"cron.host = '/var/run/postgresql'\" >>/var/lib/postgresql/17/main/postgresql.conf",
    );
    lab.service("postgres", Service::Down);
    lab.service("postgres", Service::Up);
    in_database(
        &lab,
        "shop",
        "CREATE EXTENSION pg_cron; CREATE TABLE ticks (at timestamptz);
         SELECT cron.schedule('tick', '1 seconds', 'INSERT INTO public.ticks VALUES (now())')",
    );
    let ticks = || in_database(&lab, "shop", "SELECT count(*) > 1 FROM ticks");
    eventually("the job runs in the live server", SOON, || {
        (ticks() == "t").then_some(())
    });
    lab.xdb(&["dump", "push"]).succeeded("dump push");
    // Each row is counted: a job that runs in the copy would make another one.
    let report = test(&lab, &[], 0, "");
    assert_eq!(verdict(&report, "database: shop"), ("ok", ""), "{report}");

    let library = "/usr/lib/postgresql/17/lib/pg_cron.so";
    lab.ok(&format!("mv {library} /tmp/"));
    let report = test(&lab, &[], 4, "this node lacks what it needs");
    assert_eq!(verdict(&report, "database: shop").0, "unknown", "{report}");
    assert_eq!(
        verdict(&report, "database: postgres"),
        ("ok", ""),
        "{report}"
    );
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("this node lacks what its server preloads") && notes.contains("pg_cron"),
        "{report}"
    );
    lab.ok(&format!("mv /tmp/pg_cron.so {library}"));

    // Without the live server its settings are not known either: no verdict on the dump.
    lab.service("postgres", Service::Down);
    test(&lab, &[], 4, "this node lacks what it needs");
    lab.service("postgres", Service::Up);
}
