//! `xdb prune`: what the plan says is what goes, through both programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Program, eventually, for_each_program};

const SOON: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "/srv/s3/walg-test/main/pg17";

for_each_program!(
    a_prune_does_what_its_dry_run_said_and_keeps_what_it_promised,
    a_persons_mark_is_respected_and_xdbs_own_comes_off,
    deltas_go_with_what_they_build_on,
    a_killed_prune_is_gone_on_with_by_the_next,
);

/// A lab whose segments end only where a test ends them, with `retention` and no restore test's room to spare.
fn start(program: Program, retention: &str) -> Lab {
    let lab = Lab::start(program);
    lab.config(&format!("[retention]\nwindow_days = 0\n{retention}"));
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("CREATE TABLE kept (at int)");
    lab
}

/// Pushes a backup, and one segment of WAL after it that holds the row `row`.
fn push(lab: &Lab, row: usize) -> String {
    let pushed = lab.xdb_json(&["backup", "push"]);
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql(&format!("INSERT INTO kept VALUES ({row})"));
    lab.sql("SELECT pg_switch_wal()");
    eventually("the segment is archived", SOON, || {
        (lab.sh(&format!("ls {REPOSITORY}/wal_005/{segment}.lz4"))
            .code
            == 0)
            .then_some(())
    });
    pushed["backup"].as_str().unwrap().to_owned()
}

fn pushed(lab: &Lab, count: usize) -> Vec<String> {
    (0..count).map(|row| push(lab, row)).collect()
}

/// Rewrites when a backup finished: what it says of itself is all that tells its age.
fn finished(lab: &Lab, backup: &str, at: &str) {
    let path = format!("basebackups_005/{backup}_backup_stop_sentinel.json");
    let sentinel = lab.ok(&format!("cat {REPOSITORY}/{path}"));
    let mut sentinel: Value = serde_json::from_str(&sentinel).unwrap();
    assert!(sentinel["FinishTime"].is_string(), "{sentinel}");
    sentinel["FinishTime"] = json!(at);
    lab.put_object(
        &format!("walg-test/main/pg17/{path}"),
        &sentinel.to_string(),
    );
}

/// The names of the plan's backups with this action.
fn with(plan: &Value, action: &str) -> Vec<String> {
    let backups = plan["backups"].as_array().unwrap().iter();
    let found = backups.filter(|backup| backup["action"] == action);
    found
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Every object of the repository, histories and backup histories included.
fn objects(lab: &Lab) -> Vec<String> {
    let listed = lab.ok(&format!("cd {REPOSITORY} && find . -type f | sort"));
    listed.lines().map(str::to_owned).collect()
}

fn backups(lab: &Lab) -> Vec<String> {
    let listed = lab.xdb_json(&["backup", "list"]);
    let listed = listed.as_array().unwrap().iter();
    listed
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

fn mark(lab: &Lab, program: Program, backup: &str) {
    // A person's own hand, with the environment that xdb would give.
    let run = format!(
        "WALG_S3_PREFIX=s3://walg-test/main/pg17 AWS_ENDPOINT=http://127.0.0.1:7070 AWS_REGION=us-east-1 \
         AWS_S3_FORCE_PATH_STYLE=true AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab-secret-key \
         {} backup-mark {backup}",
        program.path()
    );
    lab.sh_as_postgres(&run).succeeded("backup-mark");
}

/// That restoring `backup` for real gives the rows up to `row`, and no more.
fn restores(lab: &Lab, backup: &str, rows: usize) {
    let sql = format!("SELECT count(*) = {rows} FROM public.kept");
    let tested = lab.xdb(&["restore-test", "--backup", backup, "--sql", &sql]);
    assert_eq!(tested.code, 0, "{tested:?}");
}

fn a_prune_does_what_its_dry_run_said_and_keeps_what_it_promised(program: Program) {
    let lab = start(program, "fulls = 1\nmonthly = 3");
    let all = pushed(&lab, 5);
    for (backup, at) in all.iter().zip([
        "2025-12-30T12:00:00Z",
        "2026-01-10T12:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-02-10T12:00:00Z",
    ]) {
        finished(&lab, backup, at);
    }
    let before = objects(&lab);
    let dry = lab.xdb_json(&["prune", "--dry-run"]);
    assert_eq!(objects(&lab), before, "a dry run changed something");
    assert_eq!(with(&dry, "delete"), [all[0].clone(), all[1].clone()]);
    assert_eq!(with(&dry, "mark"), [all[2].clone(), all[3].clone()]);
    assert_eq!(with(&dry, "keep"), [all[4].clone()]);

    let real = lab.xdb_json(&["prune"]);
    for part in ["backups", "wal"] {
        assert_eq!(real[part], dry[part], "the dry run said otherwise");
    }
    assert_eq!((&real["gone"], &real["left"]), (&json!([]), &json!([])));
    assert_eq!(backups(&lab), all[2..]);
    let archived: Vec<String> = objects(&lab)
        .into_iter()
        .filter(|object| object.contains("wal_005/"))
        .collect();
    for range in dry["wal"].as_array().unwrap() {
        for end in ["first", "last"] {
            let name = range[end].as_str().unwrap();
            let is_there = archived
                .iter()
                .any(|it| it.ends_with(&format!("{name}.lz4")));
            assert_eq!(json!(is_there), range["keep"], "{range}");
        }
    }

    // What it did on purpose is no gap, and a keeper says how far it goes.
    let verified = lab.xdb(&["archive", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let shown = lab.xdb(&["backup", "show", &all[2]]).stdout;
    assert!(shown.contains("its own end only"), "{shown}");
    assert!(
        shown.contains("by xdb on ") && shown.contains("2026-01"),
        "{shown}"
    );
    let listed = lab.xdb(&["backup", "list"]).stdout;
    assert!(listed.contains("to its own end only"), "{listed}");
    // The row of the segment after it went with that segment.
    restores(&lab, &all[2], 2);
    restores(&lab, &all[4], 5);

    // Again: nothing more to do. Then the policy wants fewer, and xdb takes its own marks off.
    let again = lab.xdb_json(&["prune"]);
    assert_eq!(with(&again, "keep"), all[2..]);
    lab.config("[retention]\nwindow_days = 0\nfulls = 1\nmonthly = 2");
    let fewer = lab.xdb_json(&["prune"]);
    assert_eq!(with(&fewer, "unmark-and-delete"), [all[2].clone()]);
    assert_eq!(backups(&lab), all[3..]);
    let records = lab.ok("ls /srv/s3/walg-test/xdb/main/keepers");
    assert!(
        records.contains(&all[3]) && !records.contains(&all[2]),
        "{records}"
    );
    // Whoever wants to keep it takes it over, as it is told.
    let shown = lab.xdb(&["backup", "show", &all[3]]).stdout;
    let told = shown
        .split_whitespace()
        .find(|word| word.starts_with("xdb/main/keepers/"));
    lab.ok(&format!("rm /srv/s3/walg-test/{}", told.unwrap()));
    lab.config("[retention]\nwindow_days = 0\nfulls = 1");
    let kept = lab.xdb_json(&["prune"]);
    assert_eq!(with(&kept, "keep"), all[3..]);
    assert_eq!(kept["backups"][0]["reason"], "marked permanent by a person");
    lab.assert_nothing_left_behind();
}

fn a_persons_mark_is_respected_and_xdbs_own_comes_off(program: Program) {
    let lab = start(program, "fulls = 1");
    let all = pushed(&lab, 3);
    mark(&lab, program, &all[0]);
    let real = lab.xdb_json(&["prune"]);
    assert_eq!(with(&real, "delete"), [all[1].clone()]);
    let kept = &real["backups"][0];
    assert_eq!(kept["reason"], "marked permanent by a person");
    assert_eq!(backups(&lab), [all[0].clone(), all[2].clone()]);
    let shown = lab.xdb(&["backup", "show", &all[0]]).stdout;
    assert!(shown.contains("yes, by a person"), "{shown}");
    restores(&lab, &all[0], 0);

    // The other program would not see the mark: nothing from there on may go.
    let other = match program {
        Program::Walrus => {
            let metadata = format!("basebackups_005/{}/metadata.json", all[2]);
            let text = lab.ok(&format!("cat {REPOSITORY}/{metadata}"));
            let mut text: Value = serde_json::from_str(&text).unwrap();
            text["is_permanent"] = json!(true);
            (metadata, text)
        }
        Program::WalG => {
            let sentinel = format!("basebackups_005/{}_backup_stop_sentinel.json", all[2]);
            let text = lab.ok(&format!("cat {REPOSITORY}/{sentinel}"));
            let mut text: Value = serde_json::from_str(&text).unwrap();
            text["IsPermanent"] = json!(true);
            (sentinel, text)
        }
    };
    lab.put_object(
        &format!("walg-test/main/pg17/{}", other.0),
        &other.1.to_string(),
    );
    let newest = push(&lab, 3);
    let real = lab.xdb_json(&["prune"]);
    assert_eq!(with(&real, "delete"), Vec::<String>::new());
    assert_eq!(backups(&lab), [all[0].clone(), all[2].clone(), newest]);
    restores(&lab, &all[2], 4);
    lab.assert_nothing_left_behind();
}

fn deltas_go_with_what_they_build_on(program: Program) {
    let lab = start(program, "fulls = 1\n[archive]\ndelta_max_steps = 1");
    let all = pushed(&lab, 4);
    let is_delta: Vec<bool> = all.iter().map(|name| name.contains("_D_")).collect();
    assert_eq!(is_delta, [false, true, false, true], "{all:?}");
    // A push that was killed the day before yesterday left a part, after all that is kept.
    let unfinished = "base_0000000100000000000000AA";
    lab.put_object(
        &format!(
            "walg-test/main/pg17/basebackups_005/{unfinished}/tar_partitions/part_001.tar.lz4"
        ),
        "x",
    );
    let young = lab.xdb_json(&["prune", "--dry-run"]);
    assert_eq!(
        with(&young, "keep"),
        [&all[2..], &[unfinished.to_owned()]].concat()
    );
    lab.ok(&format!(
        "find {REPOSITORY}/basebackups_005/{unfinished} -exec touch -d '2 days ago' {{}} +"
    ));
    let real = lab.xdb_json(&["prune"]);
    assert_eq!(
        with(&real, "delete"),
        [&all[..2], &[unfinished.to_owned()]].concat()
    );
    assert_eq!(backups(&lab), all[2..]);
    restores(&lab, &all[3], 4);
    lab.assert_nothing_left_behind();
}

fn a_killed_prune_is_gone_on_with_by_the_next(program: Program) {
    let lab = start(program, "fulls = 1");
    let all = pushed(&lab, 4);
    // What a checkpoint takes away now, the writer does not see marked.
    lab.sql("CHECKPOINT");
    let writer = lab.writer();
    let before = objects(&lab);
    // Each request takes its time, so that the program is met at work.
    lab.toxic(
        "slow",
        json!({"type": "latency", "stream": "downstream", "attributes": {"latency": 700}}),
    );
    let prune = lab.xdb_in_background(&["prune"]);
    let path = program.path();
    eventually("the program deletes", SOON, || {
        let deletes = lab.sh(&format!("pgrep -f '^{path} delete .*--confirm'"));
        // wal-g deletes in one request, walrus one by one.
        let begun = program == Program::WalG || objects(&lab).len() < before.len();
        (deletes.code == 0 && begun).then_some(())
    });
    prune.signal("KILL");
    assert_eq!(prune.wait(SOON).code, 137);
    eventually("the program died with xdb", SOON, || {
        (lab.sh(&format!("pgrep -f '^{path} delete'")).code == 1).then_some(())
    });
    lab.remove_toxic("slow");
    lab.end_segments(&writer, 1);
    // The fault took effect: the work is not done, the locks are there, and others are kept out.
    let killed = objects(&lab);
    assert!(
        killed.iter().any(|object| object.contains(&all[2])),
        "all was deleted before"
    );
    let locks = lab.ok("ls /srv/s3/walg-test/xdb/main/locks");
    assert_eq!(locks, "base-backup\nprune");
    let state = "/var/lib/postgresql/db2";
    let on_db2 = lab.sh_as_postgres(&format!(
        "mkdir -p {state} && XDB_NODE_HOSTNAME=db2 XDB_NODE_STATE_DIRECTORY={state} xdb prune"
    ));
    on_db2.failed(3, "its lock expires at ");

    // Even where the policy would keep them by now: half of them may be gone.
    lab.config("[retention]\nwindow_days = 365");
    let next = lab.xdb_json(&["prune"]);
    assert_eq!((&next["gone"], &next["left"]), (&json!([]), &json!([])));
    assert_eq!(backups(&lab), all[3..]);
    restores(&lab, &all[3], 4);
    // From the backup that the killed prune kept, with the WAL of the time since.
    lab.judge_archive(writer);
    let pushed = lab.xdb(&["backup", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_prune_that_is_told_to_end_gives_its_locks_up() {
    let lab = start(Program::Walrus, "fulls = 1");
    let all = pushed(&lab, 2);
    lab.toxic(
        "slow",
        json!({"type": "latency", "stream": "downstream", "attributes": {"latency": 700}}),
    );
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let prune = lab.xdb_in_background(&["prune"]);
        eventually("the program is at work", SOON, || {
            (lab.sh("pgrep -f '^/usr/local/bin/walrus delete'").code == 0).then_some(())
        });
        let locks = lab.ok("ls /srv/s3/walg-test/xdb/main/locks");
        assert_eq!(locks, "base-backup\nprune");
        prune.signal(signal);
        assert_eq!(prune.wait(SOON).code, code);
        lab.assert_nothing_left_behind();
    }
    lab.remove_toxic("slow");
    assert_eq!(lab.xdb(&["prune"]).code, 0);
    assert_eq!(backups(&lab), all[1..]);
}

#[test]
fn a_prune_leaves_the_upload_of_a_push_by_hand_alone() {
    let lab = start(Program::Walrus, "fulls = 1");
    let all = pushed(&lab, 2);
    let object = "http://127.0.0.1:7070/walg-test/main/pg17/basebackups_005/by-hand";
    let curl = "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key";
    let begun = lab.ok(&format!("{curl} -X POST '{object}?uploads='"));
    let (_, id) = begun.split_once("<UploadId>").unwrap();
    let id = id.split('<').next().unwrap();
    let pruned = lab.xdb(&["prune"]);
    assert_eq!(pruned.code, 0, "{pruned:?}");
    assert_eq!(backups(&lab), all[1..]);
    // S3 knows the upload still; it fails where there is none.
    lab.ok(&format!("{curl} '{object}?uploadId={id}'"));
    lab.ok(&format!("{curl} -X DELETE '{object}?uploadId={id}'"));
    let gone = lab.sh(&format!("{curl} '{object}?uploadId={id}'"));
    assert_ne!(gone.code, 0, "S3 tells of uploads that are gone: {gone:?}");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_prune_that_must_not_be_is_refused_and_deletes_nothing() {
    let lab = start(Program::Walrus, "fulls = 1");
    let all = pushed(&lab, 2);
    let before = objects(&lab);
    let refused = |code: i32, words: &str| {
        lab.xdb(&["prune"]).failed(code, words);
        assert_eq!(objects(&lab), before, "{words}");
    };
    lab.config("");
    refused(2, "retention.window_days is not set");
    // The job by schedule then has nothing to do, and says nothing.
    let ran = lab.xdb(&["run", "prune"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    lab.config("[retention]\nwindow_days = 0\nfulls = 1");
    lab.sh("xdb prune").failed(3, "root");

    // Another cluster's backup in the prefix.
    let sentinel = format!("basebackups_005/{}_backup_stop_sentinel.json", all[0]);
    let text = lab.ok(&format!("cat {REPOSITORY}/{sentinel}"));
    let mut foreign: Value = serde_json::from_str(&text).unwrap();
    foreign["SystemIdentifier"] = json!(8);
    let key = format!("walg-test/main/pg17/{sentinel}");
    lab.put_object(&key, &foreign.to_string());
    refused(3, "is of another cluster: its system identifier is 8");
    lab.xdb(&["prune", "--dry-run"])
        .failed(3, "is of another cluster");
    // One that cannot be read.
    lab.put_object(&key, "{");
    refused(3, "is damaged");
    lab.put_object(&key, &text);

    // A base backup at work, here and on another node.
    let lock = json!({ "v": 1, "hostname": "db9", "pid": 7, "since": "2026-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z" });
    lab.put_object("walg-test/xdb/main/locks/base-backup", &lock.to_string());
    refused(3, "base-backup is held by db9");
    lab.ok("rm /srv/s3/walg-test/xdb/main/locks/base-backup");

    // A newer timeline: this node was superseded.
    lab.put_object(
        "walg-test/main/pg17/wal_005/00000002.history",
        "1\t0/70000A0\tno recovery target specified\n",
    );
    lab.xdb(&["prune"])
        .failed(3, "timeline 2 exists, and this server is not on it");
    lab.ok(&format!("rm {REPOSITORY}/wal_005/00000002.history"));

    // S3 away: nothing is guessed.
    lab.proxy_enabled(false);
    refused(4, "S3 does not answer");
    lab.proxy_enabled(true);

    // A replica.
    lab.ok("touch /var/lib/postgresql/17/main/standby.signal");
    lab.ok("kill -INT $(cat /run/service/postgres/supervise/pid)");
    // The server waits for segments that are being archived, several times 15 s under load.
    eventually("it is a standby", 2 * SOON, || {
        let ask = "/usr/lib/postgresql/17/bin/psql -XAtqc 'SELECT pg_is_in_recovery()'";
        (lab.sh_as_postgres(ask).stdout == "t\n").then_some(())
    });
    lab.xdb(&["prune"]).failed(3, "this server is a standby");
    assert_eq!(backups(&lab), all);
    lab.assert_nothing_left_behind();
}

#[test]
fn a_backup_that_somebody_else_deletes_meanwhile_is_critical() {
    let lab = start(Program::Walrus, "fulls = 2");
    let all = pushed(&lab, 4);
    // A program that deletes more than it says: by the plan only the oldest two may go.
    let (script, kept) = ("/usr/local/bin/walrus-and-more", &all[2]);
    lab.write_file(
        script,
        &format!(
            "#!/bin/bash\n/usr/local/bin/walrus \"$@\" || exit\n\
             case \"$*\" in *--confirm*) rm -r /srv/s3/walg-test/main/pg17/basebackups_005/{kept}*;; esac\n"
        ),
        "root:root",
        "0755",
    );
    lab.ok(&format!("chown -R postgres {REPOSITORY}"));
    lab.config(&format!(
        "[archive]\nprogram = \"{script}\"\n[retention]\nwindow_days = 0\nfulls = 2"
    ));
    let pruned = lab.xdb(&["prune"]);
    pruned.failed(
        1,
        &format!("GONE, and retention keeps it: basebackups_005/{kept}"),
    );
    assert!(!backups(&lab).contains(kept));
    let jobs = lab.xdb_json(&["jobs"]);
    let job = jobs
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["job"] == "prune");
    assert_eq!(job.unwrap()["last_run"]["verdict"], "critical", "{jobs}");

    // One that says beforehand that it would is stopped before it does.
    let lists = "#!/bin/bash\ncase \"$*\" in 'delete before'*) echo '  wal_005/0000000100000000000000FF.lz4';; *) exec /usr/local/bin/walrus \"$@\";; esac\n";
    lab.write_file(script, lists, "root:root", "0755");
    push(&lab, 4);
    let before = objects(&lab);
    let pruned = lab.xdb(&["prune"]);
    pruned.failed(
        4,
        "walrus would delete wal_005/0000000100000000000000FF.lz4, which retention keeps",
    );
    assert_eq!(objects(&lab), before);
    // So is one whose words are not understood.
    let silent = lists.replace("  wal_005", "removes wal_005");
    lab.write_file(script, &silent, "root:root", "0755");
    let pruned = lab.xdb(&["prune"]);
    pruned.failed(4, "walrus would delete nothing that its dry run names");
    assert_eq!(objects(&lab), before);
    lab.assert_nothing_left_behind();
}
