//! Damage inside of a backup: each is found for what it is, by the level that looks at it.

use super::{REPOSITORY, SOON, Tested, archive_marker, backed_up, push, restore_test};
use crate::harness::{Lab, Program, Service, eventually};

/// Where the repository is set aside while it is damaged.
const WHOLE: &str = "/srv/whole";

/// From now on nothing is archived that the copy would lack; returns the last segment that was.
fn set_aside(lab: &Lab) -> String {
    lab.sql("ALTER SYSTEM SET archive_timeout = 0");
    lab.sql("SELECT pg_reload_conf()");
    let last = archive_marker(lab, 99);
    lab.ok(&format!("cp -a {REPOSITORY} {WHOLE}"));
    last
}

/// Damages the repository by `script`, which is run as root where the repository lies.
fn damage(lab: &Lab, script: &str) {
    lab.ok(&format!(
        "rm -rf {REPOSITORY} && cp -a {WHOLE} {REPOSITORY} && cd {REPOSITORY} && {script}"
    ));
    assert_ne!(lab.sh(&format!("diff -rq {WHOLE} {REPOSITORY}")).code, 0);
}

/// Does `change` to the file `member` of the backup, inside of the tar part that holds it; without one the file goes.
///
/// The sentinel counts what is stored then, as if the program had pushed it so.
fn damage_file(lab: &Lab, member: &str, change: Option<&str>) {
    let keep = change.map_or_else(
        || "true".to_owned(),
        |change| format!("(cd /tmp/unpacked && F='{member}' && {change} && tar -rf ../part.tar --owner=postgres --group=postgres \"$F\")"),
    );
    damage(
        lab,
        &format!(
            "cd basebackups_005 && found=no && for part in */tar_partitions/*.lz4; do
               lz4 -dcq $part >/tmp/part.tar
               tar -tf /tmp/part.tar | grep -qx '{member}' || continue
               rm -rf /tmp/unpacked && mkdir /tmp/unpacked && tar -xf /tmp/part.tar -C /tmp/unpacked '{member}' &&
               tar -f /tmp/part.tar --delete '{member}' && {keep} && lz4 -cq /tmp/part.tar >$part && found=yes
             done && test $found = yes && for s in *_sentinel.json; do
               jq -c '.CompressedSize = 1' $s >/tmp/s && cat /tmp/s >$s
             done"
        ),
    );
}

#[test]
fn damage_inside_of_a_backup_is_found_for_what_it_is() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE heap AS SELECT i AS id, repeat('x', 500) AS pad FROM generate_series(1, 2000) AS i");
    lab.sql("CREATE TABLE keyed AS SELECT generate_series(1, 2000) AS id");
    lab.sql("CREATE INDEX keyed_id ON keyed (id)");
    lab.sql("CHECKPOINT");
    let file = |name: &str| lab.sql(&format!("SELECT pg_relation_filepath('{name}')"));
    let (heap, index, keyed) = (file("heap"), file("keyed_id"), file("keyed"));
    // The tables are small: PostgreSQL does not look for a second gigabyte, and the program backs it up all the same.
    lab.ok(&format!(
        "cd /var/lib/postgresql/17/main && head -c 8192 /dev/zero >{heap}.1 && chown postgres {heap}.1"
    ));
    backed_up(&lab, 1);
    let last = set_aside(&lab);

    // A bit inside a row's text; a bit of an index; both well-formed but for the page's checksum.
    let flip = |at: u32| format!("printf y | dd of=$F bs=1 seek={at} conv=notrunc status=none");
    damage_file(&lab, &heap, Some(&flip(12_000)));
    restore_test(&lab, &["--level", "start"]).passed();
    let tested = restore_test(&lab, &["--level", "check"]);
    tested.not_passed(1, &heap);
    assert_eq!(
        (tested.verdict("amcheck"), tested.verdict("checksums")),
        ("critical", "critical")
    );
    damage_file(&lab, &index, Some(&flip(16_340)));
    let tested = restore_test(&lab, &["--level", "check"]);
    tested.not_passed(1, "keyed_id");
    assert_eq!(
        (tested.verdict("amcheck"), tested.verdict("checksums")),
        ("critical", "critical")
    );

    for (member, change, level, words) in [
        (
            format!("{heap}.1"),
            None,
            "check",
            format!("the backup lists {heap}.1, and it was not restored"),
        ),
        (
            keyed.clone(),
            None,
            "check",
            format!("the backup lists {keyed}, and it was not restored"),
        ),
        (
            "backup_label".to_owned(),
            None,
            "start",
            "no backup_label was restored".to_owned(),
        ),
        (
            "backup_label".to_owned(),
            Some("sed -i 's/^START TIMELINE: 1/START TIMELINE: 2/' $F"),
            "start",
            "backup_label is of timeline 2, the backup of timeline 1".to_owned(),
        ),
        // What keeps a database, and every database, from being entered.
        (
            "base/5/pg_filenode.map".to_owned(),
            Some("printf x | dd of=$F bs=1 seek=20 conv=notrunc status=none"),
            "start",
            "databases: postgres: FATAL: relation mapping file".to_owned(),
        ),
        (
            "base/5/PG_VERSION".to_owned(),
            None,
            "start",
            "\"base/5\" is not a valid data directory".to_owned(),
        ),
        (
            "global/pg_filenode.map".to_owned(),
            Some("printf x | dd of=$F bs=1 seek=20 conv=notrunc status=none"),
            "start",
            "relation mapping file \"global/pg_filenode.map\"".to_owned(),
        ),
        // Every page that is left is whole: nothing but the live server knows of the others.
        (
            heap.clone(),
            Some("truncate -s 81920 $F"),
            "full",
            "postgres: public.heap: 150 rows were restored, and 2000 from before the backup"
                .to_owned(),
        ),
    ] {
        damage_file(&lab, &member, change);
        restore_test(&lab, &["--level", level]).not_passed(1, &words);
    }

    let corrupt = "dd if=/dev/zero bs=1 count=64 conv=notrunc status=none";
    let half = "seek=$(($(stat -c %s $part) / 2))";
    for (script, words) in [
        (
            format!("part=$(ls basebackups_005/*/tar_partitions/part_001.tar.lz4) && {corrupt} of=$part {half}"),
            "the tar part part_001.tar.lz4 of base_".to_owned(),
        ),
        (
            format!("part=wal_005/{last}.lz4 && {corrupt} of=$part seek=100"),
            format!("what the archive holds of {last} is no good"),
        ),
        // It unpacks, and PostgreSQL finds its records wrong: by itself it would take that for the end of the archive.
        (
            format!("part=wal_005/{last}.lz4 && lz4 -dcq $part >/tmp/wal && {corrupt} of=/tmp/wal seek=64 && lz4 -cq /tmp/wal >$part"),
            "before the end of the segment".to_owned(),
        ),
        ("rm basebackups_005/*/tar_partitions/*".to_owned(), "the tar parts of base_".to_owned()),
        (
            "for s in basebackups_005/*_sentinel.json; do jq -c '.SystemIdentifier = 1234' $s >/tmp/s && cat /tmp/s >$s; done".to_owned(),
            "this node's server is another cluster".to_owned(),
        ),
    ] {
        damage(&lab, &script);
        restore_test(&lab, &[]).not_passed(1, &words);
    }
    damage(&lab, "touch new");
    restore_test(&lab, &[]).passed();
}

#[test]
fn a_delta_without_its_base_or_across_a_failover_is_found_before_it_is_fetched() {
    let lab = Lab::start(Program::Walrus);
    lab.config("[archive]\ndelta_max_steps = 2");
    backed_up(&lab, 1);
    let full = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005 | grep -v sentinel"
    ));
    let delta = push(&lab);
    assert!(delta.contains("_D_"), "{delta}");
    set_aside(&lab);
    restore_test(&lab, &[]).passed();
    let fetched_nothing = |tested: Tested| {
        assert_eq!(
            tested.report["steps"],
            serde_json::json!([]),
            "{}",
            tested.report
        );
    };
    damage(&lab, &format!("rm -r basebackups_005/{full}*"));
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, &format!("its parent {full} is gone"));
    fetched_nothing(tested);

    damage(&lab, "rm -r basebackups_005/*_D_*");
    lab.service("postgres", Service::Down);
    lab.ok(
        "cd /var/lib/postgresql/17/main && echo \"restore_command = 'xdb wal-fetch %f %p'\" >>postgresql.conf &&
         touch recovery.signal && chown postgres recovery.signal",
    );
    lab.service("postgres", Service::Up);
    eventually("the server is promoted", SOON, || {
        let answer = lab.sh_as_postgres("psql -XAtc 'SELECT pg_is_in_recovery()'");
        (answer.stdout.trim() == "f").then_some(())
    });
    archive_marker(&lab, 3);
    // xdb takes a full one then. What wal-g took for a delta looked like this: a base that the new timeline had left.
    let newer = push(&lab);
    assert!(newer.starts_with("base_00000002"), "{newer}");
    let folder = format!("{REPOSITORY}/basebackups_005");
    for (name, change) in [
        (&full, ".FinishLSN += 1000000000".to_owned()),
        (
            &newer,
            format!(".DeltaFrom = \"{full}\" | .DeltaFullName = \"{full}\" | .DeltaCount = 1"),
        ),
    ] {
        let sentinel = format!("{folder}/{name}_backup_stop_sentinel.json");
        lab.ok(&format!(
            "jq -c '{change}' {sentinel} >/tmp/s && cat /tmp/s >{sentinel}"
        ));
    }
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "after timeline 2 had left it");
    fetched_nothing(tested);
}

#[test]
fn what_is_encrypted_comes_back_and_what_xdb_cannot_read_it_never_calls_damaged() {
    let lab = Lab::start(Program::Walrus);
    let key = "0123456789abcdef".repeat(4);
    let set_key = |key: &str| {
        lab.config(&format!(
            "[archive.settings]\nWALG_LIBSODIUM_KEY = \"{key}\"\nWALG_LIBSODIUM_KEY_TRANSFORM = \"hex\""
        ));
    };
    set_key(&key);
    let last = backed_up(&lab, 2).pop().unwrap();
    set_aside(&lab);
    let unpacked = format!("lz4 -dcq {REPOSITORY}/wal_005/{last}.lz4");
    assert_ne!(lab.sh(&unpacked).code, 0, "it is encrypted");
    restore_test(&lab, &[]).passed();
    let corrupt = "dd if=/dev/zero bs=1 count=64 seek=1000 conv=notrunc status=none";
    damage(
        &lab,
        &format!("{corrupt} of=$(ls basebackups_005/*/tar_partitions/part_001.tar.lz4)"),
    );
    restore_test(&lab, &[]).not_passed(4, "which is encrypted; the key is right");
    set_key(&"f".repeat(64));
    restore_test(&lab, &[]).not_passed(4, "wrong key: what is configured");
    set_key(&key);
    damage(&lab, &format!("{corrupt} of=wal_005/{last}.lz4"));
    let tested = restore_test(&lab, &[]);
    tested.not_passed(4, &last);
    assert!(!tested.output.stdout.contains(&key) && !tested.output.stderr.contains(&key));
}

#[test]
fn a_backup_is_judged_as_it_is_stored_and_not_as_the_settings_are_by_now() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 1);
    set_aside(&lab);
    let key = "0123456789abcdef".repeat(4);
    lab.config(&format!(
        "[archive.settings]\nWALG_LIBSODIUM_KEY = \"{key}\"\nWALG_LIBSODIUM_KEY_TRANSFORM = \"hex\""
    ));
    let part = "basebackups_005/*/tar_partitions/part_001.tar.lz4";
    lab.ok(&format!("lz4 -tq {REPOSITORY}/{part}"));
    // The program takes it for encrypted, and fails; xdb can read it.
    let tested = restore_test(&lab, &[]);
    tested.not_passed(4, "every part of which can be unpacked");
    damage(
        &lab,
        &format!(
            "dd if=/dev/zero bs=1 count=64 seek=1000 conv=notrunc status=none of=$(ls {part})"
        ),
    );
    restore_test(&lab, &[]).not_passed(1, "cannot be unpacked");
}
