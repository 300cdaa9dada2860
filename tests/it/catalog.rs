//! The catalog as a node keeps it: how few requests a later look sends, and what it sees and does not see.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Output, Program, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(30);
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";
const BACKUPS: &str = "/srv/s3/walg-test/main/pg17/basebackups_005";

for_each_program!(a_later_look_asks_twice_and_sees_what_came);

/// Ends a segment, and waits until PostgreSQL takes it for archived; gives its name.
fn archived(lab: &Lab) -> String {
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("CREATE TABLE IF NOT EXISTS filler (a int); INSERT INTO filler VALUES (1)");
    lab.sql("SELECT pg_switch_wal()");
    eventually("the segment is archived", SOON, || {
        (lab.sql("SELECT last_archived_wal FROM pg_stat_archiver") == segment).then_some(())
    });
    segment
}

/// The requests that S3 answered during `work`, by its own log.
fn requests(lab: &Lab, work: impl FnOnce()) -> Vec<String> {
    // A request of our own on either side: the log is written a moment after the answer.
    let mark = |name: &str| {
        lab.ok(&format!(
            "curl -sS -o /dev/null http://127.0.0.1:7070/{name}"
        ));
        eventually("S3 has written its log", SOON, || {
            let log = lab.ok("cat /var/log/xdb-lab/s3.log");
            log.contains(&format!("| /{name} |")).then_some(log)
        })
    };
    let now = lab.ok("date +%s%N");
    let (begin, end) = (format!("begin-{now}"), format!("end-{now}"));
    mark(&begin);
    work();
    let log = mark(&end);
    let lines = log
        .lines()
        .skip_while(|line| !line.contains(&begin))
        .skip(1);
    lines
        .take_while(|line| !line.contains(&end))
        .map(str::to_owned)
        .collect()
}

fn verify(lab: &Lab, cached: bool) -> (i32, Value) {
    let flags: &[&str] = if cached { &["--cached"] } else { &[] };
    let said = lab.xdb(&[&["archive", "verify", "--json"], flags].concat());
    let json = serde_json::from_str(&said.stdout);
    (
        said.code,
        json.unwrap_or_else(|error| panic!("{error}: {said:?}")),
    )
}

fn last(seen: &Value) -> &Value {
    &seen["wal"].as_array().unwrap().last().unwrap()["last"]
}

fn promote(lab: &Lab) {
    // It crashes, comes back as a standby and is promoted.
    lab.crash_and_promote();
    eventually("the history is archived", SOON, || {
        (lab.sh(&format!("ls {STORED}/00000002.history*")).code == 0).then_some(())
    });
}

fn a_later_look_asks_twice_and_sees_what_came(program: Program) {
    let lab = Lab::start_quiet(program);
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let segments: Vec<String> = (0..4).map(|_| archived(&lab)).collect();
    let list = || {
        let said = lab.xdb(&["backup", "list", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    let first = requests(&lab, || assert_eq!(verify(&lab, false).0, 0));
    assert!(first.len() > 2, "{first:#?}");
    for _ in 0..2 {
        let asked = requests(&lab, list);
        // The backups with their parts, the backup's own WAL, the tail of the WAL, the proofs of restore tests.
        assert_eq!(asked.len(), 4, "{asked:#?}");
        assert!(
            asked.iter().all(|line| line.contains("list-type=2")),
            "{asked:#?}"
        );
    }

    // New segments, and a new backup: its sentinel and the end of its list of files are read.
    let new = archived(&lab);
    let (code, seen) = verify(&lab, true);
    assert_eq!((code, last(&seen)), (0, &json!(new)), "{seen}");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let asked = requests(&lab, list);
    let sentinels = asked.iter().filter(|line| line.contains("sentinel.json"));
    assert_eq!((asked.len(), sentinels.count()), (7, 1), "{asked:#?}");
    assert_eq!(requests(&lab, list).len(), 5);

    // A hole, and what fills it; each look at it is one more request, and another whether retention made it.
    let lost = &segments[2];
    lab.ok(&format!(
        "rm {BACKUPS}/$(ls {BACKUPS} | grep -o '^base_[0-9A-F]*' | sort -u | tail -n 1)* -r"
    ));
    lab.ok(&format!("mv {STORED}/{lost}.lz4 /tmp/"));
    let (code, seen) = verify(&lab, false);
    assert_eq!(
        (code, &seen["gaps"][0]["first"]),
        (1, &json!(lost)),
        "{seen}"
    );
    assert_eq!(verify(&lab, true).0, 1);
    let asked = requests(&lab, list);
    assert_eq!(asked.len(), 6, "{asked:#?}");
    lab.ok(&format!("mv /tmp/{lost}.lz4 {STORED}/"));
    let (code, seen) = verify(&lab, true);
    assert_eq!((code, &seen["gaps"]), (0, &json!([])), "{seen}");

    // A new timeline, while the old one goes on being filled up to the switch.
    promote(&lab);
    let newer = archived(&lab);
    assert!(newer.starts_with("00000002"), "{newer}");
    let (code, seen) = verify(&lab, true);
    assert_eq!((code, last(&seen)), (0, &json!(newer)), "{seen}");
    assert_eq!(requests(&lab, list).len(), 4);
    let old = seen["wal"][0]["last"].as_str().unwrap();
    assert!(old.starts_with("00000001"), "{seen}");
    let (old, kept) = (
        old.to_owned(),
        "cp -a /srv/s3/walg-test/main/pg17 /tmp/kept",
    );
    lab.ok(&format!("{kept} && rm {STORED}/{old}.lz4"));
    assert_eq!(verify(&lab, false).0, 1);
    lab.ok(&format!("cp -a /tmp/kept/wal_005/{old}.lz4 {STORED}/"));
    let (code, seen) = verify(&lab, true);
    assert_eq!(code, 0, "{seen}");

    // What a hand deleted of a backup's own WAL shows at once.
    let own = lab.ok(&format!(
        "ls {BACKUPS} | sed -n 's/^base_\\(.*\\)_backup_stop.*/\\1/p'"
    ));
    lab.ok(&format!("mv {STORED}/{own}.lz4 /tmp/own"));
    let said = lab.xdb_json(&["backup", "list"]);
    assert_eq!(said[0]["status"], "unusable", "{said}");
    lab.ok(&format!("mv /tmp/own {STORED}/{own}.lz4"));
    let said = lab.xdb_json(&["backup", "list"]);
    assert_eq!(said[0]["status"], "complete", "{said}");

    // Other WAL that a hand deleted shows when all is listed, and then to the next look, too.
    lab.ok(&format!("rm {STORED}/{newer}.lz4"));
    let (_, seen) = verify(&lab, true);
    assert_eq!(last(&seen), &json!(newer), "the cache believes what it saw");
    let (_, seen) = verify(&lab, false);
    assert_ne!(last(&seen), &json!(newer), "{seen}");
    let (_, seen) = verify(&lab, true);
    assert_ne!(last(&seen), &json!(newer), "{seen}");
    // A backup that is gone took WAL with it: all is listed at once.
    lab.ok(&format!("rm -r {BACKUPS}/* {STORED}/{}.lz4", segments[3]));
    let (code, seen) = verify(&lab, true);
    assert_eq!(
        (code, &seen["problems"]),
        (1, &json!(["there is no base backup"])),
        "{seen}"
    );
    assert_eq!(seen["wal"].as_array().map(Vec::len), Some(2), "{seen}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_catalog_that_cannot_be_kept_or_read_costs_requests_only() {
    let lab = Lab::start_quiet(Program::Walrus);
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    assert_eq!(verify(&lab, false).0, 0);
    let list = || lab.xdb(&["backup", "list", "--json"]);
    let known = list();
    let good =
        |said: &Output| assert_eq!((said.code, &said.stdout), (0, &known.stdout), "{said:?}");
    assert_eq!(requests(&lab, || good(&list())).len(), 4);
    // Root may read what is kept, and keeps nothing that its owner could not write.
    assert_eq!(
        requests(&lab, || good(&lab.sh("xdb backup list --json"))).len(),
        4
    );
    assert_eq!(lab.sh("xdb archive verify").code, 0);
    assert_eq!(lab.ok("find /var/lib/xdb ! -user postgres"), "");
    // Another S3 under the same names.
    lab.config("[s3]\nendpoint = \"http://127.0.0.1:7070\"");
    let asked = requests(&lab, || good(&list()));
    assert!(asked.len() > 4, "{asked:#?}");
    lab.config("");
    assert_eq!(requests(&lab, || good(&list())).len(), 4);
    // A damaged store stays where it is: the daemon moves it aside.
    lab.ok("cd /var/lib/xdb && rm -f xdb.db-* && head -c 8192 /dev/urandom >xdb.db");
    let before = lab.ok("sha256sum /var/lib/xdb/xdb.db");
    let asked = requests(&lab, || good(&list()));
    assert!(asked.len() > 4, "{asked:#?}");
    assert_eq!(lab.ok("sha256sum /var/lib/xdb/xdb.db"), before);
    lab.ok("rm /var/lib/xdb/xdb.db");
    assert!(requests(&lab, || good(&list())).len() > 4);
    assert_eq!(requests(&lab, || good(&list())).len(), 4);
}
