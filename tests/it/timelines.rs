//! What a primary hears of newer timelines: hearsay changes nothing, and proof holds over restarts until a person undoes it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Background, Lab, Program, Service, eventually};

const DATA: &str = "/var/lib/postgresql/17/main";
const WAL: &str = "/srv/s3/walg-test/main/pg17/wal_005";
const BIN: &str = "/usr/lib/postgresql/17/bin";
const SOON: Duration = Duration::from_secs(90);

/// A lab whose one peer, db2, is a file that the test writes: `/tmp/peer.json`, served on two addresses.
fn lab() -> Lab {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.config(
        "[cluster]\npeers = \"127.0.0.1:8010, localhost:8010\"\n\
         [redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [dump]\nrepository = \"s3://pgdump-test/main\"\n",
    );
    let pushed = lab.xdb(&["backup", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    lab
}

/// Any HTTP request is answered with the file, or not at all where there is none.
const PEER: &str = r#"use strict; use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8010, Listen => 64, ReuseAddr => 1) or die $!;
while (my $client = $listener->accept) {
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    if (open(my $file, '<', '/tmp/peer.json')) {
        my $body = do { local $/; <$file> };
        print $client "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ", length($body), "\r\n\r\n$body";
    }
    close $client;
}"#;

fn start(lab: &Lab) -> Background<'_> {
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the daemon answers", SOON, || {
        (lab.http("healthz").0 == 200).then_some(())
    });
    daemon
}

fn stop(daemon: Background<'_>) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

fn is_served(lab: &Lab) {
    eventually("the primary is served", SOON, || {
        (lab.http("primary").0 == 200).then_some(())
    });
}

fn status(lab: &Lab) -> Value {
    serde_json::from_str(&lab.http("api/status").1).unwrap_or_default()
}

/// The finding on the foreign timelines, or on what Redis claims.
fn doubt(lab: &Lab, object: &str) -> Option<String> {
    let status = status(lab);
    let findings = status["findings"].as_array()?;
    let found = findings
        .iter()
        .find(|it| it["check"] == "foreign-backup" && it["object"] == object)?;
    Some(found.to_string())
}

fn stays_primary(lab: &Lab, what: &str) {
    assert_eq!(lab.http("primary"), (200, "ok\n".to_owned()), "{what}");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("CREATE TABLE IF NOT EXISTS filler (a int)");
    lab.sql("INSERT INTO filler VALUES (1)");
    lab.sql("SELECT pg_switch_wal()");
    eventually(&format!("{what}: archiving goes on"), SOON, || {
        (lab.sh(&format!("ls {WAL}/{segment}.*")).code == 0).then_some(())
    });
    let kept = lab.sh("ls /var/lib/xdb/superseded-by.json");
    assert_ne!(kept.code, 0, "{what}: {kept:?}");
}

/// db2 as it would describe itself: this node's own words with `changes` in jq's language.
fn peer_says(lab: &Lab, changes: &str) {
    lab.ok(&format!(
        "curl -s -m 5 http://127.0.0.1:8009/api/node | jq '.hostname = \"db2\" | .alerts = [] | {changes}' >/tmp/peer.new && \
         mv /tmp/peer.new /tmp/peer.json"
    ));
}

fn remove_timeline(lab: &Lab, digits: &str) {
    lab.ok(&format!("rm -f {WAL}/{digits}*"));
    nothing_is_doubtful(lab);
}

fn nothing_is_doubtful(lab: &Lab) {
    eventually("nothing is doubtful any more", SOON, || {
        doubt(lab, "timeline").is_none().then_some(())
    });
}

#[test]
fn hearsay_takes_no_primary_away_and_proof_holds_until_a_person_undoes_it() {
    let lab = lab();
    lab.write_file("/tmp/peer.pl", PEER, "root:root", "0644");
    let _peer = lab.in_background(&["perl", "/tmp/peer.pl"]);
    let daemon = start(&lab);
    is_served(&lab);

    one_peer_of_two_addresses(&lab);
    a_second_cluster(&lab);
    histories_that_prove_nothing(&lab);
    what_redis_claims(&lab);
    a_signal_file_that_was_left(&lab);
    let daemon = a_restart_while_s3_hangs(&lab, daemon);
    a_peer_with_a_proof(&lab, daemon);
}

fn one_peer_of_two_addresses(lab: &Lab) {
    peer_says(lab, ".view.sample.in_recovery = true");
    eventually("db2 is seen, once", SOON, || {
        let status = status(lab);
        let nodes = status["nodes"].as_array()?.clone();
        let named = nodes.iter().filter(|node| node["hostname"] == "db2");
        (nodes.len() == 2 && named.count() == 1).then_some(())
    });
}

/// Made by initdb, archived to the same prefix, and promoted.
fn a_second_cluster(lab: &Lab) {
    lab.sh_as_postgres(&format!(
        "{BIN}/initdb -D /tmp/foreign -U postgres --auth=trust >/dev/null &&
         echo \"port = 5498
                archive_mode = on
                restore_command = 'false'
                archive_command = 'XDB_POSTGRES_PORT=5498 XDB_POSTGRES_DATA_DIRECTORY=/tmp/foreign XDB_NODE_STATE_DIRECTORY=/tmp/foreign xdb wal-push %p'\" \
              >>/tmp/foreign/postgresql.conf &&
         touch /tmp/foreign/standby.signal &&
         {BIN}/pg_ctl -D /tmp/foreign -l /tmp/foreign.log -w start >/dev/null &&
         {BIN}/pg_ctl -D /tmp/foreign -w promote >/dev/null"
    ))
    .succeeded("the second cluster is promoted");
    eventually("its history is refused", SOON, || {
        let log = lab.sh("cat /tmp/foreign.log").stdout;
        log.contains("00000002.history: s3://walg-test/main/pg17 belongs to another cluster")
            .then_some(())
    });
    assert_ne!(lab.sh(&format!("ls {WAL}/00000002*")).code, 0);
    lab.sh_as_postgres(&format!("{BIN}/pg_ctl -D /tmp/foreign -m immediate stop"));

    // Another program would have stored it.
    lab.ok(&format!("cp /tmp/foreign/pg_wal/00000002.history {WAL}/"));
    let told = eventually("the foreign history is told", SOON, || {
        doubt(lab, "timeline")
    });
    assert!(told.contains("timeline 2"), "{told}");
    eventually("the alert is in Redis", SOON, || {
        let alerts = lab.redis("HKEYS xdb:main:alerts:active");
        alerts
            .contains("foreign-backup/cluster/timeline")
            .then_some(())
    });
    stays_primary(lab, "a foreign history");
    let pushed = lab.xdb(&["backup", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let listed = lab.xdb_json(&["backup", "list"]);
    let listed = listed.as_array().unwrap();
    assert!(
        listed.iter().all(|it| it["status"] == "complete"),
        "{listed:?}"
    );
    // Neither a standby nor a restore is led astray by it.
    for (standby, code) in [("--standby", 1), ("", 126)] {
        let fetched = lab.sh_as_postgres(&format!(
            "cd {DATA} && xdb wal-fetch {standby} 00000002.history /tmp/RECOVERYHISTORY"
        ));
        // Nothing ties it to a cluster: a recovery must not take it for absent and end early.
        fetched.failed(code, "00000002.history is not handed to PostgreSQL");
        assert_ne!(lab.sh("ls /tmp/RECOVERYHISTORY").code, 0);
    }
    let listed = lab.xdb(&["timeline", "list"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.stdout.contains("doubtful"), "{listed:?}");
    lab.xdb(&["archive", "verify"]);
    remove_timeline(lab, "00000002");
}

fn histories_that_prove_nothing(lab: &Lab) {
    // Of the second cluster, under a name that a segment of our next timeline would have.
    let foreign = lab.ok("ls /tmp/foreign/pg_wal | grep -E '^[0-9A-F]{24}$' | head -1");
    let foreign = format!("/tmp/foreign/pg_wal/{foreign}");
    let number = lab.ok(&format!("basename {foreign} | cut -c9-"));
    let histories = [
        ("no history", "00000002", "nonsense", false),
        ("an empty one", "00000003", "", false),
        (
            "not through our timeline",
            "00000004",
            "2\\t0/3000000\\tr\\n",
            false,
        ),
        (
            "left where we have not been",
            "00000005",
            "1\\tFF/3000000\\tr\\n",
            false,
        ),
        (
            "fits, and nothing ties it",
            "00000006",
            "1\\t0/2000000\\tr\\n",
            false,
        ),
        (
            "fits, with another cluster's segment",
            "00000007",
            "1\\t0/2000000\\tr\\n",
            true,
        ),
        ("far above", "F0000000", "1\\t0/2000000\\tr\\n", false),
        (
            "the highest number",
            "FFFFFFFF",
            "1\\t0/2000000\\tr\\n",
            true,
        ),
    ];
    for (_, digits, history, segment) in histories {
        lab.ok(&format!("printf '{history}' >{WAL}/{digits}.history"));
        if segment {
            lab.ok(&format!("cp {foreign} {WAL}/{digits}{number}"));
        }
    }
    for (what, digits, ..) in histories {
        let timeline = u32::from_str_radix(digits, 16).unwrap();
        eventually(&format!("{what}: it is reported"), SOON, || {
            let told = doubt(lab, "timeline")?;
            told.contains(&format!("timeline {timeline},"))
                .then_some(())
        });
    }
    stays_primary(lab, "histories that prove nothing");
    let recovers = lab.xdb(&["backup", "show", "LATEST"]);
    assert_eq!(recovers.code, 0, "{recovers:?}");
    for (_, digits, ..) in histories {
        lab.ok(&format!("rm -f {WAL}/{digits}*"));
    }
    nothing_is_doubtful(lab);
}

fn what_redis_claims(lab: &Lab) {
    for (key, hostname) in [("evil", "evil"), ("db2", "db2")] {
        let claim = format!(
            "curl -s -m 5 http://127.0.0.1:8009/api/node | \
             jq -c '.hostname = \"{hostname}\" | .view.highest = 4000000000 | .view.sample.timeline = 2' | \
             redis-cli --no-auth-warning -a lab-password -x SET xdb:main:node:{key}"
        );
        lab.ok(&claim);
        let told = eventually("the claim is told", SOON, || doubt(lab, "redis"));
        assert!(
            told.contains("4000000000") && told.contains(hostname),
            "{told}"
        );
        stays_primary(lab, "what Redis claims");
        lab.redis(&format!("DEL xdb:main:node:{key}"));
        eventually("the claim is over", SOON, || {
            doubt(lab, "redis").is_none().then_some(())
        });
    }
}

/// Of a conversion to a standby that was given up.
fn a_signal_file_that_was_left(lab: &Lab) {
    lab.ok(&format!("touch {DATA}/standby.signal"));
    stays_primary(lab, "a stray standby.signal");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("INSERT INTO filler VALUES (2)");
    lab.sql("SELECT pg_switch_wal()");
    eventually("the segment is archived", SOON, || {
        (lab.sh(&format!("ls {WAL}/{segment}.*")).code == 0).then_some(())
    });
    lab.ok(&format!("rm {DATA}/standby.signal"));
}

fn a_restart_while_s3_hangs<'a>(lab: &'a Lab, daemon: Background<'a>) -> Background<'a> {
    eventually("the answer is kept", SOON, || {
        (lab.sh("ls /var/lib/xdb/last-answer.json").code == 0).then_some(())
    });
    lab.toxic(
        "hang",
        json!({"type": "timeout", "attributes": {"timeout": 0}}),
    );
    assert_ne!(lab.sh("curl -s -m 2 http://127.0.0.1:7000/").code, 0);
    stop(daemon);
    // Each answer that is given from the first moment of the new daemon on.
    let asking = lab.in_background(&[
        "bash",
        "-c",
        "for i in $(seq 60); do curl -s -m 5 -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8009/primary; sleep 0.1; done",
    ]);
    let daemon = start(lab);
    let answers = asking.wait(SOON).stdout;
    assert!(
        answers.contains("200") && !answers.contains("503"),
        "{answers}"
    );
    lab.remove_toxic("hang");
    is_served(lab);
    daemon
}

/// db2 was promoted while S3 was away from it.
fn a_peer_with_a_proof(lab: &Lab, daemon: Background<'_>) {
    let promoted = |timeline: u32, at: &str| {
        format!(
            ".view.sample.in_recovery = false | .view.sample.timeline = {timeline} | .view.highest = {timeline} \
             | .view.history = [{{\"timeline\": 1, \"at\": \"{at}\"}}]"
        )
    };
    for (what, changes) in [
        ("absurd", promoted(4_000_000_000, "0/2000000")),
        ("left where we have not been", promoted(2, "FF/0")),
        (
            "without its history",
            format!("{} | .view.history = null", promoted(2, "0/2000000")),
        ),
        (
            "another cluster",
            format!(
                "{} | .view.sample.system_identifier = 7",
                promoted(2, "0/2000000")
            ),
        ),
    ] {
        peer_says(lab, &changes);
        eventually("db2 is heard", SOON, || {
            let status = status(lab);
            let nodes = status["nodes"].as_array()?.clone();
            let timeline = if what == "absurd" {
                4_000_000_000_u32
            } else {
                2
            };
            let heard = nodes.iter().any(|node| node["timeline"] == timeline);
            heard.then_some(())
        });
        stays_primary(lab, what);
    }
    let switch = started_again_beside_a_promoted_peer(lab, &promoted);
    let refused = lab.xdb(&["timeline", "forget", "2", "--why", "a test", "--by", "anna"]);
    refused.failed(3, "db2 is a primary on timeline 2");
    stop(daemon);

    // The old primary boots again, db2 cannot be reached, and S3 is away.
    lab.ok("rm /tmp/peer.json");
    lab.proxy_enabled(false);
    assert_ne!(lab.sh("curl -s -m 3 http://127.0.0.1:7000/").code, 0);
    lab.service("postgres", Service::Down);
    lab.service("postgres", Service::Up);
    let daemon = start(lab);
    eventually("it knows what was proven", SOON, || {
        lab.http("primary")
            .1
            .starts_with("superseded")
            .then_some(())
    });
    lab.proxy_enabled(true);
    a_typo(lab);
    lab.xdb(&["backup", "push"]).failed(3, "timeline 2 exists");
    let segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    lab.sql("INSERT INTO filler VALUES (3)");
    lab.sql("SELECT pg_switch_wal()");
    let pushed = lab.sh_as_postgres(&format!("cd {DATA} && xdb wal-push pg_wal/{segment}"));
    pushed.failed(1, "timeline 2 exists");

    // db2's promotion is taken back: on this node and, by the bucket, on the other.
    lab.ok(&format!(
        "printf '1\\t{switch}\\tr\\n' >{WAL}/00000002.history"
    ));
    let forgotten = lab.xdb(&[
        "timeline",
        "forget",
        "2",
        "--force",
        "--set-aside",
        "--why",
        "a test",
        "--by",
        "anna",
    ]);
    assert_eq!(forgotten.code, 0, "{forgotten:?}");
    assert!(forgotten.stdout.contains("1 files moved"), "{forgotten:?}");
    assert_ne!(lab.sh(&format!("ls {WAL}/00000002*")).code, 0);
    lab.ok("ls /srv/s3/walg-test/xdb/main/set-aside/timeline-00000002-*/00000002.history");
    lab.ok("ls /srv/s3/walg-test/xdb/main/forgotten-timelines/*-00000002.json");
    is_served(lab);
    stays_primary(lab, "forgotten");
    stop(daemon);
    let daemon = start(lab);
    is_served(lab);
    stop(daemon);
}

/// The old primary was stopped, db2 promoted, and somebody starts the old one again: not one client may write to it.
fn started_again_beside_a_promoted_peer(
    lab: &Lab,
    promoted: &dyn Fn(u32, &str) -> String,
) -> String {
    let asking = lab.in_background(&[
        "bash",
        "-c",
        "while [ ! -e /tmp/enough ]; do curl -s -m 5 http://127.0.0.1:8009/primary; sleep 0.02; done",
    ]);
    lab.sql("INSERT INTO filler VALUES (2)");
    lab.service("postgres", Service::Down);
    eventually("it is known to be down", SOON, || {
        (lab.http("primary").0 == 503).then_some(())
    });
    // db2 had replayed all of it, the shutdown's record included, which is 120 bytes long.
    let at = lab.ok(&format!(
        "{BIN}/pg_controldata {DATA} | sed -n 's/^Latest checkpoint location: *//p'"
    ));
    let (high, low) = at.split_once('/').unwrap();
    let low = u32::from_str_radix(low, 16).unwrap() + 120;
    let switch = format!("{high}/{low:X}");
    let healthy = ".view.failing = null | .view.down = false";
    peer_says(lab, &format!("{} | {healthy}", promoted(2, &switch)));
    eventually("db2 is heard", SOON, || {
        let status = status(lab);
        let nodes = status["nodes"].as_array()?;
        nodes.iter().any(|it| it["timeline"] == 2).then_some(())
    });
    lab.service("postgres", Service::Up);
    eventually("db1 is superseded", SOON, || {
        let answer = lab.http("primary");
        (answer.0 == 503 && answer.1.starts_with("superseded: timeline 2")).then_some(())
    });
    lab.ok("touch /tmp/enough");
    let answers = asking.wait(SOON).stdout;
    let after = answers.find("the role is not known").expect("it was down");
    assert!(
        !answers[after..].lines().any(|line| line == "ok"),
        "{answers}"
    );
    switch
}

/// The real promotion to that number would count for forgotten.
fn a_typo(lab: &Lab) {
    let words = ["timeline", "forget", "7", "--why", "a test", "--by", "anna"];
    lab.xdb(&words).failed(3, "may be a primary on timeline 7");
    let forced = [&words[..], &["--force"]].concat();
    lab.xdb(&forced).failed(3, "shows timeline 7");
    assert_ne!(lab.sh("ls /var/lib/xdb/forgotten-timelines.json").code, 0);
}
