//! Tablespaces: a restore test writes to no live one, and what can be restored comes back elsewhere.

use serde_json::json;

use super::{SOON, Tested, archive_marker, backed_up, push, restore_test};
use crate::harness::{Lab, Output, Program, SCRATCH, eventually, for_each_program};

const TARGET: &str = "/var/lib/postgresql/again";
/// Where a restored tablespace is moved to by hand.
const OWN: &str = "/srv/own";

for_each_program!(
    a_tablespace_comes_back_in_another_place_or_is_refused,
    a_tablespace_made_after_the_backup_leads_to_no_live_file,
);

/// Of what is written below, whatever of it is archived by then.
const PRECIOUS: &str = "SELECT count(*) = 101 AND max(a) - min(a) = 1093 FROM public.precious";

/// Every file of the live tablespaces, with what it holds.
fn live_files(lab: &Lab) -> String {
    lab.ok("find /srv/tablespace -printf '%p %i %m %T@ ' -type f -exec md5sum {} + -o -printf '\n' | sort")
}

fn tablespace(lab: &Lab, name: &str) {
    lab.ok(&format!(
        "install -d -o postgres -m 0700 /srv/tablespace /srv/tablespace/{name}"
    ));
    lab.sql(&format!(
        "CREATE TABLESPACE {name} LOCATION '/srv/tablespace/{name}'"
    ));
}

fn drop_tablespace(lab: &Lab, name: &str, table: &str) {
    lab.sql(&format!("DROP TABLE {table}"));
    lab.sql(&format!("DROP TABLESPACE {name}"));
}

fn restore(lab: &Lab, arguments: &[&str]) -> Output {
    lab.xdb(&[&["restore", "--target-dir", TARGET], arguments].concat())
}

fn a_tablespace_comes_back_in_another_place_or_is_refused(program: Program) {
    let lab = Lab::start(program);
    for name in ["aside", "bare", "dropped", "early"] {
        tablespace(&lab, name);
    }
    // Nobody else writes there.
    let options = "WITH (autovacuum_enabled = off) TABLESPACE aside";
    lab.sql(&format!(
        "CREATE TABLE precious {options} AS SELECT generate_series(1, 100) AS a"
    ));
    lab.sql("CREATE TABLE gone TABLESPACE dropped AS SELECT 1");
    lab.sql("CREATE TABLE long_gone TABLESPACE early AS SELECT 1");
    backed_up(&lab, 1);
    lab.sql("UPDATE precious SET a = a + 1000");
    drop_tablespace(&lab, "early", "long_gone");
    lab.config("[archive]\ndelta_max_steps = 2");
    let delta = push(&lab);
    assert!(delta.contains("_D_"), "{delta} is no delta");
    drop_tablespace(&lab, "dropped", "gone");
    lab.sql("INSERT INTO precious VALUES (7)");
    archive_marker(&lab, 2);
    // What the live server did since is not in the archive yet.
    lab.sql("UPDATE precious SET a = a + 1000");
    lab.sql("CHECKPOINT");
    let before = live_files(&lab);
    assert!(before.contains("/srv/tablespace/aside/PG_17"), "{before}");

    match program {
        Program::Walrus => {
            restore_test(&lab, &[]).not_passed(3, "the backup holds the tablespace");
            restore(&lab, &[]).failed(3, "the backup holds the tablespace");
            assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0);
        }
        Program::WalG => comes_back(&lab),
    }
    assert_eq!(live_files(&lab), before, "a live tablespace was touched");
    assert_eq!(lab.sql("SELECT min(a) FROM precious"), "1007");
    lab.assert_nothing_left_behind();
    if program == Program::WalG {
        what_walrus_backed_up_comes_back(&lab);
    }
}

/// A delta and its base, one tablespace without any file, one that only the base holds, and one that the WAL drops. A segment may
/// end between two looks.
fn comes_back(lab: &Lab) {
    let tested = restore_test(lab, &["--sql", PRECIOUS]);
    tested.passed();
    for verification in ["files", "checksums", "amcheck", "tables"] {
        assert_eq!(tested.verdict(verification), "ok", "{:?}", tested.output);
    }

    // While WAL is replayed their folder is closed, and goes all the same.
    let slow = json!({"type": "latency", "attributes": {"latency": 300}});
    lab.toxic("slow", slow);
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    let mode = format!("stat -c %a {SCRATCH}/run-*/data/pg_tblspc 2>/dev/null || true");
    eventually("it is closed", SOON, || {
        (lab.ok(&mode) == "500").then_some(())
    });
    test.signal("TERM");
    assert_eq!(test.wait(SOON).code, 143);
    lab.assert_nothing_left_behind();
    lab.remove_toxic("slow");

    let plan = restore(lab, &["--plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    let published =
        "placed    the tablespace of /srv/tablespace/aside in /var/lib/postgresql/again/pg_tblspc/";
    assert!(plan.stdout.contains(published), "{plan:?}");
    let finished = restore(lab, &[]);
    assert_eq!(finished.code, 0, "{finished:?}");
    let links = lab.ok(&format!("find {TARGET}/pg_tblspc -type l"));
    assert_eq!(links, "", "it leads out of the directory");

    // As is printed, to a place of its own each; then it is a server like any other, and can be backed up.
    let moves = finished.stdout.lines().filter(|line| line.contains("NEW"));
    let moves: Vec<&str> = moves.filter(|line| line.contains("cp -a")).collect();
    assert_eq!(
        moves.len(),
        2,
        "the dropped ones did not come back: {finished:?}"
    );
    let left = lab.ok(&format!("ls {TARGET}/pg_tblspc | wc -l"));
    assert_eq!(
        left, "2",
        "a replica would not start with what is left of one"
    );
    lab.ok(&format!("install -d -o postgres -m 0700 {OWN}"));
    for (number, line) in moves.into_iter().enumerate() {
        let place = format!("{OWN}/{number}");
        let moved = lab.sh_as_postgres(&line.replace("NEW", &place));
        assert_eq!(moved.code, 0, "{moved:?}");
    }
    let bin = "/usr/lib/postgresql/17/bin";
    let options = format!("-c listen_addresses= -c unix_socket_directories={TARGET}");
    let answer = lab.sh_as_postgres(&format!(
        "{bin}/pg_ctl -D {TARGET} -s -w -l {TARGET}/look.log -o '{options}' start &&
         psql -XAtq -h {TARGET} -d postgres -c '{PRECIOUS}' \
           -c 'CREATE TABLE later TABLESPACE bare AS SELECT 1' \
           -c \"SELECT string_agg(pg_tablespace_location(oid), ' ' ORDER BY oid) FROM pg_tablespace WHERE oid > 16383\"
         {bin}/pg_ctl -D {TARGET} -s -w stop"
    ));
    assert_eq!(
        answer.stdout.trim(),
        format!("t\n{OWN}/0 {OWN}/1"),
        "{answer:?}"
    );
    lab.ok(&format!("rm -r {TARGET} {OWN}"));
}

/// Its list of files names what wal-g does not bring.
fn what_walrus_backed_up_comes_back(lab: &Lab) {
    lab.config("[archive]\nprogram = \"/usr/local/bin/walrus\"");
    let full = lab.xdb_json(&["backup", "push", "--full"]);
    let full = full["backup"].as_str().unwrap();
    restore_test(lab, &["--backup", full]).not_passed(3, "the backup holds the tablespace");
    // As the HINT says; what archives is left as it is.
    let hinted = format!(
        "XDB_ARCHIVE_PROGRAM=wal-g xdb restore-test --json --backup {full} --sql '{PRECIOUS}'"
    );
    Tested::of(lab.sh_as_postgres(&hinted)).passed();
}

/// The WAL names the live place, too: PostgreSQL would link to it, and write what it replays over the live files.
fn a_tablespace_made_after_the_backup_leads_to_no_live_file(program: Program) {
    let lab = Lab::start(program);
    if program == Program::WalG {
        tablespace(&lab, "before");
    }
    backed_up(&lab, 1);
    tablespace(&lab, "aside");
    // Nobody else writes there.
    lab.sql("CREATE TABLE precious WITH (autovacuum_enabled = off) TABLESPACE aside AS SELECT generate_series(1, 100) AS a");
    archive_marker(&lab, 2);
    // What the live server did since is not in the archive yet.
    lab.sql("UPDATE precious SET a = a + 1000");
    lab.sql("CHECKPOINT");
    let before = live_files(&lab);
    assert!(before.contains("/srv/tablespace/aside/PG_17"), "{before}");
    restore_test(&lab, &[]).not_passed(3, "makes a tablespace");
    restore(&lab, &[]).failed(3, "makes a tablespace");
    assert_eq!(live_files(&lab), before, "the live tablespace was touched");
    assert_eq!(lab.sql("SELECT min(a) FROM precious"), "1001");

    // Gone since, its place is free for another: a test must not take it either.
    lab.sql("DROP TABLE precious");
    lab.sql("DROP TABLESPACE aside");
    assert_eq!(lab.ok("ls -A /srv/tablespace/aside"), "");
    restore_test(&lab, &[]).not_passed(3, "makes a tablespace");
    assert_eq!(lab.ok("ls -A /srv/tablespace/aside"), "");
    lab.assert_nothing_left_behind();
}
