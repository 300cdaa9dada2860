//! Dumps beside sessions that write, truncate and lock, of many tables and of large ones.

use super::*;

#[test]
fn counts_are_of_the_snapshot_while_rows_are_written() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE written AS SELECT generate_series(1, 100) AS a");
    lab.sql("CREATE TABLE emptied AS SELECT generate_series(1, 100) AS a");
    let write = "DO $$ BEGIN FOR i IN 1..100000 LOOP INSERT INTO written VALUES (i); DELETE FROM emptied WHERE a = i; COMMIT; PERFORM pg_sleep(0.001); END LOOP; END $$";
    let writer = lab.in_background(&[&format!("{PG}/psql"), "-Xq", "-c", write]);
    eventually("rows are written", SOON, || {
        (lab.sql("SELECT count(*) > 200 FROM written") == "t").then_some(())
    });
    let before: u64 = lab.sql("SELECT count(*) FROM written").parse().unwrap();
    let set = push(&lab);
    let after: u64 = lab.sql("SELECT count(*) FROM written").parse().unwrap();
    assert!(
        writer.is_running() && before < after,
        "nothing was written meanwhile"
    );
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'");
    writer.wait(SOON);

    let dump = &set["databases"][0];
    lab.sql("CREATE DATABASE again");
    lab.sh_as_postgres(&format!(
        "{PG}/pg_restore --exit-on-error --dbname=again /srv/s3/pgdump-test/{}",
        dump["key"].as_str().unwrap()
    ))
    .succeeded("pg_restore");
    for table in ["public.written", "public.emptied"] {
        let counted = lab.sh_as_postgres(&format!(
            "{PG}/psql -XAtq -d again -c 'SELECT count(*) FROM {table}'"
        ));
        let counted = counted.succeeded("count");
        assert_eq!(counted, dump["rows"][table].to_string(), "{table}");
    }
    let rows = dump["rows"]["public.written"].as_u64().unwrap();
    assert!((before..=after).contains(&rows), "{before} {rows} {after}");

    // A table that is locked is truncated, and filled again, before the snapshot is taken.
    let set = push_while_truncated(&lab, "emptied");
    assert_eq!(set["databases"][0]["rows"]["public.emptied"], json!(7));
    assert!(!set["left_out"].to_string().contains("truncated"), "{set}");
}

/// Pushes a dump of `postgres` that waits for a transaction: it truncated `table`, and put 7 rows into it.
fn push_while_truncated(lab: &Lab, table: &str) -> Value {
    let psql = |sql: &str| lab.in_background(&[&format!("{PG}/psql"), "-Xq", "-c", sql]);
    let locks = |filter: &str| lab.sql(&format!("SELECT count(*) FROM pg_locks WHERE {filter}"));
    let held = psql("SELECT pg_advisory_lock(7); SELECT pg_sleep(300)");
    eventually("the transaction is held up", SOON, || {
        (locks("locktype = 'advisory' AND granted") == "1").then_some(())
    });
    let truncates = psql(&format!(
        "BEGIN; TRUNCATE {table}; INSERT INTO {table} SELECT generate_series(1, 7); SELECT pg_advisory_xact_lock(7); COMMIT"
    ));
    eventually("the table is truncated", SOON, || {
        (locks("locktype = 'advisory' AND NOT granted") == "1").then_some(())
    });
    let push = lab.xdb_in_background(&["dump", "push", "--database", "postgres", "--json"]);
    eventually("the dump waits for it", SOON, || {
        let waits =
            format!("relation = '{table}'::regclass AND mode = 'AccessShareLock' AND NOT granted");
        (locks(&waits) == "1").then_some(())
    });
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()");
    held.wait(SOON);
    truncates.wait(SOON);
    let pushed = push.wait(SOON).succeeded("dump push");
    serde_json::from_str(&pushed).expect("JSON")
}

#[test]
fn memory_stays_small_however_large_the_dump() {
    const MEBIBYTES: u32 = 320;
    let lab = Lab::start(Program::Walrus);
    fill(&lab, MEBIBYTES);
    // One value that is as large as all that xdb may take twice over.
    lab.sql("CREATE TABLE huge AS SELECT repeat('x', 200 * 1024 * 1024) AS a");
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
    let dump = &set["databases"][0];
    assert_eq!(dump["rows"]["public.huge"], json!(1));
    let large = json!({"number": 1, "bytes": u64::from(MEBIBYTES) << 20});
    assert_eq!(dump["large_objects"], large);
    assert!(
        peak > 0 && peak < 100 << 10,
        "{peak} KiB for {stored} bytes"
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn a_dump_takes_no_more_locks_than_pg_dump() {
    const TABLES: u32 = 1500;
    let lab = Lab::start(Program::Walrus);
    lab.write_file(
        "/tmp/many.sql",
        &format!(
            "SELECT pg_catalog.format('CREATE TABLE t%s (a int PRIMARY KEY)', i) FROM generate_series(1, {TABLES}) AS i \\gexec
             INSERT INTO t7 SELECT generate_series(1, 5);"
        ),
        "postgres:postgres",
        "0600",
    );
    lab.sh_as_postgres(&format!(
        "{PG}/psql -Xq -v ON_ERROR_STOP=1 -f /tmp/many.sql >/dev/null"
    ))
    .succeeded("tables");
    // As default settings are for thousands of tables: room for those that pg_dump locks, and not for their indexes, too.
    lab.sql("ALTER SYSTEM SET max_locks_per_transaction = 10");
    lab.service("postgres", Service::Down);
    lab.service("postgres", Service::Up);
    lab.sh_as_postgres(&format!("{PG}/pg_dump -Fc >/dev/null"))
        .succeeded("pg_dump alone");
    let both = format!(
        "BEGIN; {} SELECT count(*) FROM pg_locks;",
        (1..=TABLES)
            .map(|i| format!("SELECT count(*) FROM t{i};"))
            .collect::<String>()
    );
    lab.write_file("/tmp/both.sql", &both, "postgres:postgres", "0600");
    let full = lab.sh_as_postgres(&format!(
        "{PG}/psql -Xq -v ON_ERROR_STOP=1 -f /tmp/both.sql"
    ));
    assert!(full.stderr.contains("out of shared memory"), "{full:?}");

    let set = push(&lab);
    let rows = set["databases"][0]["rows"].as_object().unwrap();
    assert_eq!(rows.len(), TABLES as usize);
    assert_eq!(
        (&rows["public.t7"], &rows["public.t8"]),
        (&json!(5), &json!(0))
    );

    // pg_dump locks the tables after its snapshot, as ever: what it lost so is named.
    let set = push_while_truncated(&lab, "t7");
    let lost = "truncated or rewritten while the dump began: public.t7";
    assert!(set["left_out"].to_string().contains(lost), "{set}");
    assert_eq!(set["databases"][0]["rows"]["public.t7"], json!(0));

    manners::a_table_dropped_under_pg_dump_is_no_failure(&lab);

    // A table that another session holds is said to be locked, though pg_dump alone asks for it.
    lab.config("[dump]\nlock_timeout = \"1s\"\ntimeout = \"5s\"");
    let hold = "BEGIN; LOCK TABLE t7; SELECT pg_sleep(300)";
    let holder = lab.in_background(&[&format!("{PG}/psql"), "-Xq", "-c", hold]);
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 't7'::regclass";
    eventually("the table is locked", SOON, || {
        (lab.sql(locked) == "1").then_some(())
    });
    let push = lab.xdb(&["dump", "push"]);
    push.failed(4, "cannot lock the tables of database \"postgres\"");
    assert!(push.stderr.contains("holds public.t7"), "{push:?}");
    lab.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'",
    );
    holder.wait(SOON);
    lab.assert_nothing_left_behind();
}
