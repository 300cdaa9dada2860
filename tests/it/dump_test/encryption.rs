//! Encrypted dumps: what lies in the bucket, which key reads it, what damage is called, and the way by hand.

use serde_json::{Value, json};

use super::{
    DUMPS, PG, agree, database, file, in_database, keep_aside, keep_manifest, manifest, put_back,
    set, test, verdict,
};
use crate::harness::{Lab, Output};

const KEY: &str = "/etc/xdb/age-identity.txt";
const OTHER_KEY: &str = "/etc/xdb/other-identity.txt";
const STRANGE_KEY: &str = "/etc/xdb/strange-identity.txt";
/// What a dump and the globals hold uncompressed: each is in an object that is not encrypted.
const CLEAR: [&str; 4] = ["PGDMP", "CREATE TABLE", "CREATE ROLE", "SCRAM-SHA-256"];

/// Makes an identity, and gives its recipient.
fn new_key(lab: &Lab, path: &str) -> String {
    lab.ok(&format!(
        "age-keygen -o {path} 2>/dev/null && chown root:postgres {path} && chmod 0640 {path}"
    ));
    lab.ok(&format!("age-keygen -y {path}"))
}

fn xdb(lab: &Lab, args: &[&str]) -> Output {
    let output = lab.xdb(args);
    assert!(
        !format!("{output:?}").contains("AGE-SECRET-KEY"),
        "{output:?}"
    );
    output
}

fn objects_with(lab: &Lab, words: &str) -> String {
    lab.ok(&format!("grep -rlaF '{words}' {DUMPS} || test $? = 1"))
}

pub(super) fn only_a_right_key_reads_a_dump(lab: &Lab) {
    for words in CLEAR {
        assert_ne!(objects_with(lab, words), "", "{words}");
    }
    lab.ok(&format!("rm -rf {DUMPS}"));
    let recipients = [KEY, OTHER_KEY].map(|path| new_key(lab, path));
    new_key(lab, STRANGE_KEY);
    let settings = format!("[dump]\nage_recipients = \"{}\"", recipients.join(", "));
    let with = |key: &str| lab.config(&format!("{settings}\nage_identity_file = \"{key}\""));

    lab.config(&settings);
    // Two of the databases are enough.
    let push = ["dump", "push", "--database", "shop", "--database", "cut"];
    let output = xdb(lab, &[&push[..], &["--json"]].concat());
    let pushed: Value = serde_json::from_str(&output.succeeded("dump push")).unwrap();
    everything_but_the_manifest_is_encrypted(lab, &pushed, &recipients);
    keep_aside(lab);
    without_a_key_nothing_is_judged(lab);
    with(STRANGE_KEY);
    a_wrong_key_is_no_damage(lab);
    with(KEY);
    a_key_that_every_user_may_read_is_not_used(lab);
    xdb(lab, &["config", "check"]).succeeded("config check");
    test(lab, &["--set", &set(lab)], 0, "");
    by_hand(lab);
    for key in [KEY, OTHER_KEY] {
        with(key);
        let restore = ["dump", "restore", "shop", "--table", "orders", "--json"];
        let report = xdb(lab, &restore).succeeded(key);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["rows"], 1000, "{report}");
        assert_eq!(report["checksum_verified"], true, "{report}");
        lab.sql("DROP DATABASE shop_restored");
    }
    damage_is_found_with_the_right_key(lab);
    recipients_that_are_none_are_refused_with_their_line(lab);
    everything_is_written_with_the_encryption_of_the_bucket_policy(lab);
    lab.config("");
    let shown = "grep -rlaF AGE-SECRET-KEY /var/log /var/lib/xdb /srv/s3 || test $? = 1";
    assert_eq!(lab.ok(shown), "");
}

fn everything_but_the_manifest_is_encrypted(lab: &Lab, pushed: &Value, recipients: &[String; 2]) {
    assert_eq!(pushed["v"], 3, "{pushed}");
    let databases = pushed["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 2, "{pushed}");
    for object in databases.iter().chain([&pushed["globals"]]) {
        let encryption = &object["encryption"];
        assert_eq!(encryption["age_recipients"], json!(recipients), "{object}");
        let plain = encryption["plain_bytes"].as_u64().expect("a length");
        assert!(plain < object["bytes"].as_u64().unwrap(), "{object}");
        assert!(
            object["key"].as_str().unwrap().ends_with(".age"),
            "{object}"
        );
        let begin = lab.ok(&format!("head -c 21 {}", file(object)));
        assert_eq!(begin, "age-encryption.org/v1");
    }
    for words in CLEAR {
        assert_eq!(objects_with(lab, words), "", "{words} is in the clear");
    }
    let shown = xdb(lab, &["dump", "show", &set(lab)]).succeeded("dump show");
    assert!(shown.contains(&recipients[1]), "{shown}");
}

#[track_caller]
fn is_not_judged(lab: &Lab, words: &str, config_check: i32) {
    test(lab, &["--set", &set(lab)], 4, words);
    let restore = xdb(lab, &["dump", "restore", "shop"]);
    restore.failed(4, words);
    let checked = xdb(lab, &["config", "check"]);
    assert_eq!(checked.code, config_check, "{checked:?}");
    assert!(checked.stderr.contains(words), "{checked:?}");
    let listed = &lab.xdb_json(&["dump", "list"])[0];
    assert_eq!(listed["status"], "complete", "{listed}");
    assert_eq!(listed["tested"], Value::Null, "{listed}");
}

fn without_a_key_nothing_is_judged(lab: &Lab) {
    is_not_judged(lab, "dump.age_identity_file is not set", 0);
    // What is stored can be compared all the same.
    xdb(lab, &["dump", "verify", &set(lab)]).succeeded("dump verify");
    let globals = file(&manifest(lab)["globals"]);
    lab.ok(&flip(&globals, "300"));
    xdb(lab, &["dump", "verify", &set(lab)]).failed(1, "globals.sql.age is not what was stored");
    put_back(lab);
}

fn a_wrong_key_is_no_damage(lab: &Lab) {
    is_not_judged(lab, "wrong key: encrypted to age1", 1);
}

fn a_key_that_every_user_may_read_is_not_used(lab: &Lab) {
    lab.ok(&format!("chmod 0644 {KEY}"));
    is_not_judged(lab, "every user may read or change it (mode 0644)", 1);
    lab.ok(&format!("chmod 0640 {KEY}"));
}

/// Changes the byte at `at` of `path`, from its end where that is negative.
fn flip(path: &str, at: &str) -> String {
    let perl = "open F, '+<', $ARGV[0] or die; seek F, $ARGV[1], $ARGV[1] < 0 ? 2 : 0; read F, $b, 1; seek F, -1, 1; print F $b ^ chr 1";
    format!("perl -e '{}' {path} {at}", perl.replace('\'', r"'\''"))
}

/// The manifest agrees with the bytes that are there: what is wrong is found by decrypting them.
fn damage_is_found_with_the_right_key(lab: &Lab) {
    let shop = file(database(&mut manifest(lab), "shop"));
    let flip = |at: &str| flip(&shop, at);
    for (what, words) in [
        (flip("1000"), "is not authentic"),
        (flip("-1"), "is not authentic"),
        (flip("90"), "header"),
        (flip("0"), "it has no header of age"),
        (format!("truncate -s -100 {shop}"), "is not authentic"),
        (
            format!("truncate -s 150 {shop}"),
            "it is cut off in its header",
        ),
    ] {
        lab.ok(&what);
        let mut changed = manifest(lab);
        agree(lab, database(&mut changed, "shop"));
        keep_manifest(lab, &changed);
        let output = xdb(lab, &["dump", "restore", "shop"]);
        output.failed(1, words);
        assert!(
            output.stderr.contains("shop.dump.age is damaged"),
            "{output:?}"
        );
        put_back(lab);
    }
    // Encrypted well, and not what was dumped.
    let mut changed = manifest(lab);
    let (shop, other) = (
        file(&changed["globals"]),
        file(database(&mut changed, "cut")),
    );
    lab.ok(&format!("cp {other} {shop}"));
    agree(lab, &mut changed["globals"]);
    keep_manifest(lab, &changed);
    let report = test(
        lab,
        &["--set", &set(lab)],
        1,
        "bytes decrypted, its manifest says",
    );
    assert_eq!(verdict(&report, "globals").0, "critical", "{report}");
    put_back(lab);
}

/// As runbooks/dump_restore.md says it, into databases and roles that are there.
fn by_hand(lab: &Lab) {
    let mut manifest = manifest(lab);
    let shop = database(&mut manifest, "shop");
    let bytes = lab.ok(&format!("age --decrypt -i {KEY} {} | wc -c", file(shop)));
    assert_eq!(shop["encryption"]["plain_bytes"].to_string(), bytes);
    lab.ok(&format!("cp {KEY} /tmp/key && chown postgres /tmp/key"));
    lab.sh_as_postgres(&format!(
        "age --decrypt -i /tmp/key {} | {PG}/pg_restore --create --no-owner -d postgres --if-exists --clean",
        file(database(&mut manifest, "cut"))
    ))
    .succeeded("pg_restore");
    assert_eq!(
        in_database(lab, "cut", "SELECT count(*) FROM orders"),
        "1000"
    );
    let globals = file(&manifest["globals"]);
    let restored = lab.sh_as_postgres(&format!(
        "age --decrypt -i /tmp/key {globals} | {PG}/psql -d postgres"
    ));
    let said = restored.stderr.clone();
    restored.succeeded("the globals");
    assert!(said.contains("role \"app\" already exists"), "{said}");
    lab.ok("rm /tmp/key");
    assert!(set(lab).ends_with(manifest["node"].as_str().unwrap()));
}

fn recipients_that_are_none_are_refused_with_their_line(lab: &Lab) {
    let settings = "[dump]\nage_recipients = \"age1qqqqqq\"";
    lab.config(settings);
    let line = lab.ok("grep -n age_recipients /etc/xdb/xdb.toml | cut -d: -f1");
    let output = xdb(lab, &["config", "check"]);
    output.failed(
        2,
        &format!("/etc/xdb/xdb.toml:{line}: dump.age_recipients is the text \"age1qqqqqq\""),
    );
    xdb(lab, &["dump", "push"]).failed(2, "dump.age_recipients");
}

/// A policy refuses each write that does not ask S3 for the right encryption: dumps in parts, manifests, locks and marks.
fn everything_is_written_with_the_encryption_of_the_bucket_policy(lab: &Lab) {
    const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
    let push = ["dump", "push", "--database", "cut"];
    let kms = format!("aws:kms,{KEY_ID}");
    let kms_settings = format!("server_side_encryption = \"aws:kms\"\nkms_key_id = \"{KEY_ID}\"");
    let settings = "server_side_encryption = \"AES256\"";
    for (port, policy, settings) in [(7311, "AES256", settings), (7312, &kms, &kms_settings)] {
        lab.config("");
        lab.s3_between(port, &format!("denies-all-but-{policy}"));
        xdb(lab, &push).failed(4, "access denied");
        lab.config(&format!("[s3]\n{settings}"));
        xdb(lab, &push).succeeded(policy);
        // walrus cannot ask for it, and is not started. What failed to be archived under the policy is another reason.
        lab.sql("SELECT pg_stat_reset_shared('archiver')");
        xdb(lab, &["backup", "push"]).failed(2, "s3.server_side_encryption");
    }
    lab.upstream("127.0.0.1:7070");
}
