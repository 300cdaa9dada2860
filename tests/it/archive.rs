//! `wal-push` and `wal-fetch`, as PostgreSQL calls them and as it reads their exit codes.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Lab, Output, Program, Service, eventually, for_each_program};

const DATA: &str = "/var/lib/postgresql/17/main";
const SOON: Duration = Duration::from_secs(30);

for_each_program!(
    postgresql_archives_through_xdb,
    other_content_under_a_stored_name_is_an_alarm,
    wal_fetch_tells_absent_from_everything_else,
    a_hanging_s3_ends_at_the_deadline,
);

/// Runs `xdb` in the data directory, as PostgreSQL does.
fn in_data(lab: &Lab, command: &str) -> Output {
    lab.sh_as_postgres(&format!("cd {DATA} && {command}"))
}

/// A table's rows are in a segment that PostgreSQL has archived; returns the segment's name.
fn archived_segment(lab: &Lab) -> String {
    lab.sql("CREATE TABLE IF NOT EXISTS filler AS SELECT 1 AS a");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("SELECT pg_switch_wal()");
    wait_archived(lab, &segment);
    segment
}

fn wait_archived(lab: &Lab, segment: &str) {
    eventually("the segment is archived", SOON, || {
        let last = lab.sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
        (last.get(..24) >= Some(segment)).then_some(())
    });
}

fn stored(lab: &Lab, segment: &str) -> bool {
    lab.sh(&format!(
        "ls /srv/s3/walg-test/main/pg17/wal_005/{segment}.lz4"
    ))
    .code
        == 0
}

fn postgresql_archives_through_xdb(program: Program) {
    let lab = Lab::start(program);
    let segment = archived_segment(&lab);
    assert!(stored(&lab, &segment));
    assert_eq!(lab.sql("SELECT failed_count FROM pg_stat_archiver"), "0");
    let log = lab.ok("cat /var/log/postgresql/lab.log");
    assert!(!log.contains("could not rename"), "{log}");

    // After a crash PostgreSQL asks again for what is stored: the same content is success.
    assert_eq!(
        in_data(&lab, &format!("xdb wal-push pg_wal/{segment}")).code,
        0
    );

    // Absent is 1 and says nothing; present is 0 and the file is whole.
    let fetched = in_data(&lab, &format!("xdb wal-fetch {segment} /tmp/fetched"));
    assert_eq!(fetched.code, 0, "{fetched:?}");
    lab.ok(&format!("cmp /tmp/fetched {DATA}/pg_wal/{segment}"));
    lab.assert_nothing_left_behind();
}

fn other_content_under_a_stored_name_is_an_alarm(program: Program) {
    let lab = Lab::start(program);
    let segment = archived_segment(&lab);
    let before = lab.ok(&format!(
        "sha256sum /srv/s3/walg-test/main/pg17/wal_005/{segment}.lz4"
    ));
    lab.ok(&format!(
        "install -d -o postgres /tmp/other/pg_wal && head -c 16M /dev/urandom >/tmp/other/pg_wal/{segment} && chown -R postgres /tmp/other"
    ));
    let pushed = lab.sh_as_postgres(&format!("cd /tmp/other && xdb wal-push pg_wal/{segment}"));
    assert_eq!(pushed.code, 1, "{pushed:?}");
    assert!(pushed.stderr.contains("other content"), "{pushed:?}");
    assert!(pushed.stderr.contains("HINT: two clusters"), "{pushed:?}");
    let after = lab.ok(&format!(
        "sha256sum /srv/s3/walg-test/main/pg17/wal_005/{segment}.lz4"
    ));
    assert_eq!(before, after, "the stored segment was overwritten");
}

fn wal_fetch_tells_absent_from_everything_else(program: Program) {
    let lab = Lab::start(program);
    lab.config("[archive]\nfetch_timeout = \"3s\"");
    let segment = archived_segment(&lab);
    let absent = "0000000100000000000000AA";
    let codes = |what: &str, name: &str, code: i32| {
        for (flag, expected) in [("", code), ("--standby ", code.min(1))] {
            let fetched = in_data(&lab, &format!("xdb wal-fetch {flag}{name} /tmp/fetched"));
            assert_eq!(fetched.code, expected, "{what} {flag}: {fetched:?}");
            assert_eq!(
                lab.sh("test -e /tmp/fetched").code,
                1,
                "{what}: half a file was left"
            );
            if code == 126 {
                assert!(fetched.stderr.contains("HINT:"), "{what}: {fetched:?}");
            }
        }
    };
    codes("absent", absent, 1);
    codes("no such history", "00000002.history", 1);
    codes("not archived by PostgreSQL", "postgresql.conf", 126);
    // Clap's 2 would end a recovery early: wherever a flag stands, the codes are wal-fetch's own.
    for (command, code) in [
        ("xdb wal-fetch", 126),
        ("xdb --config /no/such/file wal-fetch a b", 126),
        (
            "xdb --config=/etc/xdb/xdb.toml wal-fetch --nonsense a b",
            126,
        ),
        ("xdb wal-fetch a b --standby", 1),
        ("xdb wal-fetch --standby", 1),
    ] {
        let fetched = in_data(&lab, command);
        assert_eq!(
            (fetched.code, fetched.stderr.contains("HINT:")),
            (code, true),
            "{command}: {fetched:?}"
        );
    }

    lab.config("[archive]\nfetch_timeout = \"3s\"\n[s3]\nsecret_access_key = \"wrong\"");
    codes("wrong key", &segment, 126);
    lab.config("[archive]\nfetch_timeout = \"3s\"\nrepository = \"s3://nowhere/main\"");
    codes("no such bucket", absent, 126);
    lab.config("[archive]\nfetch_timeout = \"3s\"\nprogram = \"/usr/local/bin/no-wal-g\"");
    codes("no program", absent, 126);
    lab.config("[archive]\nfetch_timeout = \"3s\"\nno_such_key = 1");
    codes("wrong configuration", absent, 126);

    lab.config("[archive]\nfetch_timeout = \"3s\"");
    lab.proxy_enabled(false);
    codes("S3 away, file absent", absent, 126);
    codes("S3 away, file there", &segment, 126);
    lab.proxy_enabled(true);
    let fetched = in_data(&lab, &format!("xdb wal-fetch {segment} /tmp/fetched"));
    assert_eq!(fetched.code, 0, "{fetched:?}");
}

#[test]
fn a_passing_fault_does_not_stop_a_recovery() {
    let lab = Lab::start(Program::Walrus);
    let segment = archived_segment(&lab);
    lab.proxy_enabled(false);
    let fetch = lab.in_background(&["xdb", "wal-fetch", &segment, "/tmp/fetched"]);
    // It has been turned away at least once before S3 comes back.
    eventually("the program was refused", SOON, || {
        let said = lab.sh("cat /tmp/background.*/stderr").stdout;
        said.contains("retrying transient error").then_some(())
    });
    assert!(fetch.is_running());
    lab.proxy_enabled(true);
    assert_eq!(fetch.wait(SOON).code, 0);
    lab.ok(&format!("cmp /tmp/fetched {DATA}/pg_wal/{segment}"));
}

#[test]
fn every_failure_of_wal_push_is_1_and_says_what_to_do() {
    let lab = Lab::start(Program::Walrus);
    let segment = archived_segment(&lab);
    let fails = |what: &str, path: &str, words: &str| {
        let pushed = in_data(&lab, &format!("xdb wal-push {path}"));
        assert_eq!(pushed.code, 1, "{what}: {pushed:?}");
        assert!(pushed.stderr.contains(words), "{what}: {pushed:?}");
        assert!(pushed.stderr.contains("HINT:"), "{what}: {pushed:?}");
        for secret in ["lab-secret-key", "lab-password"] {
            assert!(!pushed.stderr.contains(secret), "{what}: {pushed:?}");
        }
    };
    let segment = format!("pg_wal/{segment}");
    fails(
        "not a segment",
        "PG_VERSION",
        "is not a file that PostgreSQL archives",
    );
    fails(
        "a directory",
        "pg_wal",
        "is not a file that PostgreSQL archives",
    );
    fails(
        "no such file",
        "pg_wal/0000000100000000000000AA",
        "cannot read",
    );
    lab.config("[archive]\nprogram = \"no-such-program\"");
    fails("no program", &segment, "there is no WAL-G program");
    lab.config("[archive]\nprogram = \"/usr/bin/true\"");
    fails("another program", &segment, "neither wal-g nor walrus");
    lab.config("[s3]\nca_cert_file = \"/etc/ssl/certs/ca-certificates.crt\"");
    fails(
        "a setting that walrus ignores",
        &segment,
        "walrus would ignore s3.ca_cert_file",
    );
    lab.config("[archive]\nrepository = \"s3://nowhere/main\"");
    fails("no such bucket", &segment, "no such bucket");
    lab.config("[s3]\nsecret_access_key = \"wrong\"");
    fails(
        "wrong key",
        &segment,
        "access denied (SignatureDoesNotMatch)",
    );
    lab.config("[s3]\nsecret_acces_key = \"typo\"");
    fails("wrong configuration", &segment, "/etc/xdb/xdb.toml:");
    lab.config("[archive]\npush_timeout = \"3s\"");
    lab.proxy_enabled(false);
    fails("S3 away", &segment, "S3 does not answer");
    let none = in_data(&lab, "xdb wal-push");
    assert_eq!(
        (none.code, none.stderr.contains("usage:")),
        (1, true),
        "{none:?}"
    );
    lab.assert_nothing_left_behind();
}

#[test]
fn the_archiver_outlives_a_failing_archive_and_catches_up() {
    let lab = Lab::start(Program::Walrus);
    archived_segment(&lab);
    lab.config("[archive]\npush_timeout = \"2s\"");
    lab.proxy_enabled(false);
    lab.sql("CREATE TABLE behind AS SELECT generate_series(1, 1000) AS a");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("SELECT pg_switch_wal()");
    eventually("archiving fails", SOON, || {
        (lab.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    let log = lab.ok("cat /var/log/postgresql/lab.log");
    assert!(
        log.contains("archive command failed with exit code 1"),
        "{log}"
    );
    // A signal or an exit code above 125 would have been FATAL for the archiver.
    let fatal = log
        .lines()
        .find(|line| line.contains("FATAL") && line.contains("archive command"));
    assert_eq!(fatal, None);
    lab.proxy_enabled(true);
    eventually("the backlog is archived", Duration::from_secs(90), || {
        stored(&lab, &segment).then_some(())
    });
}

fn a_hanging_s3_ends_at_the_deadline(program: Program) {
    let lab = Lab::start(program);
    let segment = archived_segment(&lab);
    lab.config("[archive]\npush_timeout = \"2s\"\nfetch_timeout = \"2s\"");
    // Bytes go in and none come back.
    lab.toxic(
        "hang",
        json!({"type": "timeout", "attributes": {"timeout": 0}}),
    );
    let asked =
        lab.sh("curl -s -m 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:7000/walg-test");
    assert_eq!(
        asked.stdout, "000",
        "no answer comes through: the toxic is hit"
    );
    // Far beyond both deadlines; timeout's own code would be 124.
    let push = in_data(&lab, &format!("timeout 25 xdb wal-push pg_wal/{segment}"));
    assert_eq!(push.code, 1, "{push:?}");
    let fetch = in_data(
        &lab,
        &format!("timeout 25 xdb wal-fetch {segment} /tmp/fetched"),
    );
    assert_eq!(fetch.code, 126, "{fetch:?}");
    lab.assert_nothing_left_behind();
}

/// What the codes of `wal-fetch` rest on: PostgreSQL's own reading of them, one by one.
#[test]
fn postgresql_reads_restore_commands_exit_codes_as_the_facts_say() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE marker (id int)");
    assert_eq!(lab.xdb(&["backup", "push"]).code, 0);
    lab.sql("INSERT INTO marker VALUES (1)");
    let first = archived_segment(&lab);
    lab.sql("INSERT INTO marker VALUES (2)");
    let last = archived_segment(&lab);
    let backup =
        lab.ok("ls -d /srv/s3/walg-test/main/pg17/basebackups_005/*/ | xargs -n 1 basename");
    lab.ok("install -d -o postgres -m 0700 /tmp/codes && install -d -o postgres -m 0700 /tmp/codes/base");
    let fetched = lab.sh_as_postgres(&format!(
        "export WALG_S3_PREFIX=s3://walg-test/main/pg17 AWS_ENDPOINT=http://127.0.0.1:7000 AWS_S3_FORCE_PATH_STYLE=true \
         AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab-secret-key; walrus backup-fetch /tmp/codes/base {backup}"
    ));
    assert_eq!(fetched.code, 0, "{fetched:?}");

    // (code for the last segment, the server opens, rows in it)
    for (code, rows) in [
        (0, Some("2")),
        (1, Some("1")),
        // The trap: recovery ends early and "successfully".
        (2, Some("1")),
        (74, Some("1")),
        (101, Some("1")),
        (126, None),
        (255, None),
    ] {
        let data = format!("/tmp/codes/{code}");
        lab.write_file(
            "/tmp/codes/restore",
            &format!(
                "#!/bin/sh\n[ \"$1\" = {last} ] && [ {code} != 0 ] && exit {code}\nexec xdb wal-fetch \"$1\" \"$2\"\n"
            ),
            "postgres:postgres",
            "0755",
        );
        lab.write_file(
            "/tmp/codes/settings",
            "restore_command = '/tmp/codes/restore \"%f\" \"%p\"'\nrecovery_target_action = promote\n\
             archive_mode = off\nport = 5499\nfsync = off\n",
            "postgres:postgres",
            "0600",
        );
        let ran = lab.sh_as_postgres(&format!(
            "cp -a /tmp/codes/base {data} && cat /tmp/codes/settings >>{data}/postgresql.conf && touch {data}/recovery.signal
             /usr/lib/postgresql/17/bin/pg_ctl -D {data} -l /tmp/codes/log.{code} -t 30 -w start >/dev/null || exit 9
             for i in $(seq 100); do
                 [ \"$(psql -p 5499 -XAtc 'SELECT pg_is_in_recovery()' 2>/dev/null)\" = f ] && break; sleep 0.1
             done
             psql -p 5499 -XAtc 'SELECT count(*) FROM marker'; opened=$?
             /usr/lib/postgresql/17/bin/pg_ctl -D {data} -m immediate stop >/dev/null; exit $opened"
        ));
        let log = lab.ok(&format!("cat /tmp/codes/log.{code}"));
        assert!(
            log.contains(&format!("restored log file \"{first}\"")),
            "{code}: {log}"
        );
        match rows {
            Some(rows) => assert_eq!((ran.code, ran.stdout.trim()), (0, rows), "{code}: {log}"),
            None => {
                assert_ne!(ran.code, 0, "{code}: {log}");
                assert!(log.contains("FATAL"), "{code}: {log}");
            }
        }
    }
}

#[test]
fn a_live_standby_outlives_a_lost_s3_keeps_what_is_not_stored_and_archives_once_promoted() {
    let lab = Lab::start(Program::Walrus);
    archived_segment(&lab);
    lab.config("[archive]\nfetch_timeout = \"2s\"");
    let started = lab.sh_as_postgres(
        "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/pg_basebackup -h 127.0.0.1 -U postgres -D /tmp/standby -X stream -c fast &&
         echo \"port = 5499
                primary_conninfo = ''
                archive_mode = always
                restore_command = 'xdb wal-fetch --standby %f %p'\" >>/tmp/standby/postgresql.conf &&
         touch /tmp/standby/standby.signal",
    );
    assert_eq!(started.code, 0, "{started:?}");
    lab.proxy_enabled(false);
    lab.sh_as_postgres(
        "/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -l /tmp/standby.log start",
    );
    eventually("wal-fetch was asked and S3 was away", SOON, || {
        lab.sh("cat /tmp/standby.log")
            .stdout
            .contains("S3 does not answer")
            .then_some(())
    });
    let role = lab.sh_as_postgres("psql -p 5499 -XAtc 'SELECT pg_is_in_recovery()'");
    assert_eq!(
        role.stdout.trim(),
        "t",
        "{}",
        lab.sh("cat /tmp/standby.log").stdout
    );

    lab.proxy_enabled(true);
    lab.sql("CREATE TABLE later AS SELECT 1 AS a");
    archived_segment(&lab);
    eventually(
        "the standby goes on from the archive",
        Duration::from_secs(60),
        || {
            (lab.sh_as_postgres("psql -p 5499 -XAtc 'SELECT a FROM later'")
                .stdout
                .trim()
                == "1")
                .then_some(())
        },
    );
    // archive_mode=always: the standby stores nothing itself, and answers for what the bucket holds only.
    let standby =
        |path: &str| lab.sh_as_postgres(&format!("cd /tmp/standby && xdb wal-push {path}"));
    let stored = lab.ok("ls /srv/s3/walg-test/main/pg17/wal_005 | head -1 | cut -d. -f1");
    lab.ok(&format!(
        "cp -a {DATA}/pg_wal/{stored} /tmp/standby/pg_wal/ 2>/dev/null || true"
    ));
    lab.ok("cp -a /tmp/standby/PG_VERSION /tmp/standby/pg_wal/0000000100000000000000AA");
    let kept = standby("pg_wal/0000000100000000000000AA");
    assert_eq!(
        (kept.code, kept.stderr.contains("this standby keeps it")),
        (1, true),
        "{kept:?}"
    );
    lab.ok(&format!(
        "cp -a /tmp/standby/PG_VERSION /tmp/standby/pg_wal/{stored}"
    ));
    assert_eq!(standby(&format!("pg_wal/{stored}")).code, 0);

    // Promoted, it archives; the old primary, which does not know the new timeline, must not.
    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -w promote");
    eventually(
        "the new timeline's history is stored",
        Duration::from_secs(90),
        || {
            (lab.sh("ls /srv/s3/walg-test/main/pg17/wal_005/00000002.history*")
                .code
                == 0)
                .then_some(())
        },
    );
    // The history alone proves nothing; what the new primary wrote ties it to this cluster.
    lab.sh_as_postgres(
        "psql -p 5499 -XAtc 'CREATE TABLE mine (a int)' -c 'SELECT pg_switch_wal()'",
    )
    .succeeded("the new primary writes");
    eventually(
        "a segment of the new timeline is stored",
        Duration::from_secs(90),
        || {
            (lab.sh("ls /srv/s3/walg-test/main/pg17/wal_005/00000002????????????????.*")
                .code
                == 0)
                .then_some(())
        },
    );
    lab.sql("INSERT INTO later VALUES (2)");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.ok(&format!(
        "rm -f /srv/s3/walg-test/main/pg17/wal_005/{segment}.lz4"
    ));
    let refused = in_data(&lab, &format!("xdb wal-push pg_wal/{segment}"));
    assert_eq!(
        (refused.code, refused.stderr.contains("timeline 2 exists")),
        (1, true),
        "{refused:?}"
    );
    assert!(
        !stored_at_all(&lab, &segment),
        "a superseded primary archived"
    );
    lab.sh_as_postgres("/usr/lib/postgresql/17/bin/pg_ctl -D /tmp/standby -m immediate stop");
    lab.service("postgres", Service::Down);
}

fn stored_at_all(lab: &Lab, segment: &str) -> bool {
    lab.sh(&format!(
        "ls /srv/s3/walg-test/main/pg17/wal_005/{segment}.*"
    ))
    .code
        == 0
}
