//! The archive's high-water mark: a lost last segment shows, although the bucket alone cannot tell.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Background, Lab, Program, Service, eventually};

const SOON: Duration = Duration::from_secs(60);
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";
const MARK: &str = "/srv/s3/walg-test/xdb/main/archive/high-water.json";

/// A base backup, some WAL, and the daemon of a leading primary.
fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\ndump = \"0 0 1 1 *\"",
    );
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    lab
}

fn daemon(lab: &Lab) -> Background<'_> {
    lab.xdb_in_background(&["daemon"])
}

fn filled(lab: &Lab) -> String {
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("CREATE TABLE IF NOT EXISTS filler (a int); INSERT INTO filler VALUES (1)");
    lab.sql("SELECT pg_switch_wal()");
    segment
}

fn mark(lab: &Lab) -> Option<Value> {
    let said = lab.sh(&format!("cat {MARK}"));
    serde_json::from_str(&said.stdout).ok()
}

fn marked(lab: &Lab, segment: &str) -> Value {
    eventually("the mark is set", SOON, || {
        mark(lab).filter(|mark| mark["segment"] == segment)
    })
}

fn newest_stored(lab: &Lab) -> String {
    let newest = lab.ok(&format!(
        "ls {STORED} | grep -o '^[0-9A-F]*\\.lz4' | tail -n 1"
    ));
    newest.trim_end_matches(".lz4").to_owned()
}

fn verify(lab: &Lab) -> (i32, Value) {
    let said = lab.xdb(&["archive", "verify", "--json"]);
    let json = serde_json::from_str(&said.stdout);
    (
        said.code,
        json.unwrap_or_else(|error| panic!("{error}: {said:?}")),
    )
}

/// What the verdict on the cluster says of what could be got back.
fn recoverability(lab: &Lab) -> Value {
    let said = lab.xdb(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let findings = status["findings"].as_array().unwrap().iter();
    let mut found = findings.filter(|finding| finding["check"] == "recoverability");
    found.next().expect("it is judged").clone()
}

#[test]
fn a_lost_last_segment_is_named_while_postgresql_is_down() {
    let lab = lab();
    assert_eq!(mark(&lab), None);
    let (code, seen) = verify(&lab);
    assert_eq!(
        (code, seen["end_unverified"].is_string()),
        (0, true),
        "{seen}"
    );
    let daemon = daemon(&lab);
    for _ in 0..2 {
        let segment = filled(&lab);
        let set = marked(&lab, &segment);
        let identifier = lab.sql("SELECT system_identifier FROM pg_control_system()");
        assert_eq!(set["system_identifier"].to_string(), identifier, "{set}");
        assert_eq!(
            (&set["v"], &set["timeline"]),
            (&json!(1), &json!(1)),
            "{set}"
        );
    }

    // The last segment is archived after the server ended, and the mark follows all the same.
    // Nobody but the daemon has looked since the push, and it asks for what came only.
    eventually("the daemon lists what came", SOON, || {
        let log = lab.ok("cat /var/log/xdb-lab/s3.log");
        log.contains("&start-after=").then_some(())
    });
    lab.sql("INSERT INTO filler VALUES (1)");
    let current = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.service("postgres", Service::Down);
    let last = newest_stored(&lab);
    assert_eq!(last, current, "the end of the server ended a segment");
    marked(&lab, &last);
    let (code, seen) = verify(&lab);
    assert_eq!((code, &seen["mark"]), (0, &json!(last)), "{seen}");
    assert!(seen["end_unverified"].is_null(), "{seen}");

    lab.ok(&format!("mv {STORED}/{last}.lz4 /tmp/"));
    assert!(newest_stored(&lab) < last, "the fault took effect");
    let (code, seen) = verify(&lab);
    let gap = &seen["gaps"][0];
    assert_eq!(code, 1, "{seen}");
    assert_eq!(
        (&gap["first"], &gap["last"]),
        (&json!(last), &json!(last)),
        "{seen}"
    );
    assert_eq!(gap["at_end"], json!(true), "{seen}");
    let said = lab.xdb(&["archive", "verify"]);
    let words = format!("MISSING: {last}, the end of what was archived");
    assert!(said.stdout.contains(&words), "{said:?}");
    // The daemon is asked, and looks again within its five minutes; a look of one's own does so at once.
    drop(daemon);
    lab.ok("pkill -x xdb || true");
    eventually("the daemon is gone", SOON, || {
        (lab.sh("pgrep -x xdb").code == 1).then_some(())
    });
    lab.ok("rm -f /var/lib/xdb/xdb.db*");
    let found = recoverability(&lab);
    assert_eq!(found["verdict"], "critical", "{found}");
    assert!(found["reason"].as_str().unwrap().contains(&last), "{found}");
    let tested = lab.xdb(&["restore-test", "--json"]);
    assert_eq!(tested.code, 1, "{tested:?}");
    assert!(tested.stdout.contains(&last), "{tested:?}");

    // Somebody knows of it: it stays, and is no alarm.
    let words = ["--why", "a test", "--until", "2999-12-31", "--by", "anna"];
    let known = lab.xdb(&[&["archive", "acknowledge", &last], &words[..]].concat());
    assert_eq!(known.code, 0, "{known:?}");
    let (code, seen) = verify(&lab);
    assert_eq!(
        (code, &seen["gaps"][0]["acknowledged"]["by"]),
        (0, &json!("anna")),
        "{seen}"
    );
    assert_eq!(recoverability(&lab)["verdict"], "warning");
    lab.ok("rm -r /srv/s3/walg-test/xdb/main/acknowledgements");
    assert_eq!(verify(&lab).0, 1);

    // A mark of another cluster, one that cannot be read, and none: the end is not known, and nothing is wrong.
    lab.ok(&format!(
        "cp {MARK} /tmp/mark && jq -c '.system_identifier = 42' /tmp/mark >{MARK}"
    ));
    let unverified = |words: &str| {
        let (code, seen) = verify(&lab);
        let reason = seen["end_unverified"].as_str().unwrap_or_default();
        assert_eq!((code, reason.contains(words)), (0, true), "{words}: {seen}");
    };
    unverified("another cluster, with system identifier 42");
    lab.ok(&format!("echo '{{' >{MARK}"));
    unverified("cannot read s3://walg-test/xdb/main/archive/high-water.json");
    lab.ok(&format!("rm {MARK}"));
    unverified("no primary's daemon has set");
    let said = lab.xdb(&["archive", "verify"]);
    assert!(said.stdout.contains("its end is unverified"), "{said:?}");

    // Back again: the restore test trusts the mark where no server can be asked.
    lab.ok(&format!(
        "cp /tmp/mark {MARK} && mv /tmp/{last}.lz4 {STORED}/"
    ));
    let tested = lab.xdb(&["restore-test", "--json"]);
    assert_eq!(tested.code, 0, "{tested:?}");
    let report: Value = serde_json::from_str(&tested.stdout).expect("JSON");
    let looked = report["verifications"].as_array().unwrap().iter();
    let mut ends = looked.filter(|looked| looked["name"] == "archive_end");
    assert_eq!(ends.next().unwrap()["verdict"], "ok", "{report}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_mark_never_moves_back_and_a_promotion_takes_it_along() {
    let lab = lab();
    let _daemon = daemon(&lab);
    let first = filled(&lab);
    marked(&lab, &first);
    // A mark ahead of this server: as if another node, or this one before a crash, had archived more.
    let ahead = "00000001000000000000001F";
    lab.ok(&format!("jq -c '.segment = \"{ahead}\" | .lsn = \"0/20000000\"' {MARK} >/tmp/mark && cp /tmp/mark {MARK}"));
    let archived = filled(&lab);
    eventually("it is archived", SOON, || {
        (lab.sql("SELECT last_archived_wal FROM pg_stat_archiver") == archived).then_some(())
    });
    let (code, seen) = verify(&lab);
    assert_eq!(
        (code, &seen["gaps"][0]["last"]),
        (1, &json!(ahead)),
        "{seen}"
    );
    // The next timeline is beyond it, however early it begins.
    lab.ok("touch /var/lib/postgresql/17/main/standby.signal");
    lab.ok("kill -QUIT $(cat /run/service/postgres/supervise/pid)");
    eventually("it is a standby", SOON, || {
        let ask = "/usr/lib/postgresql/17/bin/psql -XAtqc 'SELECT pg_is_in_recovery()'";
        (lab.sh_as_postgres(ask).stdout == "t\n").then_some(())
    });
    assert_eq!(mark(&lab).unwrap()["segment"], ahead);
    lab.sql("SELECT pg_promote()");
    let newer = eventually("timeline 2 is written to", SOON, || {
        Some(filled(&lab)).filter(|segment| segment.starts_with("00000002"))
    });
    let set = marked(&lab, &newer);
    assert_eq!(set["timeline"], json!(2), "{set}");
    let (code, seen) = verify(&lab);
    assert_eq!((code, &seen["gaps"]), (0, &json!([])), "{seen}");
}
