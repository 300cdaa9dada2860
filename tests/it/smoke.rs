//! The lab itself: what every other test takes for granted.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Lab, Program, SCRATCH, Service, eventually, for_each_program};

/// Any answer of S3 through toxiproxy, as an HTTP status; 000 when there is none.
const ASK_S3: &str = "curl -s -m 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:7000/walg-test";

for_each_program!(the_lab_has_every_program_and_server);

fn the_lab_has_every_program_and_server(program: Program) {
    let lab = Lab::start(program);
    assert_eq!(
        lab.sql("SELECT current_setting('data_directory'), current_setting('data_checksums')"),
        "/var/lib/postgresql/17/main|on"
    );
    assert_eq!(
        lab.ok("PGPASSWORD=lab-password psql -XAtc 'SELECT 1' -h 127.0.0.1 -U postgres"),
        "1"
    );
    assert_eq!(
        lab.ok(ASK_S3),
        "403",
        "S3 answers, and asks for credentials"
    );
    lab.ok(&format!("{} --version", program.path()));
    lab.ok("for program in pg_amcheck pg_checksums pg_controldata; do test -x /usr/lib/postgresql/17/bin/$program || exit 1; done");
    lab.sql("CREATE EXTENSION amcheck");
    lab.ok("pgbouncer --version && haproxy -v && redis-server --version");

    let xdb = lab.xdb(&["--version"]);
    assert_eq!(xdb.code, 0, "{xdb:?}");
    assert_eq!(
        lab.ok("stat -c '%U:%G %a' /etc/xdb/xdb.toml"),
        "root:postgres 640"
    );
    assert!(lab.ok("cat /etc/xdb/xdb.toml").contains(program.path()));
    lab.assert_nothing_left_behind();
}

#[test]
fn a_command_is_reported_faithfully() {
    let lab = Lab::start_bare(Program::Walrus);
    assert!(
        lab.ok("sv status /run/service/*")
            .lines()
            .all(|line| line.starts_with("run:"))
    );
    assert_eq!(
        lab.sh("pgrep -x postgres").code,
        1,
        "a bare lab has no PostgreSQL"
    );

    for code in [0, 1, 3, 74, 126, 255] {
        let said = lab.sh(&format!("echo out; echo err >&2; exit {code}"));
        assert_eq!(
            (said.code, said.stdout.as_str(), said.stderr.as_str()),
            (code, "out\n", "err\n")
        );
    }
    assert_eq!(lab.sh("kill -9 $$").code, 137);
    assert_eq!(
        lab.sh("seq 1 200000; seq 1 200000 >&2")
            .stdout
            .lines()
            .count(),
        200_000
    );

    let who = lab.sh_as_postgres("id -un; pwd; echo $HOME $AWS_EC2_METADATA_DISABLED");
    assert_eq!(
        who.stdout,
        "postgres\n/var/lib/postgresql\n/var/lib/postgresql true\n"
    );

    let xdb = lab.xdb_in_background(&["--version"]);
    assert_eq!(xdb.wait(Duration::from_secs(10)).code, 0);
    let killed = lab.in_background(&["bash", "-c", "echo begun; sleep 60"]);
    eventually("it has begun", Duration::from_secs(10), || {
        (lab.sh("grep -qx begun /tmp/background.*/stdout").code == 0).then_some(())
    });
    assert!(killed.is_running());
    killed.signal("KILL");
    let said = killed.wait(Duration::from_secs(10));
    assert_eq!((said.code, said.stdout.as_str()), (137, "begun\n"));
}

#[test]
fn services_stop_and_start() {
    let lab = Lab::start(Program::Walrus);
    lab.service("postgres", Service::Down);
    assert_eq!(lab.sh("pgrep -x postgres").code, 1);
    lab.service("postgres", Service::Up);
    assert_eq!(lab.sql("SELECT 1"), "1");
    assert!(
        lab.ok("cat /var/log/postgresql/lab.log")
            .contains("received fast shutdown request")
    );

    lab.service("s3", Service::Down);
    assert_eq!(lab.sh(ASK_S3).stdout, "000");
    lab.service("s3", Service::Up);
    assert_eq!(lab.ok(ASK_S3), "403");
}

#[test]
fn faults_on_the_way_to_s3_take_effect() {
    let lab = Lab::start_bare(Program::Walrus);
    lab.proxy_enabled(false);
    let cut = lab.sh(ASK_S3);
    assert_eq!(
        (cut.code, cut.stdout.as_str()),
        (7, "000"),
        "7 is curl's connection refused"
    );
    lab.proxy_enabled(true);
    assert_eq!(lab.ok(ASK_S3), "403");

    lab.toxic(
        "slow",
        json!({"type": "latency", "attributes": {"latency": 1000}}),
    );
    let begin = Instant::now();
    lab.ok(ASK_S3);
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    lab.remove_toxic("slow");
    let begin = Instant::now();
    lab.ok(ASK_S3);
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn files_and_settings_arrive() {
    let lab = Lab::setup(Program::Walrus)
        .bare()
        .tmpfs(SCRATCH, "16m")
        .start();
    lab.write_file(
        "/tmp/it's",
        "$HOME 'and' \"more\"\n",
        "postgres:postgres",
        "0600",
    );
    assert_eq!(
        lab.ok(r#"stat -c '%U %a' "/tmp/it's"; cat "/tmp/it's""#),
        "postgres 600\n$HOME 'and' \"more\""
    );

    lab.config("[postgres]\npassword = \"wrong\"");
    assert!(
        lab.ok("cat /etc/xdb/xdb.toml")
            .contains("password = \"wrong\"")
    );
    assert_eq!(
        lab.ok("stat -c '%U:%G %a' /etc/xdb/xdb.toml"),
        "root:postgres 640"
    );

    // What is copied below a bucket's directory are objects.
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness");
    lab.copy_in(&here, "/srv/s3/walg-test/some/prefix");
    let object = "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key http://127.0.0.1:7000/walg-test/some/prefix/mod.rs";
    assert_eq!(lab.ok(object), include_str!("harness/mod.rs").trim_end());

    let full = lab.sh_as_postgres(&format!("head -c 32M /dev/zero >{SCRATCH}/file"));
    assert!(full.stderr.contains("No space left"), "{full:?}");
}

#[test]
fn what_is_left_behind_is_found() {
    let lab = Lab::start(Program::Walrus);
    lab.ok(&format!(
        "install -d -o postgres {SCRATCH} && touch {SCRATCH}/lock"
    ));
    lab.assert_nothing_left_behind();

    let s3 = "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key -X POST";
    lab.ok(&format!("mkdir {SCRATCH}/20261121"));
    lab.ok("mkdir -p /srv/s3/walg-test/xdb/main/locks && touch /srv/s3/walg-test/xdb/main/locks/backup");
    lab.ok(&format!(
        "{s3} 'http://127.0.0.1:7000/walg-test/main/pg17/a/key?uploads='"
    ));
    lab.ok("setpriv --reuid=postgres --clear-groups bash -c 'exec -a walrus sleep 60' >/dev/null 2>&1 </dev/null &");
    let left = eventually("four things are left", Duration::from_secs(10), || {
        let left = lab.left_behind();
        (left.len() == 4).then_some(left)
    });
    for each in [
        "scratch /var/lib/xdb/restore-test/20261121",
        "lock /srv/s3/walg-test/xdb/main/locks/backup",
        "unfinished upload walg-test/main/pg17/a/key",
        "walrus 60",
    ] {
        assert!(
            left.iter().any(|left| left.contains(each)),
            "{each}: {left:?}"
        );
    }
}
