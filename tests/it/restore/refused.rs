//! What cannot be restored, or not to there, is refused before anything is touched.

use super::{BIN, REPOSITORY, TARGET, ask_restored, forget, moments, restore};
use crate::harness::{Lab, Program, Service};

const LIVE: &str = "/var/lib/postgresql/17/main";

#[test]
fn a_target_that_the_archive_does_not_lead_to_is_refused_with_the_window() {
    let lab = Lab::start_quiet(Program::Walrus);
    let before = lab.sql("SELECT clock_timestamp() - interval '1 hour'");
    let after = lab.sql("SELECT clock_timestamp() + interval '1 hour'");
    let moments = moments(&lab, 2);
    for (until, words) in [
        (before.as_str(), "is before the end of base_"),
        ("0/28", "is before the end of base_"),
        (&after, "is past the end of the archive"),
        ("7/0", "is past the end of the archive"),
    ] {
        let refused = restore(&lab, &["--until", until]);
        refused.failed(1, words);
        assert!(
            refused.stderr.contains("can be recovered from 20"),
            "{refused:?}"
        );
    }
    let early = "is before the end of base_";
    restore(&lab, &["--until", &before, "--plan"]).failed(1, early);
    let tested = lab.xdb(&["restore-test", "--until", &before]);
    tested.failed(1, early);
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0);
    // A time without a zone may mean any hour.
    for verb in [&["restore", "--target-dir", TARGET][..], &["restore-test"]] {
        let refused = lab.xdb(&[verb, &["--until", "2026-11-21 10:42:00"]].concat());
        refused.failed(2, "2026-11-21 10:42:00 has no time zone");
        assert!(
            refused.stderr.contains("'2026-11-21 10:42:00+01:00'"),
            "{refused:?}"
        );
    }
    // PostgreSQL would read a second 60 as the next minute, and xdb's reader as the second before.
    for until in ["2026-11-21 09:42:60Z", "2026-11-21T094260+00"] {
        let refused = lab.xdb(&["restore-test", "--until", until]);
        refused.failed(2, &format!("{until} has a second 60"));
    }
    // A restore point that nobody made: only replay can tell, and nothing of it stays.
    let refused = restore(&lab, &["--until", "nobody_made_it"]);
    refused.failed(1, "the restore point nobody_made_it is not in the WAL");
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0);
    // A commit later than the time must follow in the archive: PostgreSQL cannot know otherwise.
    let idle = lab.sql("SELECT clock_timestamp()");
    let refused = restore(&lab, &["--until", &idle]);
    refused.failed(1, "its last transaction was completed at 20");
    assert_eq!(lab.sql("SELECT count(*) FROM marker"), "2");
    lab.assert_nothing_left_behind();

    // Of two backups the one before the moment is taken, and the other has nothing to do with it.
    lab.xdb_json(&["backup", "push"]);
    let plan = lab.xdb_json(&[
        "restore",
        "--target-dir",
        TARGET,
        "--until",
        &moments[0].lsn,
        "--plan",
    ]);
    let listed = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005 | grep -v sentinel"
    ));
    let first = listed.lines().next().unwrap();
    assert_eq!(plan["backup"], first, "{plan}");
}

#[test]
fn a_directory_that_holds_anything_and_a_live_server_are_refused() {
    let lab = Lab::start_quiet(Program::Walrus);
    moments(&lab, 1);
    let refused = |directory: &str, words: &str| {
        let output = lab.xdb(&["restore", "--target-dir", directory]);
        output.failed(3, words);
    };
    let live = lab.ok(&format!("ls -A {LIVE} | sort"));
    refused(LIVE, "a server runs in /var/lib/postgresql/17/main");
    refused(&format!("{LIVE}/base/new"), "a server runs in");
    lab.ok(&format!(
        "install -d -o postgres {TARGET} && touch {TARGET}/mine"
    ));
    refused(TARGET, "is not empty");
    assert_eq!(lab.ok(&format!("ls -A {TARGET}")), "mine");
    forget(&lab);
    lab.ok(&format!("install -d -o root {TARGET}"));
    refused(TARGET, "belongs to another user");
    lab.ok(&format!("rmdir {TARGET}"));
    lab.sh(&format!("xdb restore --target-dir {TARGET}"))
        .failed(3, "as root");
    lab.config("[postgres]\nbin_directory = \"/tmp/bin\"");
    lab.ok(&format!(
        "mkdir /tmp/bin && ln -s {BIN}/* /tmp/bin && rm /tmp/bin/postgres"
    ));
    lab.write_file(
        "/tmp/bin/postgres",
        "#!/bin/sh\necho 'postgres (PostgreSQL) 16.9'\n",
        "root:root",
        "0755",
    );
    refused(TARGET, "what is restored is of PostgreSQL 17");
    lab.config("");
    // The backup's own number says that it takes more than there is.
    let sentinel = lab.ok(&format!("ls {REPOSITORY}/basebackups_005/*_sentinel.json"));
    let grow = ".UncompressedSize = 9e15 | .DataCatalogSize = 9e15 | .UncompressedSize |= floor | .DataCatalogSize |= floor";
    lab.ok(&format!(
        "cp {sentinel} /tmp/whole && jq -c '{grow}' /tmp/whole >{sentinel}"
    ));
    refused(TARGET, "free, the restore needs");
    lab.ok(&format!("cp /tmp/whole {sentinel}"));
    assert_ne!(
        lab.sh(&format!("ls {TARGET}")).code,
        0,
        "something was made"
    );
    assert_eq!(
        lab.ok(&format!("ls -A {LIVE} | sort")),
        live,
        "the live directory was touched"
    );

    // The server ended, its files stay: that is the directory of the worst day, and still not an empty one.
    lab.service("postgres", Service::Down);
    refused(LIVE, "is not empty");
    refused(&format!("{LIVE}/base/new"), "lies in the data directory");
    lab.ok(&format!("mv {LIVE} {LIVE}.old"));
    let restored = lab.xdb_json(&["restore", "--target-dir", LIVE]);
    assert_eq!(restored["directory"], LIVE, "{restored}");
    lab.service("postgres", Service::Up);
    assert_eq!(
        lab.sql("SELECT current_setting('archive_mode'), count(*) FROM marker"),
        "off|1"
    );
}

#[test]
fn missing_wal_on_the_way_is_refused_and_what_lies_before_comes_back_when_asked_for() {
    let lab = Lab::start_quiet(Program::Walrus);
    let moments = moments(&lab, 1);
    let gap = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("INSERT INTO marker VALUES (2)");
    super::archive_all(&lab);
    lab.sql("INSERT INTO marker VALUES (3)");
    let late = lab.sql("SELECT pg_current_wal_lsn()");
    super::archive_all(&lab);
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{gap}.lz4"));
    let refused = restore(&lab, &[]);
    refused.failed(1, &format!("WAL is missing: {gap}"));
    restore(&lab, &["--until", &late]).failed(1, &format!("WAL is missing: {gap}"));
    assert_ne!(lab.sh(&format!("ls {TARGET}")).code, 0);
    // The HINT names how far it goes; before the gap nothing is in the way.
    let (_, until) = refused.stderr.split_once("--until ").expect("a HINT");
    let until = until.split(';').next().unwrap().to_owned();
    for until in [moments[0].lsn.as_str(), &until] {
        let restored = lab.xdb_json(&["restore", "--target-dir", TARGET, "--until", until]);
        assert_eq!(restored["reason"], serde_json::Value::Null, "{restored}");
        assert_eq!(
            ask_restored(&lab, "SELECT array_agg(id) FROM marker"),
            "{1}"
        );
        forget(&lab);
    }
    lab.assert_nothing_left_behind();
}
