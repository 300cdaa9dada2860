//! What comes while the probe waits: it is ready then, and has said what was missing.

use super::*;
use crate::harness::Service;

/// Lets the probe fail with `what` until `passed` since `begin`.
fn after(lab: &Lab, begin: Instant, passed: Duration, what: &str) {
    eventually_says(lab, what);
    eventually("it has waited", SOON, || {
        (begin.elapsed() > passed).then_some(())
    });
}

#[test]
fn a_name_that_appears_after_3_s() {
    let lab = lab();
    let begin = Instant::now();
    let waiting = waiting(&lab, "--host late.internal --port 15432 --timeout 60");
    after(&lab, begin, secs(3), "name: late.internal does not resolve");
    lab.ok("echo '127.0.0.1 late.internal' >>/etc/hosts");
    let ended = Ended::of(waiting);
    ended.assert_ready("the name came");
    assert!(ended.took >= secs(3), "{ended:?}");
}

#[test]
fn postgresql_that_replays_for_10_s_is_waited_for() {
    let lab = lab();
    lab.service("postgres", Service::Down);
    // It asks the archive for a history and a segment, each answer takes its time, and then it is a primary.
    lab.ok(
        r#"cd /var/lib/postgresql/17/main && touch recovery.signal && chown postgres recovery.signal
        echo "restore_command = 'sleep 4; false'
              hot_standby = off" >>postgresql.auto.conf"#,
    );
    lab.ok("sv up postgres");
    eventually("PostgreSQL replays", SOON, || {
        let said = lab.sh("/usr/lib/postgresql/17/bin/pg_isready -h 127.0.0.1 -p 5432");
        said.stdout.contains("rejecting connections").then_some(())
    });
    let begin = Instant::now();
    let direct = lab.sh_as_postgres("xdb wait --json --host 127.0.0.1 --timeout 0");
    let direct = Ended::new(direct, begin.elapsed());
    direct.assert_failed("PostgreSQL starts", 1, "postgres", secs(0));
    direct.assert_says("(57P03)");
    let ended = wait(&lab, &format!("{WAY} --timeout 100"));
    ended.assert_ready("it has replayed");
    ended.assert_says("postgres: ");
    assert!(ended.took >= secs(5), "{ended:?}");
    if ended.took > secs(12) {
        ended.assert_says(" after 10 s: postgres: ");
    }
}

#[test]
fn a_password_a_role_and_a_database_that_come_after_5_s() {
    let lab = lab_with_app();
    wait(&lab, &format!("{WAY} --user app --timeout 20")).assert_ready("before");

    let mend = "s/\"other\"/\"lab-password\"/";
    lab.ok("sed -i '/app/s/lab-password/other/' /etc/xdb-lab/userlist.txt && sv hup pgbouncer");
    let begin = Instant::now();
    let waiting = waiting(&lab, &format!("{WAY} --user app --timeout 60"));
    after(
        &lab,
        begin,
        secs(5),
        "login: SASL authentication failed (08P01)",
    );
    lab.ok(&format!(
        "sed -i '{mend}' /etc/xdb-lab/userlist.txt && sv hup pgbouncer"
    ));
    Ended::of(waiting).assert_ready("the password was corrected");

    let begin = Instant::now();
    let waiting = self::waiting(&lab, &format!("{WAY} --dbname shop --timeout 60"));
    after(
        &lab,
        begin,
        secs(5),
        "login: database \"shop\" does not exist (3D000)",
    );
    lab.sql("CREATE DATABASE shop");
    Ended::of(waiting).assert_ready("the database was created");

    let direct = "--host 127.0.0.1 --port 5432 --user late --timeout 60";
    let waiting = self::waiting(&lab, direct);
    eventually_says(
        &lab,
        "login: password authentication failed for user \"late\" (28P01)",
    );
    lab.sql("CREATE ROLE late LOGIN PASSWORD 'lab-password'");
    Ended::of(waiting).assert_ready("the role was created");
}

#[test]
fn a_password_file_that_comes_late_is_read_then() {
    let lab = lab();
    let file = "/tmp/database-password";
    let waiting = waiting(&lab, &format!("{WAY} --timeout 60 --password-file {file}"));
    eventually_says(
        &lab,
        "login: /tmp/database-password is not used: No such file",
    );
    lab.write_file(file, "lab-password\n", "postgres:postgres", "0400");
    Ended::of(waiting).assert_ready("the file came");
}
