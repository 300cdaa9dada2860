//! WAL segments of 1 and 64 MiB: from the push to the prune every name and every LSN is reckoned by the server's own size.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Program, Service, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(60);
const DATA: &str = "/var/lib/postgresql/17/main";
const BIN: &str = "/usr/lib/postgresql/17/bin";
const TARGET: &str = "/var/lib/postgresql/restored";

for_each_program!(segments_of_any_size_are_pushed_listed_restored_and_pruned);

/// A new cluster with segments of `mebibytes`, which archives to a prefix of its own.
fn initialize(lab: &Lab, mebibytes: u64, extra: &str) {
    lab.service("postgres", Service::Down);
    lab.ok(&format!(
        "cp {DATA}/postgresql.conf /tmp/conf && rm -rf {DATA} {TARGET} && echo lab-password >/tmp/password && chmod a+r /tmp/password /tmp/conf"
    ));
    lab.sh_as_postgres(&format!(
        "{BIN}/initdb -D {DATA} --username=postgres --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 \
         --data-checksums --auth-local=peer --auth-host=scram-sha-256 --wal-segsize={mebibytes} >/dev/null && \
         sed -E '/^(min|max)_wal_size|^archive_timeout/d' /tmp/conf >{DATA}/postgresql.conf && \
         echo \"min_wal_size = '{}MB'\nmax_wal_size = '{}MB'\narchive_timeout = 0\" >>{DATA}/postgresql.conf",
        2 * mebibytes.max(16),
        4 * mebibytes.max(16),
    ))
    .succeeded("initdb");
    lab.config(&format!(
        "[archive]\nrepository = \"s3://walg-test/size/{mebibytes}\"\n[retention]\nwindow_days = 0\nfulls = 1\n{extra}"
    ));
    lab.service("postgres", Service::Up);
    assert_eq!(lab.sql("SHOW wal_segment_size"), format!("{mebibytes}MB"));
    lab.sql("CREATE TABLE kept (at int)");
}

fn archived(lab: &Lab, mebibytes: u64) -> String {
    format!(
        "{}/wal_005",
        lab.ok(&format!("echo /srv/s3/walg-test/size/{mebibytes}"))
    )
}

/// Pushes a backup, then archives a segment that holds `row`.
fn push(lab: &Lab, mebibytes: u64, row: usize) -> String {
    let pushed = lab.xdb_json(&["backup", "push"]);
    lab.sql(&format!("INSERT INTO kept VALUES ({row})"));
    let segment = lab.sql("SELECT pg_walfile_name(pg_switch_wal())");
    let stored = archived(lab, mebibytes);
    eventually("the segment is archived", SOON, || {
        (lab.sh(&format!("ls {stored}/{segment}.lz4")).code == 0).then_some(())
    });
    pushed["backup"].as_str().unwrap().to_owned()
}

fn segments_of_any_size_are_pushed_listed_restored_and_pruned(program: Program) {
    let lab = Lab::start_quiet(program);
    for mebibytes in [1, 64] {
        initialize(&lab, mebibytes, "");
        let backups: Vec<String> = (1..=3).map(|row| push(&lab, mebibytes, row)).collect();
        let listed = lab.xdb_json(&["backup", "list"]);
        for (backup, name) in listed.as_array().unwrap().iter().zip(&backups) {
            assert_eq!(
                (&backup["status"], &backup["name"]),
                (&json!("complete"), &json!(name)),
                "{listed}"
            );
            let start = backup["start_lsn"].as_str().unwrap();
            let segment = lab.sql(&format!("SELECT pg_walfile_name('{start}')"));
            assert_eq!(*name, format!("base_{segment}"), "{listed}");
        }
        let end = lab.sql("SELECT pg_current_wal_lsn()");
        let to = &listed[2]["window"]["to_lsn"];
        let same = lab.sql(&format!(
            "SELECT pg_walfile_name('{}'::pg_lsn - 1) < pg_walfile_name('{end}')",
            to.as_str().unwrap()
        ));
        assert_eq!(same, "t", "{listed} {end}");
        let verified = lab.xdb(&["archive", "verify", "--json"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        let ranges: Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(ranges["wal"].as_array().map(Vec::len), Some(1), "{ranges}");

        // The same for a host that has the bucket's name alone.
        lab.config("");
        let named = format!("s3://walg-test/size/{mebibytes}");
        let bare = lab.sh_as_postgres(&format!(
            "XDB_POSTGRES_DATA_DIRECTORY=/none XDB_NODE_STATE_DIRECTORY=/none xdb backup list --json --repository {named}"
        ));
        assert_eq!(
            serde_json::from_str::<Value>(&bare.succeeded("list")).unwrap(),
            listed
        );
        lab.config(&format!(
            "[archive]\nrepository = \"{named}\"\n[retention]\nwindow_days = 0\nfulls = 1"
        ));

        let rows = "SELECT count(*) = 3 FROM public.kept";
        let tested = lab.xdb(&["restore-test", "--sql", rows]);
        assert_eq!(tested.code, 0, "{mebibytes}: {tested:?}");

        let dry = lab.xdb_json(&["prune", "--dry-run"]);
        let real = lab.xdb_json(&["prune"]);
        assert_eq!(
            (&real["backups"], &real["wal"]),
            (&dry["backups"], &dry["wal"])
        );
        assert_eq!(
            (&real["gone"], &real["left"]),
            (&json!([]), &json!([])),
            "{real}"
        );
        let left = lab.xdb_json(&["backup", "list"]);
        assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
        assert_eq!(
            (&left[0]["name"], &left[0]["status"]),
            (&json!(backups[2]), &json!("complete")),
            "{left}"
        );
        let first = lab.ok(&format!("ls {} | head -1", archived(&lab, mebibytes)));
        assert!(
            first.starts_with(backups[2].strip_prefix("base_").unwrap()),
            "{first} {real}"
        );
        assert_eq!(lab.xdb(&["archive", "verify"]).code, 0);

        let restored = lab.xdb_json(&["restore", "--target-dir", TARGET]);
        assert_eq!(restored["reason"], Value::Null, "{restored}");
        let options = format!("-c listen_addresses= -c unix_socket_directories={TARGET}");
        let asked = lab.sh_as_postgres(&format!(
            "{BIN}/pg_ctl -D {TARGET} -s -w -l {TARGET}/look.log -o '{options}' start && \
             {BIN}/psql -XAtq -h {TARGET} -d postgres -c 'SELECT count(*) FROM kept' -c 'SHOW wal_segment_size'; \
             {BIN}/pg_ctl -D {TARGET} -s -w stop"
        ));
        assert_eq!(asked.succeeded("ask"), format!("3\n{mebibytes}MB"));
    }
    a_backup_with_a_wrong_name_stops_every_deletion(&lab, program);
    lab.assert_nothing_left_behind();
}

/// Taken by hand with another size in mind; wal-g refuses that itself.
fn a_backup_with_a_wrong_name_stops_every_deletion(lab: &Lab, program: Program) {
    if program != Program::Walrus {
        return;
    }
    let run = format!(
        "WALG_S3_PREFIX=s3://walg-test/size/64 AWS_ENDPOINT=http://127.0.0.1:7070 AWS_REGION=us-east-1 \
         AWS_S3_FORCE_PATH_STYLE=true AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab-secret-key \
         WALG_COMPRESSION_METHOD=lz4 PGHOST=/var/run/postgresql PGUSER=postgres {} backup-push {DATA}",
        program.path()
    );
    lab.sh_as_postgres(&run).succeeded("backup-push");
    // Its name is not the one of the segment that it starts in; it is whole once its WAL is archived.
    let wrong_name = |backup: &Value| {
        let start = backup["start_lsn"].as_str().unwrap();
        let segment = lab.sql(&format!("SELECT pg_walfile_name('{start}')"));
        backup["name"] != json!(format!("base_{segment}"))
    };
    eventually("the backup is complete, with a wrong name", SOON, || {
        let listed = lab.xdb_json(&["backup", "list"]);
        let mut all = listed.as_array().unwrap().iter();
        let wrong = all.find(|backup| wrong_name(backup));
        wrong.and_then(|wrong| (wrong["status"] == "complete").then_some(()))
    });
    let objects = "cd /srv/s3/walg-test/size/64 && find . -type f | sort";
    let before = lab.ok(objects);
    lab.xdb(&["prune"]).failed(3, "does not fit its start LSN");
    assert_eq!(lab.ok(objects), before);
}
