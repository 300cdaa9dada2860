//! Dumps beside sessions that lock and drop, and beside a replay that must go on.

use super::*;

const RETRIED: &str = "is tried again in";

fn psql<'a>(lab: &'a Lab, sql: &str) -> Background<'a> {
    lab.in_background(&[&format!("{PG}/psql"), "-Xq", "-c", sql])
}

/// A session that holds `table` until [`end_holders`].
fn hold<'a>(lab: &'a Lab, table: &str) -> Background<'a> {
    let holder = psql(
        lab,
        &format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(300)"),
    );
    let locked = format!(
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = '{table}'::regclass"
    );
    eventually("the table is locked", SOON, || {
        (lab.sql(&locked) == "1").then_some(())
    });
    holder
}

fn end_holders(lab: &Lab, holder: Background<'_>) {
    lab.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'",
    );
    holder.wait(SOON);
}

/// Whether a session waits to read `table`.
fn is_waited_for(lab: &Lab, table: &str) -> bool {
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'AccessShareLock' AND NOT granted"
    );
    lab.sql(&waits) == "1"
}

/// A table that is locked for longer than a dump takes, and one that is released after some attempts.
pub(super) fn a_locked_table_is_tried_again_until_the_time_is_up(lab: &Lab) {
    lab.sql("CREATE TABLE held AS SELECT 1 AS a");
    lab.config("[dump]\nlock_timeout = \"1s\"\ntimeout = \"6s\"");
    let holder = hold(lab, "held");
    let push = lab.xdb(&["dump", "push"]);
    push.failed(4, "cannot lock the table public.held");
    assert!(push.stderr.contains("lock timeout"), "{push:?}");
    assert!(push.stderr.contains(RETRIED), "{push:?}");
    let named = "of role postgres, application psql";
    assert!(
        push.stderr.contains(named) && push.stderr.contains("holds public.held"),
        "{push:?}"
    );
    nothing_is_left(lab);

    lab.config("[dump]\nlock_timeout = \"1s\"");
    let push = lab.xdb_in_background(&["dump", "push", "--database", "postgres"]);
    eventually("the dump waits", SOON, || {
        is_waited_for(lab, "held").then_some(())
    });
    eventually("the dump gave the table up", SOON, || {
        (!is_waited_for(lab, "held")).then_some(())
    });
    end_holders(lab, holder);
    let pushed = push.wait(SOON);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert!(pushed.stderr.contains(RETRIED), "{pushed:?}");
    lab.sql("DROP TABLE held");
    lab.ok(&format!("rm -rf {DUMPS}"));
    lab.config("");
}

/// Databases that are dropped and renamed while another one is dumped.
pub(super) fn a_database_that_is_gone_is_named(lab: &Lab) {
    lab.sql("CREATE DATABASE z_gone");
    lab.sql("CREATE DATABASE z_old");
    let push = push_in_the_middle(lab);
    lab.sql("DROP DATABASE z_gone");
    lab.sql("ALTER DATABASE z_old RENAME TO z_new");
    lab.remove_toxic("slow");
    let pushed = push.wait(SOON);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let list = listed(lab);
    let set = &list[0]["manifest"];
    let databases = set["databases"].as_array().unwrap();
    let names: Vec<&Value> = databases.iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["a_first", "postgres", "z_new"]);
    assert_eq!(set["partial"], json!(false));
    for gone in ["z_gone", "z_old"] {
        let left_out =
            json!({"database": gone, "what": "it was dropped or renamed while the set was made"});
        let all = set["left_out"].as_array().unwrap();
        assert!(all.contains(&left_out), "{set}");
    }
    lab.sql("DROP DATABASE z_new");
    lab.ok(&format!("rm -rf {DUMPS}"));
}

/// A table of many, which only `pg_dump` locks, is dropped while it waits for it.
pub(super) fn a_table_dropped_under_pg_dump_is_no_failure(lab: &Lab) {
    let gate = psql(lab, "SELECT pg_advisory_lock(9); SELECT pg_sleep(300)");
    let advisory = |filter: &str| {
        lab.sql(&format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {filter}"
        ))
    };
    eventually("the transaction will be held up", SOON, || {
        (advisory("granted") == "1").then_some(())
    });
    let drops = psql(
        lab,
        "BEGIN; DROP TABLE t9; SELECT pg_advisory_xact_lock(9); COMMIT",
    );
    eventually("the table is dropped", SOON, || {
        (advisory("NOT granted") == "1").then_some(())
    });
    let push = lab.xdb_in_background(&["dump", "push", "--json"]);
    eventually("pg_dump waits for it", SOON, || {
        is_waited_for(lab, "t9").then_some(())
    });
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()");
    gate.wait(SOON);
    drops.wait(SOON);
    let pushed = push.wait(SOON);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert!(
        pushed.stderr.contains(RETRIED) && pushed.stderr.contains("does not exist"),
        "{pushed:?}"
    );
    let set: Value = serde_json::from_str(&pushed.stdout).expect("JSON");
    let rows = set["databases"][0]["rows"].as_object().unwrap();
    assert!(rows.contains_key("public.t8") && !rows.contains_key("public.t9"));
}

/// Recovery conflicts end the dump on the standby until the primary's turn comes.
pub(super) fn conflicts_lead_to_the_primary(lab: &Lab) {
    let standby = |sql: &str| {
        let command = format!("{PG}/psql -p 5433 -XAtqc \"{sql}\"");
        lab.sh_as_postgres(&command).succeeded(sql)
    };
    standby("ALTER SYSTEM SET max_standby_streaming_delay = 0");
    standby("SELECT pg_reload_conf()");
    // Rows that are removed on the primary end each session that could still see them on the standby.
    lab.sql("CREATE TABLE churned (a int)");
    let vacuum = format!(
        "while {PG}/psql -Xqc 'INSERT INTO churned VALUES (1)' -c 'DELETE FROM churned' -c 'VACUUM churned'; do :; done"
    );
    let vacuums = lab.in_background(&["bash", "-c", &vacuum]);
    // No attempt is so fast that it slips through.
    lab.toxic(
        "late",
        json!({"type": "latency", "attributes": {"latency": 300}}),
    );
    let conflicts = || standby("SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts");
    let before = conflicts();
    let push = lab.xdb(&["dump", "push", "--json"]);
    assert_ne!(conflicts(), before, "there was no conflict");
    lab.remove_toxic("late");
    lab.sql("DROP TABLE churned");
    vacuums.wait(SOON);
    assert_eq!(push.code, 0, "{push:?}");
    assert!(push.stderr.contains("conflict"), "{push:?}");
    assert_eq!(push.stderr.matches(RETRIED).count(), 2, "{push:?}");
    let set: Value = serde_json::from_str(&push.stdout).expect("JSON");
    let databases = set["databases"].as_array().unwrap();
    let dumped = databases
        .iter()
        .find(|it| it["name"] == "postgres")
        .unwrap();
    assert_eq!(
        (&set["v"], &set["in_recovery"], &dumped["dumped_from"]),
        (&json!(2), &json!(true), &json!("127.0.0.1:5432"))
    );
    // The primary can read its unlogged table.
    assert_eq!(dumped["rows"]["public.unlogged"], json!(1));
    lab.xdb(&["dump", "test"]).succeeded("dump test");
    lab.ok(&format!("rm -rf {DUMPS}"));
}

/// A dump whose snapshot holds the replay up is cancelled, and the replay goes on.
pub(super) fn a_standby_that_falls_behind_ends_its_dump(lab: &Lab) {
    let standby = |sql: &str| {
        let command = format!("{PG}/psql -p 5433 -XAtqc \"{sql}\"");
        lab.sh_as_postgres(&command).succeeded(sql)
    };
    standby("ALTER SYSTEM SET max_standby_streaming_delay = -1");
    standby("SELECT pg_reload_conf()");
    lab.config("[postgres]\nport = 5433\n[dump]\nmax_lag_mib = 1");
    fill(lab, 40);
    eventually("the standby has it", SOON, || {
        (standby("SELECT count(*) FROM pg_largeobject_metadata") == "1").then_some(())
    });
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1000}}),
    );
    let push = lab.xdb_in_background(&["dump", "push"]);
    eventually("the database is being uploaded", SOON, || {
        (unfinished(lab) > 0).then_some(())
    });
    eventually("pg_dump holds the table", SOON, || {
        let held = "SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
                     WHERE relation = 'kept'::regclass AND application_name = 'xdb pg_dump'";
        (standby(held) == "t").then_some(())
    });
    lab.sql("BEGIN; LOCK TABLE kept; INSERT INTO kept SELECT generate_series(1, 30000); COMMIT");
    let ended = push.wait(SOON);
    ended.failed(4, "of WAL to replay, more than 1.0 MiB (dump.max_lag_mib)");
    lab.remove_toxic("slow");
    eventually("the replay goes on", SOON, || {
        (standby("SELECT count(*) > 30000 FROM kept") == "t").then_some(())
    });
    assert_eq!(stored(lab), "");
    // A part that was still on its way may arrive after the upload was given up: the next push removes it.
    lab.xdb(&["dump", "push"]).succeeded("the next push");
    lab.ok(&format!("rm -rf {DUMPS}"));
}
