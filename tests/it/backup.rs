//! `xdb backup push` and `xdb backup list`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Program, Service, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(30);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";

for_each_program!(
    a_backup_is_pushed_and_listed,
    a_delta_shows_its_chain,
    a_full_follows_so_many_deltas_and_a_chain_that_lost_a_part,
    a_push_that_ends_badly_leaves_no_session_on_the_server,
    a_killed_push_is_cleaned_up_by_the_next,
);

fn listed(lab: &Lab) -> Vec<Value> {
    let list = lab.xdb_json(&["backup", "list"]);
    list.as_array().expect("an array").clone()
}

fn push(lab: &Lab) -> Value {
    lab.xdb_json(&["backup", "push"])
}

fn a_backup_is_pushed_and_listed(program: Program) {
    let lab = Lab::start(program);
    assert!(listed(&lab).is_empty());
    let pushed = push(&lab);
    let name = pushed["backup"].as_str().unwrap();

    let list = listed(&lab);
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0]["name"].as_str(), list[0]["status"].as_str()),
        (Some(name), Some("complete"))
    );
    let identifier = lab.sql("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(list[0]["system_identifier"].to_string(), identifier);
    assert_eq!(
        (&list[0]["kind"], &list[0]["timeline"]),
        (&json!("full"), &json!(1))
    );
    let parts = lab.ok(&format!(
        "du -cb {REPOSITORY}/basebackups_005/{name}/tar_partitions/* | tail -1 | cut -f1"
    ));
    let (stored, counted): (u64, u64) = (
        parts.parse().unwrap(),
        list[0]["compressed_bytes"].as_u64().unwrap(),
    );
    // The sentinel leaves out the label's little tar.
    assert!(
        counted > 0 && counted <= stored && stored - counted < 10_000,
        "{counted} of {stored}"
    );
    assert!(
        list[0]["restored_bytes"].as_u64() > Some(20_000_000),
        "{list:?}"
    );
    assert_eq!(list[0]["window"]["from_lsn"], list[0]["finish_lsn"]);

    // A push that never finished, and one whose WAL is gone, are told apart.
    lab.ok(&format!("mkdir -p {REPOSITORY}/basebackups_005/base_0000000100000000000000AA/tar_partitions &&
        echo x >{REPOSITORY}/basebackups_005/base_0000000100000000000000AA/tar_partitions/part_001.tar.lz4"));
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{}.lz4", &name[5..29]));
    // What is deleted behind xdb's back is seen by whoever reads all: verify, restores, and each day the daemon.
    assert_eq!(lab.xdb(&["archive", "verify"]).code, 1);
    let list = listed(&lab);
    let status = |at: usize| {
        (
            list[at]["status"].as_str().unwrap(),
            list[at]["reason"].as_str().unwrap(),
        )
    };
    assert_eq!(status(0).0, "unusable");
    assert!(status(0).1.contains(&name[5..29]), "{list:?}");
    assert_eq!(
        status(1),
        ("incomplete", "it never finished: it has no sentinel")
    );
    let table = lab.xdb(&["backup", "list"]);
    assert!(
        table.stdout.contains("unusable") && table.stdout.contains("incomplete"),
        "{table:?}"
    );
    lab.assert_nothing_left_behind();
}

fn a_delta_shows_its_chain(program: Program) {
    let lab = Lab::start(program);
    lab.config("[archive]\ndelta_max_steps = 3");
    let full = push(&lab)["backup"].as_str().unwrap().to_owned();
    lab.sql("CREATE TABLE change AS SELECT generate_series(1, 1000) AS a; CHECKPOINT");
    let delta = push(&lab)["backup"].as_str().unwrap().to_owned();
    assert!(delta.contains("_D_"), "{delta}");
    let list = listed(&lab);
    let listed = list
        .iter()
        .find(|backup| backup["name"] == json!(delta))
        .unwrap();
    assert_eq!(
        (
            &listed["kind"],
            &listed["delta_from"],
            &listed["delta_full"]
        ),
        (&json!("delta"), &json!(full), &json!(full))
    );
    assert_eq!(listed["status"], json!("complete"), "{listed}");
    // A delta is small; what it restores is not.
    let bytes = |key: &str| listed[key].as_u64().unwrap();
    assert!(
        bytes("restored_bytes") > 4 * bytes("compressed_bytes"),
        "{listed}"
    );

    let restored = lab.xdb(&[
        "restore-test",
        "--backup",
        &delta,
        "--sql",
        "SELECT count(*) = 1000 FROM public.change",
    ]);
    assert_eq!(restored.code, 0, "{restored:?}");

    lab.ok(&format!(
        "rm {REPOSITORY}/basebackups_005/{full}_backup_stop_sentinel.json"
    ));
    lab.xdb(&["restore-test", "--backup", &delta])
        .failed(1, &format!("its parent {full} never finished"));
    lab.assert_nothing_left_behind();
}

fn a_full_follows_so_many_deltas_and_a_chain_that_lost_a_part(program: Program) {
    let lab = Lab::start(program);
    lab.config("[archive]\ndelta_max_steps = 2");
    lab.sql("CREATE TABLE change AS SELECT generate_series(1, 1000) AS a");
    let pushed: Vec<Value> = (0..5)
        .map(|_| {
            lab.sql("INSERT INTO change VALUES (0)");
            push(&lab)
        })
        .collect();
    let name = |at: usize| pushed[at]["backup"].as_str().unwrap();
    let kinds: Vec<_> = pushed.iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["full", "delta", "delta", "full", "delta"]);
    let listed = listed(&lab);
    for (at, (count, parent)) in [
        (Value::Null, Value::Null),
        (json!(1), json!(name(0))),
        (json!(2), json!(name(1))),
        (Value::Null, Value::Null),
        (json!(1), json!(name(3))),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(pushed[at]["parent"], parent, "{pushed:?}");
        let seen = listed.iter().find(|backup| backup["name"] == name(at));
        assert_eq!(seen.unwrap()["delta_count"], count, "{listed:?}");
    }
    for key in ["uncompressed_bytes", "compressed_bytes", "bytes_per_sec"] {
        assert!(pushed[0][key].as_u64() > Some(0), "{key}: {pushed:?}");
    }

    // The sentinel is whole, and what it counted is not there any more: nothing may build on it.
    let parts = format!("{REPOSITORY}/basebackups_005/{}/tar_partitions", name(3));
    let cut = lab.ok(&format!("ls -S {parts}/* | head -1"));
    lab.ok(&format!("rm {cut}"));
    let next = lab.xdb(&["backup", "push"]);
    assert_eq!(next.code, 0, "{next:?}");
    assert!(next.stdout.contains("is in the bucket: full, "), "{next:?}");
    let warned = format!("a full backup and no delta: the tar parts of {}", name(3));
    assert!(next.stderr.contains(&warned), "{next:?}");
    lab.assert_nothing_left_behind();
}

/// The process ids of the server's sessions that began a backup.
fn backup_sessions(lab: &Lab) -> String {
    lab.sql("SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_backup_start(%' AND pid <> pg_backend_pid()")
}

fn a_push_that_ends_badly_leaves_no_session_on_the_server(program: Program) {
    let lab = Lab::start(program);
    // The checkpoint that a backup begins with, on a disk that hangs.
    let checkpointer = |signal: &str| {
        lab.ok(&format!(
            "kill -s {signal} $(pgrep -f '^postgres: checkpointer')"
        ));
    };
    checkpointer("STOP");
    lab.config("[archive]\nbackup_timeout = \"4s\"");
    let begun = || {
        eventually("the server waits for its checkpoint", SOON, || {
            Some(backup_sessions(&lab)).filter(|sessions| !sessions.is_empty())
        })
    };
    let late = lab.xdb_in_background(&["backup", "push"]);
    begun();
    late.wait(SOON).failed(4, "was not done after 4 s");
    assert_eq!(backup_sessions(&lab), "");

    lab.config("");
    let killed = lab.xdb_in_background(&["backup", "push"]);
    let session = begun();
    killed.signal("KILL");
    assert_eq!(killed.wait(SOON).code, 137);
    eventually("the program died with xdb", SOON, || {
        let program = format!("pgrep -f '^{} backup-push'", program.path());
        (lab.sh(&program).code == 1).then_some(())
    });
    assert_eq!(
        backup_sessions(&lab),
        session,
        "the server noticed by itself"
    );
    let next = lab.xdb_in_background(&["backup", "push"]);
    eventually("the session that was left is ended", SOON, || {
        (!backup_sessions(&lab).contains(&session)).then_some(())
    });
    begun();
    checkpointer("CONT");
    let next = next.wait(SOON);
    assert_eq!(next.code, 0, "{next:?}");
    assert_eq!(backup_sessions(&lab), "");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_push_that_cannot_be_made_says_why_and_leaves_nothing() {
    let lab = Lab::start(Program::Walrus);
    let push = || lab.xdb(&["backup", "push"]);
    lab.config("[postgres]\ndata_directory = \"/var/lib/postgresql/17\"");
    push().failed(4, "pg_controldata refuses /var/lib/postgresql/17");
    lab.config("[postgres]\npassword = \"wrong\"");
    push().failed(4, "password authentication failed");
    lab.config("[archive]\nprogram = \"/usr/local/bin/no-wal-g\"");
    push().failed(4, "there is no WAL-G program");
    lab.config("[archive]\nrepository = \"s3://nowhere/main\"");
    push().failed(4, "no such bucket");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    push().failed(4, "access denied");
    lab.config("[archive]\nrepository = \"s3://walg-{account}/main\"");
    push().failed(2, "{account} is not known");
    lab.config("[archive]\nbackup_timeouts = \"1h\"");
    push().failed(2, "backup_timeouts");
    lab.config("");
    lab.sh("xdb backup push").failed(3, "root");
    lab.proxy_enabled(false);
    push().failed(4, "S3 does not answer");
    lab.proxy_enabled(true);
    lab.service("postgres", Service::Down);
    push().failed(4, "cannot connect to PostgreSQL");
    lab.service("postgres", Service::Up);
    assert_eq!(lab.xdb(&["backup", "list", "--json"]).stdout.trim(), "[]");
    lab.assert_nothing_left_behind();
    assert_eq!(push().code, 0);
}

#[test]
fn a_push_that_would_be_worthless_is_refused() {
    let lab = Lab::start(Program::Walrus);
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/walg-3.0.9/repository"
    );
    lab.copy_in(fixture.as_ref(), "/srv/s3/walg-test/foreign");
    lab.config("[archive]\nrepository = \"s3://walg-test/foreign\"");
    lab.xdb(&["backup", "push"]).failed(3, "of another cluster");

    lab.config("[archive]\npush_timeout = \"2s\"\nrepository = \"s3://walg-test/mine\"");
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE filler (a int)");
    lab.sql("SELECT pg_switch_wal()");
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    lab.xdb(&["backup", "push"]).failed(3, "archiving fails");
    lab.assert_nothing_left_behind();
}

/// The uploads that S3 holds unfinished, seen from outside.
fn unfinished(lab: &Lab) -> usize {
    let listing = lab.ok(
        "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key 'http://127.0.0.1:7070/walg-test?uploads='",
    );
    listing.matches("<UploadId>").count()
}

/// Begins a push that is in the middle of a multipart upload.
fn push_in_the_middle(lab: &Lab) -> crate::harness::Background<'_> {
    // Incompressible, and slow to send.
    lab.ok("head -c 120M /dev/urandom >/var/lib/postgresql/17/main/base/random && chown postgres /var/lib/postgresql/17/main/base/random");
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1000}}),
    );
    let push = lab.xdb_in_background(&["backup", "push"]);
    eventually("a multipart upload is under way", SOON, || {
        (unfinished(lab) > 0).then_some(())
    });
    push
}

#[test]
fn a_push_whose_archiving_breaks_is_given_up() {
    let lab = Lab::start(Program::Walrus);
    lab.config("[archive]\npush_timeout = \"3s\"");
    let push = push_in_the_middle(&lab);
    lab.sql("ALTER SYSTEM SET archive_command = 'false'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE filler (a int)");
    lab.sql("SELECT pg_switch_wal()");
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    push.wait(Duration::from_secs(60))
        .failed(4, "archiving began to fail");
    lab.remove_toxic("slow");
    lab.assert_nothing_left_behind();
}

fn a_killed_push_is_cleaned_up_by_the_next(program: Program) {
    let lab = Lab::start_quiet(program);
    let writer = lab.writer();
    let push = push_in_the_middle(&lab);
    lab.end_segments(&writer, 1);
    push.signal("KILL");
    assert_eq!(push.wait(SOON).code, 137);
    eventually("the program died with xdb", SOON, || {
        (lab.sh(&format!("pgrep -f '^{} backup-push'", program.path()))
            .code
            == 1)
            .then_some(())
    });
    assert!(
        unfinished(&lab) > 0,
        "the upload is left, as after any kill -9"
    );
    lab.end_segments(&writer, 1);
    lab.remove_toxic("slow");
    lab.ok("rm /var/lib/postgresql/17/main/base/random");
    let next = lab.xdb(&["backup", "push"]);
    assert_eq!(next.code, 0, "{next:?}");
    lab.assert_nothing_left_behind();
    lab.end_segments(&writer, 1);
    lab.judge_archive(writer);
}

#[test]
fn an_interrupted_push_cleans_up_itself() {
    let lab = Lab::start(Program::Walrus);
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 143)] {
        let push = push_in_the_middle(&lab);
        push.signal(signal);
        assert_eq!(push.wait(SOON).code, code);
        lab.remove_toxic("slow");
        lab.assert_nothing_left_behind();
    }
    // And one at a time.
    let first = push_in_the_middle(&lab);
    lab.xdb(&["backup", "push"])
        .failed(3, "another base backup is being pushed");
    first.signal("TERM");
    assert_eq!(first.wait(SOON).code, 143);
    lab.assert_nothing_left_behind();
}

#[test]
fn a_program_that_is_killed_and_a_push_by_hand_beside_it_are_told_apart() {
    let lab = Lab::start(Program::Walrus);
    let kill = "pkill -KILL -f '^/usr/local/bin/walrus backup-push'";
    let push = push_in_the_middle(&lab);
    lab.ok(kill);
    let killed = push.wait(SOON);
    killed.failed(4, "killed by signal 9 (SIGKILL");
    lab.remove_toxic("slow");
    lab.assert_nothing_left_behind();

    // By hand: the program itself under another name of its file's path, so that only xdb's own is killed.
    lab.toxic(
        "slow",
        json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1000}}),
    );
    lab.ok("mkdir -p /opt/hand && cp /usr/local/bin/walrus /opt/hand/walrus");
    let by_hand = lab.in_background(&[
        "env",
        "AWS_ACCESS_KEY_ID=lab",
        "AWS_SECRET_ACCESS_KEY=lab-secret-key",
        "AWS_REGION=us-east-1",
        "AWS_ENDPOINT=http://127.0.0.1:7000",
        "AWS_S3_FORCE_PATH_STYLE=true",
        "WALG_S3_PREFIX=s3://walg-test/main/pg17",
        "PGHOST=/var/run/postgresql",
        "PGUSER=postgres",
        "/opt/hand/walrus",
        "backup-push",
        "/var/lib/postgresql/17/main",
    ]);
    eventually("the push by hand uploads", SOON, || {
        (unfinished(&lab) > 0).then_some(())
    });
    let sessions =
        || lab.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walrus'");
    assert_eq!(sessions(), "1");
    let push = lab.xdb_in_background(&["backup", "push"]);
    eventually("both push", SOON, || (sessions() == "2").then_some(()));
    eventually("xdb's program is there to be killed", SOON, || {
        (lab.sh(kill).code == 0).then_some(())
    });
    push.wait(SOON).failed(4, "killed by signal 9 (SIGKILL");
    assert!(by_hand.is_running() && unfinished(&lab) > 0);
    lab.xdb(&["backup", "push"])
        .failed(3, "pushes a base backup that xdb did not start");
    lab.remove_toxic("slow");
    let by_hand = by_hand.wait(Duration::from_secs(120));
    assert_eq!(by_hand.code, 0, "{by_hand:?}");
    lab.ok("rm /var/lib/postgresql/17/main/base/random");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    let complete = listed(&lab)
        .iter()
        .filter(|it| it["status"] == "complete")
        .count();
    assert_eq!(complete, 2);
    lab.assert_nothing_left_behind();
}
