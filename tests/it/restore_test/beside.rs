//! A restore test beside the live server, which comes first.

use serde_json::json;

use super::{SOON, Tested, backed_up, restore_test};
use crate::harness::{Lab, Program, eventually};

const VOLUME: &str = "/srv/wal";

/// `pg_wal` on a small volume of its own, and a backup.
fn start() -> Lab {
    let lab = Lab::setup(Program::Walrus)
        .with_daemon()
        .tmpfs(VOLUME, "1000m")
        .start();
    lab.ok("sv -w 30 down postgres");
    let wal = "/var/lib/postgresql/17/main/pg_wal";
    lab.ok(&format!(
        "cp -a {wal}/. {VOLUME}/ && rm -r {wal} && ln -s {VOLUME} {wal} && chown -h postgres:postgres {wal}"
    ));
    lab.ok("sv -w 30 start postgres");
    backed_up(&lab, 1);
    lab
}

#[test]
fn a_test_yields_to_the_live_server_and_ends_where_that_needs_the_room() {
    let lab = start();

    // Another program that reads all of the live server.
    let dump = lab.in_background(&[
        "psql",
        "application_name=pg_dump",
        "-c",
        "SELECT pg_sleep(600)",
    ]);
    eventually("it is seen", SOON, || {
        let seen =
            lab.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'");
        (seen == "1").then_some(())
    });
    restore_test(&lab, &[]).not_passed(4, "pg_dump is running on the live server");
    lab.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'",
    );
    dump.wait(SOON);

    // A volume that is nearly full from the start, and one that fills while the backup is fetched. Less than the 50 MB of
    // a twentieth, and room for two segments of the live server, which shall not end for it.
    let fill = format!(
        "fallocate -l $(( $(df -B1 --output=avail {VOLUME} | tail -1) - 40000000 )) {VOLUME}/filler"
    );
    lab.ok(&fill);
    restore_test(&lab, &[]).not_passed(4, "a twentieth is left to the live server");
    lab.ok(&format!("rm {VOLUME}/filler"));
    let trickle = json!({"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 100}});
    lab.toxic("trickle", trickle);
    let test = lab.xdb_in_background(&["restore-test", "--json"]);
    let fetching = eventually("the backup is being fetched", SOON, || {
        let pid = lab.sh("pgrep -f '[b]ackup-fetch'").stdout;
        (!pid.is_empty()).then_some(pid.trim().to_owned())
    });
    // It comes last at the processor and the disk, and first where memory runs out.
    let rank = lab.ok(&format!(
        "ps -o ni= -p {fetching}; cat /proc/{fetching}/oom_score_adj"
    ));
    assert_eq!(rank.split_whitespace().collect::<Vec<_>>(), ["19", "1000"]);
    lab.ok(&fill);
    let tested = Tested::of(test.wait(SOON));
    tested.not_passed(4, "a twentieth is left to the live server");
    lab.ok(&format!("rm {VOLUME}/filler"));
    lab.remove_toxic("trickle");
    lab.assert_nothing_left_behind();

    // With room, and held back: what it took is of no objective's, what would be lost is.
    lab.sql("INSERT INTO marker VALUES (2)");
    lab.config(
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [restore_test]\nnetwork_limit_mib = 20\nrto_objective = \"1ms\"\nrpo_objective = \"1ms\"",
    );
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(
        tested.report["conditions"],
        json!({"throttled": true, "modest": true, "memory_limit_bytes": null, "fsync": false, "shared_buffers": "128MB", "network": "none"})
    );
    let alerts = "redis-cli --no-auth-warning -a lab-password HKEYS xdb:main:alerts:active";
    let raised = lab.ok(alerts);
    let objectives: Vec<&str> = raised
        .lines()
        .filter(|key| key.starts_with("restore-objective/"))
        .collect();
    assert!(
        matches!(objectives.as_slice(), [only] if only.ends_with("/rpo")),
        "{raised}"
    );
}
