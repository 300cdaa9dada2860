//! Locks and marks on S3 servers that keep versions, ignore conditions, or never agree; and listings that are cut short.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Lab, Output, Program, eventually};

const SOON: Duration = Duration::from_secs(60);
const S3: &str = "127.0.0.1:7070";
const PROBED: &str = "walg-test/tried";

fn refused(output: &Output, words: &str) {
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains(words), "{words:?}: {output:?}");
    assert!(output.stderr.contains("HINT:"), "{output:?}");
}

fn pushed(lab: &Lab, verb: &str) {
    let pushed = lab.xdb(&[verb, "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
}

fn locks(lab: &Lab) -> String {
    lab.ok("find /srv/s3 -path '*/xdb/*/locks/*' -type f")
}

const IF_NONE_MATCH: &str = "-H 'If-None-Match: *' --data-binary x";

#[test]
fn an_s3_that_ignores_conditional_writes_gets_no_lock_and_one_that_honours_them_again_does() {
    let lab = Lab::start(Program::Walrus);
    lab.config("[retention]\nwindow_days = 0\nfulls = 1");
    let other = "-H 'If-Match: \"00000000000000000000000000000000\"' --data-binary x";
    assert_eq!(lab.s3("PUT", PROBED, IF_NONE_MATCH).0, 200);
    for condition in [IF_NONE_MATCH, other] {
        assert_eq!(lab.s3("PUT", PROBED, condition).0, 412, "S3 honours it");
    }
    for (port, fault, condition, ignored) in [
        (7171, "ignores-if-none-match", IF_NONE_MATCH, 200),
        (7172, "ignores-if-match", other, 200),
        (7173, "knows-no-conditions", IF_NONE_MATCH, 501),
    ] {
        lab.s3_between(port, fault);
        assert_eq!(lab.s3("PUT", PROBED, condition).0, ignored, "{fault}");
        for verb in [&["backup", "push"][..], &["dump", "push"], &["prune"]] {
            refused(&lab.xdb(verb), "does not honour conditional writes");
        }
        let ran = lab.xdb(&["run", "base-backup"]);
        assert_ne!(ran.code, 0, "{ran:?}");
        assert!(format!("{ran:?}").contains("conditional writes"), "{ran:?}");
        assert_eq!(locks(&lab), "", "{fault}");
    }
    // Conditions that are honoured for all but deletions are enough: the lock is then released by writing.
    lab.s3_between(7174, "ignores-if-match-on-delete");
    for _ in 0..2 {
        pushed(&lab, "backup");
    }
    assert!(
        lab.ok(&format!("cat {}", locks(&lab)))
            .contains("released_at")
    );
    lab.upstream(S3);
    pushed(&lab, "backup");
    assert_eq!(locks(&lab), "", "S3 deletes by condition again");
    let listed = lab.xdb(&["backup", "list", "--json"]).stdout;
    assert_eq!(listed.matches("\"complete\"").count(), 3, "{listed}");
    lab.assert_nothing_left_behind();
}

#[test]
fn an_s3_that_refuses_every_conditional_write_is_given_up_with_the_reason() {
    let lab = Lab::start(Program::Walrus);
    let given_up = |words: &str| {
        let begun = Instant::now();
        let pushed = lab.xdb(&["backup", "push"]);
        pushed.failed(4, words);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(60), "after {took:?}");
        let puts = lab.ok("grep -c 'PUT.*/xdb/main/locks/' /var/log/xdb-lab/s3.log || true");
        puts.trim().parse::<u32>().expect("a number")
    };
    lab.s3_between(7171, "creates-no-lock");
    let path = "walg-test/xdb/main/locks/base-backup";
    assert_eq!(lab.s3("PUT", path, IF_NONE_MATCH).0, 412);
    assert_eq!(lab.s3("GET", path, "").0, 404);
    given_up("the bucket keeps a delete marker of it");

    // The lock of a node that is dead, and ETags that never match.
    lab.s3_between(7172, "changes-etags");
    let expired = json!({ "v": 1, "hostname": "db9", "pid": 7, "since": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:03:00Z" });
    lab.put_object(path, &expired.to_string());
    let tags = || lab.s3("GET", path, "-D /tmp/s3.head");
    let head = |_: (u16, String)| lab.ok("grep -i '^etag' /tmp/s3.head");
    assert_ne!(head(tags()), head(tags()), "S3 changes its ETags");
    let puts = given_up("was another one than S3 had just given");
    assert!((2..=12).contains(&puts), "{puts} writes");

    lab.upstream(S3);
    pushed(&lab, "backup");
    lab.assert_nothing_left_behind();
}

#[test]
fn a_bucket_with_versions_gives_every_lock_and_mark_again_and_again() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    lab.ok(
        "mkdir -p /srv/versioned/walg-test /srv/versioned/pgdump-test /srv/versions; \
         ROOT_ACCESS_KEY=lab ROOT_SECRET_KEY=lab-secret-key setsid versitygw --port 127.0.0.1:7171 \
             posix --versioning-dir /srv/versions /srv/versioned >/tmp/versitygw 2>&1 </dev/null & \
         until curl -s -o /dev/null -m 2 http://127.0.0.1:7171/; do sleep 0.05; done",
    );
    lab.upstream("127.0.0.1:7171");
    let enable = "--data-binary '<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>'";
    for bucket in ["walg-test", "pgdump-test"] {
        assert_eq!(
            lab.s3("PUT", &format!("{bucket}?versioning="), enable).0,
            200
        );
    }
    // What a release before this one left, and what a person removed: delete markers.
    let expired = json!({ "v": 1, "hostname": "db9", "pid": 7, "since": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:03:00Z" });
    for key in [
        "locks/base-backup",
        "locks/dump",
        "locks/prune",
        "jobs/base-backup.json",
        "archive/high-water.json",
    ] {
        let path = format!("walg-test/xdb/main/{key}");
        let content = format!("--data-binary '{expired}'");
        assert_eq!(lab.s3("PUT", &path, &content).0, 200);
        assert_eq!(lab.s3("DELETE", &path, "").0, 204);
        assert_eq!(
            lab.s3("PUT", &path, IF_NONE_MATCH).0,
            412,
            "S3 creates over a marker"
        );
        assert_eq!(lab.s3("GET", &path, "").0, 404, "{path}");
    }
    lab.config(
        "[retention]\nwindow_days = 0\nfulls = 1\n[redis]\nurl = \"redis://127.0.0.1:6379\"\npassword = \"lab-password\"\n\
         [schedule]\ndump = \"0 0 1 1 *\"\nprune = \"0 0 1 1 *\"\ndump_prune = \"0 0 1 1 *\"",
    );
    for _ in 0..2 {
        pushed(&lab, "backup");
        pushed(&lab, "dump");
        for verb in [&["prune"][..], &["dump", "prune"]] {
            let pruned = lab.xdb(verb);
            assert_eq!(pruned.code, 0, "{pruned:?}");
        }
    }
    // The first set is gone, and its versions are not.
    let sets = lab.xdb_json(&["dump", "list"]);
    assert_eq!(sets.as_array().unwrap().len(), 1, "{sets}");
    let versions = lab.s3("GET", "pgdump-test?versions=&prefix=main%2F", "").1;
    assert_eq!(versions.matches("<DeleteMarker>").count(), 3, "{versions}");
    assert_eq!(versions.matches("<Version>").count(), 6, "{versions}");
    for work in ["base-backup", "dump", "prune"] {
        let (code, lock) = lab.s3("GET", &format!("walg-test/xdb/main/locks/{work}"), "");
        assert!(code == 200 && lock.contains("released_at"), "{code} {lock}");
        // No more than one version for each taking and release, and the old marker.
        let versions = lab.s3(
            "GET",
            &format!("walg-test?versions=&prefix=xdb%2Fmain%2Flocks%2F{work}"),
            "",
        );
        assert!(
            versions.1.matches("<Version>").count() <= 12,
            "{versions:?}"
        );
    }
    // A lock that another node holds is refused here as anywhere.
    let held = expired
        .to_string()
        .replace("2026-01-01T00:03:00Z", "2999-01-01T00:00:00Z");
    let path = "walg-test/xdb/main/locks/base-backup";
    assert_eq!(
        lab.s3("PUT", path, &format!("--data-binary '{held}'")).0,
        200
    );
    refused(&lab.xdb(&["backup", "push"]), "base-backup is held by db9");
    assert_eq!(lab.s3("DELETE", path, "").0, 204);

    let ran = lab.xdb(&["run", "base-backup"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let daemon = lab.xdb_in_background(&["daemon"]);
    for key in ["jobs/base-backup.json", "archive/high-water.json"] {
        eventually("the mark is set over its marker", SOON, || {
            let (code, mark) = lab.s3("GET", &format!("walg-test/xdb/main/{key}"), "");
            (code == 200 && mark.contains("\"v\":1")).then_some(())
        });
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

#[test]
fn a_listing_that_is_cut_short_is_an_error_and_never_a_shorter_archive() {
    let lab = Lab::start_bare(Program::Walrus);
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/walg-3.0.9/repository"
    );
    lab.copy_in(fixture.as_ref(), "/srv/s3/walg-test/main/pg17");
    let verify = || lab.xdb(&["archive", "verify", "--json"]);
    let whole = verify();
    assert_eq!(whole.code, 0, "{whole:?}");
    let listing = "walg-test?list-type=2&prefix=main%2Fpg17%2Fwal_005%2F";
    // Small pages that lead on are no fault.
    lab.s3_between(7171, "list-by-twos");
    let (_, page) = lab.s3("GET", listing, "");
    assert_eq!(page.matches("<Contents>").count(), 2, "{page}");
    assert!(page.contains("<NextContinuationToken>"), "{page}");
    assert_eq!(verify().stdout, whole.stdout);
    for (port, fault, words) in [
        (7172, "list-loses-its-token", "without a way to them"),
        (7173, "list-leads-to-itself", "the listing is incomplete"),
        (7174, "list-repeats", "is listed after"),
        (7175, "list-lacks-a-key", "of 2 keys holds 1"),
        (7176, "list-does-not-end", "whether it is the last one"),
    ] {
        lab.s3_between(port, fault);
        let (code, cut) = lab.s3("GET", listing, "");
        assert!(
            code == 200 && cut.contains("<ListBucketResult"),
            "{fault}: {cut}"
        );
        let verified = verify();
        assert_eq!(verified.code, 4, "{fault}: {verified:?}");
        assert!(verified.stderr.contains(words), "{fault}: {verified:?}");
        // Without what this node looked at before.
        lab.ok("rm -f /var/lib/xdb/xdb.db*");
        let listed = lab.xdb(&["backup", "list"]);
        assert_eq!(listed.code, 4, "{fault}: {listed:?}");
    }
    lab.upstream(S3);
    assert_eq!(verify().stdout, whole.stdout);
}
