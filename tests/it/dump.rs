//! `xdb dump push` and `xdb dump list`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Background, Lab, Program, Service, eventually};

mod locks;
mod manners;
mod prune;
mod s3_faults;

const SOON: Duration = Duration::from_secs(60);
const DUMPS: &str = "/srv/s3/pgdump-test/main";
/// Quotes, a blank, a slash, letters beyond ASCII, and what libpq would read as a connection string.
const ODD: &str = r#"it's "odd"/dbname=é %"#;
const ODD_IN_SQL: &str = r#""it's ""odd""/dbname=é %""#;
const PG: &str = "/usr/lib/postgresql/17/bin";

fn push(lab: &Lab) -> Value {
    lab.xdb_json(&["dump", "push"])
}

fn listed(lab: &Lab) -> Vec<Value> {
    let list = lab.xdb_json(&["dump", "list"]);
    list.as_array().expect("an array").clone()
}

/// What is stored below the repository, seen from outside.
fn stored(lab: &Lab) -> String {
    lab.ok(&format!("! test -d {DUMPS} || find {DUMPS} -type f"))
}

fn nothing_is_left(lab: &Lab) {
    lab.assert_nothing_left_behind();
    assert_eq!(stored(lab), "", "objects of a failed set are left");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'xdb%'";
    eventually("xdb's sessions end", SOON, || {
        (lab.sql(sessions) == "0").then_some(())
    });
}

/// Rows that do not compress, so that a dump takes more than one part.
fn fill(lab: &Lab, mebibytes: u32) {
    lab.ok(&format!(
        "head -c {mebibytes}M /dev/urandom >/tmp/random && chmod a+r /tmp/random"
    ));
    lab.sql("SELECT lo_import('/tmp/random')");
}

/// The uploads of the second database that S3 holds unfinished.
fn unfinished(lab: &Lab) -> usize {
    let listing = lab.ok(
        "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key 'http://127.0.0.1:7070/pgdump-test?uploads='",
    );
    listing.matches("/postgres.dump</Key>").count()
}

/// Begins a push whose first database is stored, and whose second one is in the middle of its upload.
fn push_in_the_middle(lab: &Lab) -> Background<'_> {
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1000}}),
    );
    let push = lab.xdb_in_background(&["dump", "push"]);
    eventually("the second database is being uploaded", SOON, || {
        (unfinished(lab) > 0 && stored(lab).contains("/a_first.dump")).then_some(())
    });
    push
}

/// Ends the only session that is as `condition` says, once it is there.
fn end_session(lab: &Lab, condition: &str) {
    let end =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {condition}");
    eventually(condition, SOON, || (lab.sql(&end) == "1").then_some(()));
}

/// A small database that comes before the one with `mebibytes` of random data.
fn two_databases(lab: &Lab, mebibytes: u32) {
    lab.sql("CREATE DATABASE a_first");
    fill(lab, mebibytes);
}

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
    judge_name_of_two_lines(&lab);
    judge_tables_that_are_too_large_to_count(&lab);
    lab.assert_nothing_left_behind();
}

/// A set with estimates, which no older xdb can read, passes its test, and says what was not compared.
fn judge_tables_that_are_too_large_to_count(lab: &Lab) {
    lab.config("[dump]\ncount_up_to_mib = 0");
    let set = lab.xdb_json(&["dump", "push", "--database", ODD]);
    let dump = &set["databases"][0];
    assert_eq!(
        (&set["v"], &dump["rows"]["public.owned"]),
        (&json!(2), &json!(0))
    );
    let table = r#""Odd ""schema"""."the table""#;
    assert!(dump["rows"].get(table).is_none(), "{dump}");
    assert!(dump["estimated_rows"].get(table).is_some(), "{dump}");
    lab.config("");
    let name = set["set"].as_str().unwrap();
    let report = lab.xdb_json(&["dump", "test", "--set", name]);
    let all = report["verifications"].as_array().unwrap();
    let named = format!("not compared: {ODD}");
    let missing = all.iter().find(|it| it["name"] == named.as_str()).unwrap();
    assert_eq!(missing["verdict"], "unknown");
    let reason = missing["reason"].as_str().unwrap();
    assert!(reason.contains("1000 were restored"), "{reason}");
}

/// A newline in the names of a database and of a table.
fn judge_name_of_two_lines(lab: &Lab) {
    const LINES: &str = "two\nlines = one name";
    lab.sql(&format!("CREATE DATABASE \"{LINES}\""));
    let sql = format!("CREATE TABLE \"{LINES}\" AS SELECT generate_series(1, 3) AS a");
    lab.write_file("/tmp/in.sql", &sql, "postgres:postgres", "0600");
    lab.sh_as_postgres(&format!(
        "PGDATABASE={} {PG}/psql -Xq -v ON_ERROR_STOP=1 -f /tmp/in.sql",
        shell(LINES)
    ))
    .succeeded(&sql);
    let set = lab.xdb_json(&["dump", "push", "--database", LINES]);
    let rows = json!({ format!("public.\"{LINES}\""): 3 });
    assert_eq!(set["databases"][0]["rows"], rows);
    lab.xdb(&["dump", "test", "--set", set["set"].as_str().unwrap()])
        .succeeded("dump test");
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
fn a_dump_that_cannot_be_made_says_why_and_leaves_nothing() {
    let lab = Lab::start(Program::Walrus);
    let push = || lab.xdb(&["dump", "push"]);
    lab.config("[postgres]\npassword = \"wrong\"");
    push().failed(4, "password authentication failed");
    lab.config("[postgres]\nbin_directory = \"/usr/lib/postgresql/99/bin\"");
    push().failed(4, "there is no program");
    // pg_dump itself, which only thinks that it is older.
    lab.ok(&format!(
        "mkdir /tmp/older && cp -s {PG}/* /tmp/older/ && rm /tmp/older/pg_dump && \
         perl -pe 's/PostgreSQL\\) \\K17|(?<![\\w.])17(?=\\.\\d+ \\(Debian)/16/g' {PG}/pg_dump >/tmp/older/pg_dump && chmod 755 /tmp/older/pg_dump"
    ));
    assert!(lab.ok("/tmp/older/pg_dump --version").contains("16."));
    lab.config("[postgres]\nbin_directory = \"/tmp/older\"");
    push().failed(4, "cannot dump a server of version 17");
    lab.config("[dump]\nrepository = \"s3://nowhere/main\"");
    push().failed(4, "no such bucket");
    lab.config("[dump]\nrepository = \"s3://pgdump-{account}/{cluster}\"");
    push().failed(2, "{account} is not known");
    lab.xdb(&["dump", "list"]).failed(2, "dump.repository");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    push().failed(4, "access denied");
    lab.xdb(&["dump", "list"]).failed(4, "access denied");
    lab.config("[node]\nstate_directory = \"/nowhere\"");
    push().failed(4, "cannot use the lock");
    lab.config("");
    for name in ["nope", "template1"] {
        lab.xdb(&["dump", "push", "--database", name])
            .failed(2, "there is no database");
    }
    // Who may not read the roles' password hashes fails last, when all databases are stored.
    lab.sql("CREATE ROLE reader LOGIN PASSWORD 'reader' IN ROLE pg_monitor");
    lab.config("[postgres]\nuser = \"reader\"\npassword = \"reader\"");
    push().failed(1, "pg_dumpall of the globals failed");
    lab.config("");
    lab.proxy_enabled(false);
    push().failed(4, "S3 does not answer");
    lab.proxy_enabled(true);
    lab.service("postgres", Service::Down);
    push().failed(4, "cannot connect to PostgreSQL");
    lab.service("postgres", Service::Up);
    nothing_is_left(&lab);
    assert_eq!(push().code, 0);
}

#[test]
fn a_failed_database_fails_the_set() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);

    manners::a_locked_table_is_tried_again_until_the_time_is_up(&lab);
    manners::a_database_that_is_gone_is_named(&lab);

    // pg_dump killed, its session killed, and the deadline: each in the middle of the second database.
    let push = push_in_the_middle(&lab);
    eventually("pg_dump is killed", SOON, || {
        (lab.sh("pkill -KILL -x pg_dump").code == 0).then_some(())
    });
    let ended = push.wait(SOON);
    ended.failed(1, "pg_dump of database \"postgres\" failed");
    assert!(ended.stderr.contains("SIGKILL"), "{ended:?}");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);

    let push = push_in_the_middle(&lab);
    end_session(&lab, "application_name = 'xdb pg_dump'");
    push.wait(SOON)
        .failed(1, "pg_dump of database \"postgres\" failed");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);

    lab.config("[dump]\ntimeout = \"6s\"");
    let push = push_in_the_middle(&lab);
    push.wait(SOON).failed(4, "it was not done after 6 s");
    lab.remove_toxic("slow");
    nothing_is_left(&lab);
    assert!(listed(&lab).is_empty());

    lab.config("");
    // xdb's own session, which holds the snapshot, once pg_dump reads in it.
    let push = push_in_the_middle(&lab);
    end_session(
        &lab,
        "application_name = 'xdb' AND datname = 'postgres' AND backend_xmin IS NOT NULL AND EXISTS (
            SELECT FROM pg_stat_activity AS dump WHERE dump.application_name = 'xdb pg_dump'
            AND dump.backend_xmin IS NOT NULL AND clock_timestamp() - dump.query_start > '2 s')",
    );
    lab.remove_toxic("slow");
    // pg_dump has joined the snapshot and locked what it reads, so the dump is exact. What was to be asked at the end is not known.
    let said = push.wait(SOON);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("the values of sequences are not in the manifest"),
        "{said:?}"
    );
    lab.xdb(&["dump", "test"]).succeeded("dump test");
    lab.assert_nothing_left_behind();
}

#[test]
fn s3_cut_in_the_middle_of_an_upload_leaves_nothing_after_the_next_push() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);
    let push = push_in_the_middle(&lab);
    lab.proxy_enabled(false);
    let ended = push.wait(Duration::from_secs(120));
    ended.failed(4, "S3 does not answer");
    assert!(
        unfinished(&lab) > 0 && stored(&lab).contains("/a_first.dump"),
        "with S3 away nothing can be removed"
    );
    assert!(
        ended.stderr.contains("for the next push to remove"),
        "{ended:?}"
    );
    lab.proxy_enabled(true);
    lab.remove_toxic("slow");
    assert_eq!(listed(&lab)[0]["status"], json!("incomplete"));

    s3_faults::each_tenth_of_an_upload_may_be_the_last(&lab);
    s3_faults::a_refused_part_fails_the_set(&lab);
    let set = s3_faults::a_storm_of_503_is_weathered(&lab);
    let list = listed(&lab);
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(
        (&list[0]["set"], &list[0]["status"]),
        (&set["set"], &json!("complete"))
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn a_killed_push_is_cleaned_up_by_the_next() {
    let lab = Lab::start(Program::Walrus);
    let kept = push(&lab);
    two_databases(&lab, 40);
    let push = push_in_the_middle(&lab);
    push.signal("KILL");
    assert_eq!(push.wait(SOON).code, 137);
    eventually("pg_dump died with xdb", SOON, || {
        (lab.sh("pgrep -x pg_dump").code == 1).then_some(())
    });
    assert!(
        unfinished(&lab) > 0,
        "the upload is left, as after any kill -9"
    );
    lab.remove_toxic("slow");
    assert_eq!(listed(&lab)[1]["status"], json!("incomplete"));

    let next = self::push(&lab);
    let sets: Vec<Value> = listed(&lab).iter().map(|it| it["set"].clone()).collect();
    assert_eq!(sets, [kept["set"].clone(), next["set"].clone()]);
    lab.assert_nothing_left_behind();
}

#[test]
fn an_interrupted_push_cleans_up_itself() {
    let lab = Lab::start(Program::Walrus);
    two_databases(&lab, 40);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let push = push_in_the_middle(&lab);
        let processes = lab.ok("ps axww -o args");
        assert!(
            processes.contains("/pg_dump --format=custom"),
            "{processes}"
        );
        assert!(!processes.contains("lab-password"), "{processes}");
        // And one at a time.
        lab.xdb(&["dump", "push"])
            .failed(3, "another dump is being pushed");
        push.signal(signal);
        let ended = push.wait(SOON);
        assert_eq!((ended.code, ended.stderr.as_str()), (code, ""));
        lab.remove_toxic("slow");
        nothing_is_left(&lab);
    }
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
    // Replacing a database by what lacks rows of it would lose them.
    let lacks = "rows of unlogged tables";
    assert!(set["left_out"].to_string().contains(lacks), "{set}");
    let primary = "postgresql://postgres:lab-password@127.0.0.1:5432/postgres?sslmode=disable";
    let replace = ["dump", "restore", "postgres", "--into", "again", "--clean"];
    let output = lab.xdb(&[&replace[..], &["--target", primary]].concat());
    output.failed(3, "lacks rows of postgres");
    let count = format!("{PG}/psql -XAtq -d again -c 'SELECT count(*) FROM kept'");
    assert_eq!(lab.sh_as_postgres(&count).succeeded("count"), "700");
    // Restored it is no standby, and has the unlogged table; that is no difference.
    lab.xdb(&["dump", "test"]).succeeded("dump test");
    lab.ok(&format!("rm -rf {DUMPS}"));
    manners::conflicts_lead_to_the_primary(&lab);
    manners::a_standby_that_falls_behind_ends_its_dump(&lab);
    lab.sh_as_postgres(&format!("{PG}/pg_ctl -D /tmp/standby -m immediate stop"));
    lab.assert_nothing_left_behind();
}
