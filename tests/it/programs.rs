//! Where the WAL-G program is found, and whether it can do what is configured.

use std::time::Duration;

use crate::harness::{Lab, Output, Program, eventually};

const SOON: Duration = Duration::from_secs(60);
const DEBIAN: &str = "/var/lib/postgresql/17/deb";
const STORED: &str = "/srv/s3/walg-test/main/pg17/wal_005";

/// A script in place of the program, which does `first` and then runs walrus.
fn wrapper(lab: &Lab, name: &str, first: &str) -> String {
    let path = format!("/opt/wrapped/{name}");
    lab.ok("mkdir -p /opt/wrapped");
    let script = format!("#!/bin/sh\n{first}\nexec /usr/local/bin/walrus \"$@\"\n");
    lab.write_file(&path, &script, "root:root", "0755");
    path
}

fn ok(said: &Output) {
    assert_eq!(said.code, 0, "{said:?}");
}

fn not_ok(said: &Output, words: &str) {
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains(words), "{words:?}: {said:?}");
    for secret in ["lab-secret-key", "lab-password"] {
        assert!(!format!("{said:?}").contains(secret), "{said:?}");
    }
}

/// A cluster as Debian makes and starts it: its own directories, its own tools, and no PATH.
fn debian_cluster(lab: &Lab) {
    lab.ok(
        "install -d -o postgres -g postgres -m 2775 /var/run/postgresql && \
         pg_createcluster 17 deb --port 5433 --locale C.UTF-8 >/dev/null && \
         printf '%s\n' 'archive_mode = on' \"archive_command = 'xdb wal-push \\\"%p\\\"'\" \
             \"wal_level = replica\" >/etc/postgresql/17/deb/conf.d/archive.conf",
    );
    lab.ok("env -i /usr/bin/pg_ctlcluster 17 deb start");
    // As its own user: a container's root may not look into it.
    let environment = lab.sh_as_postgres(&format!(
        "tr '\\0' '\\n' </proc/$(head -n 1 {DEBIAN}/postmaster.pid)/environ"
    ));
    ok(&environment);
    let environment = environment.stdout;
    let has_path = environment.lines().any(|line| line.starts_with("PATH="));
    assert!(!has_path && !environment.is_empty(), "{environment}");
}

fn sql(lab: &Lab, sql: &str) -> String {
    let psql = format!("/usr/lib/postgresql/17/bin/psql -p 5433 -XAtqc \"{sql}\"");
    let said = lab.sh_as_postgres(&psql);
    ok(&said);
    said.stdout.trim().to_owned()
}

/// Ends a segment, and returns its name.
fn ended_segment(lab: &Lab) -> String {
    let segment = sql(lab, "SELECT pg_walfile_name(pg_current_wal_lsn())");
    sql(
        lab,
        "CREATE TABLE IF NOT EXISTS filler (a int); INSERT INTO filler VALUES (1)",
    );
    sql(lab, "SELECT pg_switch_wal()");
    segment
}

#[test]
fn postgresql_started_by_pg_ctlcluster_without_a_path_archives_fetches_and_is_checked() {
    let lab = Lab::start_bare(Program::Walrus);
    let config = |program: &str| {
        lab.config(&format!(
            "[postgres]\nhost = \"/var/run/postgresql\"\nport = 5433\ndata_directory = \"{DEBIAN}\"\n\
             [archive]\nprogram = \"{program}\""
        ));
    };
    config("walrus");
    debian_cluster(&lab);
    let bare = |command: &str| lab.sh_as_postgres(&format!("cd {DEBIAN} && env -i {command}"));
    let check =
        |path: &str| lab.sh_as_postgres(&format!("cd /opt && {path} xdb check archive-program"));

    let segment = ended_segment(&lab);
    eventually("the segment is archived without a PATH", SOON, || {
        let stored = lab.sh(&format!("ls {STORED}/{segment}.lz4"));
        (stored.code == 0).then_some(())
    });
    assert_eq!(sql(&lab, "SELECT failed_count FROM pg_stat_archiver"), "0");
    let fetched = "pg_wal/RECOVERYXLOG";
    for path in ["", "PATH= "] {
        let xdb = format!("{path}/usr/local/bin/xdb");
        ok(&bare(&format!(
            "{xdb} wal-fetch --standby {segment} {fetched}"
        )));
        ok(&bare(&format!("/usr/bin/cmp {fetched} pg_wal/{segment}")));
        ok(&bare(&format!("{xdb} wal-fetch {segment} {fetched}")));
        ok(&bare(&format!("{xdb} wal-push pg_wal/{segment}")));
        ok(&bare(&format!("{xdb} check archive-program")));
    }
    ok(&bare("/usr/local/bin/xdb backup push"));
    ok(&check(""));

    // What a shell finds and archive_command does not.
    lab.ok("mkdir -p /opt/own && cp /usr/local/bin/walrus /opt/own/walrus-own");
    config("walrus-own");
    not_ok(&check(""), "there is no WAL-G program walrus-own");
    not_ok(
        &check("PATH=/opt/own:$PATH"),
        "archive_command does not find walrus-own",
    );
    ended_segment(&lab);
    eventually("archive_command does not find it", SOON, || {
        let failed = sql(&lab, "SELECT failed_count > 0 FROM pg_stat_archiver");
        (failed == "t").then_some(())
    });
    config("own/walrus-own");
    not_ok(&check(""), "write the whole path");
    config("/opt/own/walrus-own");
    ok(&check(""));
    let last = ended_segment(&lab);
    eventually("all is archived by the whole path", SOON, || {
        (lab.sh(&format!("ls {STORED}/{last}.lz4")).code == 0).then_some(())
    });
    lab.ok("pg_ctlcluster 17 deb stop -m immediate");
}

#[test]
fn what_a_program_cannot_do_with_its_settings_is_known_before_it_is_needed() {
    let lab = Lab::start(Program::Walrus);
    let check = || lab.xdb(&["check", "archive-program"]);
    let key = "0123456789abcdef".repeat(4);
    let sealed = format!(
        "[archive.settings]\nWALG_LIBSODIUM_KEY = \"{key}\"\nWALG_LIBSODIUM_KEY_TRANSFORM = \"hex\""
    );
    for compression in ["lz4", "zstd", "lzma", "brotli", "none"] {
        for more in ["", &sealed] {
            lab.config(&format!(
                "[archive]\ncompression = \"{compression}\"\n{more}"
            ));
            ok(&check());
        }
    }
    let no_brotli = wrapper(
        &lab,
        "walrus-without-brotli",
        "case \"$1-$WALG_COMPRESSION_METHOD\" in st-brotli) echo 'FATAL: unknown compression method: brotli' >&2; exit 1;; esac",
    );
    let deaf = wrapper(&lab, "walrus-lz4", "export WALG_COMPRESSION_METHOD=lz4");
    let open = wrapper(&lab, "walrus-open", "unset WALG_LIBSODIUM_KEY");
    let dies = wrapper(&lab, "walrus-dies", "case $1 in st) kill -9 $$;; esac");
    for (config, words) in [
        (
            "[archive.settings]\nWALG_LIBSODIUM_KEY = \"short\"".to_owned(),
            "libsodium key",
        ),
        (
            "[archive.settings]\nWALG_LIBSODIUM_KEY_PATH = \"/nowhere/key\"".to_owned(),
            "/nowhere/key",
        ),
        (
            "[archive.settings]\nS3_STORAGE_CLASS = \"STANDARD_IA\"".to_owned(),
            "walrus would ignore archive.settings.S3_STORAGE_CLASS",
        ),
        (
            format!("[archive]\nprogram = \"{no_brotli}\"\ncompression = \"brotli\""),
            "unknown compression method: brotli",
        ),
        (
            format!("[archive]\nprogram = \"{deaf}\"\ncompression = \"zstd\""),
            "ignores archive.compression",
        ),
        (
            format!("[archive]\nprogram = \"{open}\"\n{sealed}"),
            "does not encrypt",
        ),
        (
            format!("[archive]\nprogram = \"{dies}\""),
            "killed by signal 9 (SIGKILL",
        ),
    ] {
        lab.config(&config);
        not_ok(&check(), words);
    }
    assert_eq!(lab.ok("ls /var/lib/xdb | grep -c trial || true"), "0");

    // A password that only wal-g can answer with.
    lab.config("");
    ok(&check());
    lab.sql("ALTER SYSTEM SET password_encryption = 'md5'");
    lab.sql("SELECT pg_reload_conf()");
    lab.sql("SET password_encryption = 'md5'; ALTER ROLE postgres PASSWORD 'lab-password'");
    lab.ok("sed -i s/scram-sha-256/md5/ /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    let pushed = lab.xdb(&["backup", "push"]);
    pushed.failed(4, "MD5");
    not_ok(&check(), "md5 password");
    let log = lab.ok("cat /var/log/postgresql/lab.log");
    assert!(!log.contains("could not receive data from client"), "{log}");
}
