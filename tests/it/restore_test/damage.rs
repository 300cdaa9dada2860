//! What is missing or damaged in the repository is found.

use super::{REPOSITORY, archive_marker, backed_up, markers, push, restore_test};
use crate::harness::{Lab, Program, Service, for_each_program};

for_each_program!(a_removed_middle_segment_is_found, a_cut_tar_part_is_found);

fn a_removed_middle_segment_is_found(program: Program) {
    let lab = Lab::start(program);
    let segments = backed_up(&lab, 3);
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{}.lz4", segments[1]));
    assert_eq!(
        lab.sh(&format!("ls {REPOSITORY}/wal_005/{}.lz4", segments[1]))
            .code,
        2
    );
    // What would come back is shown all the same: the rows before the gap.
    let tested = restore_test(&lab, &["--sql", &markers("1")]);
    tested.not_passed(1, &segments[1]);
    assert_eq!(
        (tested.verdict("wal"), tested.verdict("end_reached")),
        ("critical", "critical")
    );
    assert!(tested.report["rto_secs"].as_f64().is_some());
    let list = lab.xdb(&["backup", "list"]);
    assert!(
        list.stdout
            .contains(&format!("WAL is missing: {}", segments[1])),
        "{list:?}"
    );
}

#[test]
fn a_missing_last_segment_is_found_while_the_server_remembers() {
    let lab = Lab::start(Program::Walrus);
    let segments = backed_up(&lab, 2);
    lab.ok(&format!("rm {REPOSITORY}/wal_005/{}.lz4", segments[1]));
    let tested = restore_test(&lab, &["--sql", &markers("1")]);
    tested.not_passed(1, &format!("PostgreSQL archived {}", segments[1]));
    assert!(
        tested.report["rpo_secs"].as_f64() > Some(0.0),
        "{}",
        tested.report
    );
}

fn a_cut_tar_part_is_found(program: Program) {
    let lab = Lab::start(program);
    backed_up(&lab, 1);
    let part = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005/*/tar_partitions/part_001.tar.lz4"
    ));
    let size: u64 = lab.ok(&format!("stat -c %s {part}")).parse().unwrap();
    lab.ok(&format!("cp {part} /tmp/whole"));
    // In the middle, near the end, and to nothing.
    for cut in [size / 2, size - 20, 0] {
        lab.ok(&format!("cp /tmp/whole {part} && truncate -s {cut} {part}"));
        assert_eq!(lab.ok(&format!("stat -c %s {part}")), cut.to_string());
        let tested = restore_test(&lab, &[]);
        tested.not_passed(1, "base_0000000100000000000000");
        assert_eq!(
            tested.verdict("tar_parts"),
            "critical",
            "cut to {cut} of {size}: {}",
            tested.report
        );
    }
    lab.ok(&format!("rm {part}"));
    restore_test(&lab, &[]).not_passed(1, "the tar parts of base_0000000100000000000000");
    lab.ok(&format!("cp /tmp/whole {part}"));
    restore_test(&lab, &[]).passed();
}

#[test]
fn a_flipped_bit_is_found_where_checksums_are_kept_and_said_to_be_unknowable_where_not() {
    let lab = Lab::start(Program::Walrus);
    lab.sql("CREATE TABLE big AS SELECT i AS id, repeat('x', 500) AS pad FROM generate_series(1, 2000) AS i");
    lab.sql("CHECKPOINT");
    let file =
        lab.sql("SELECT current_setting('data_directory') || '/' || pg_relation_filepath('big')");
    lab.service("postgres", Service::Down);
    // Inside a row's text: the tuple stays well-formed, only the checksum can tell.
    lab.ok(&format!(
        "printf 'y' | dd of={file} bs=1 seek=12000 conv=notrunc status=none"
    ));
    lab.service("postgres", Service::Up);
    assert_eq!(
        lab.ok(&format!("dd if={file} bs=1 skip=12000 count=1 status=none")),
        "y"
    );
    lab.sql("CREATE TABLE marker (id int PRIMARY KEY)");
    push(&lab);
    archive_marker(&lab, 1);
    let tested = restore_test(&lab, &[]);
    tested.not_passed(1, "big");
    assert_eq!(
        (tested.verdict("tables"), tested.verdict("checksums")),
        ("critical", "critical"),
        "{}",
        tested.report
    );

    lab.service("postgres", Service::Down);
    lab.ok("setpriv --reuid=postgres --clear-groups /usr/lib/postgresql/17/bin/pg_checksums --disable -D /var/lib/postgresql/17/main");
    lab.service("postgres", Service::Up);
    push(&lab);
    archive_marker(&lab, 2);
    let tested = restore_test(&lab, &[]);
    tested.passed();
    assert_eq!(tested.verdict("checksums"), "unknown", "{}", tested.report);
}

#[test]
fn a_damaged_sentinel_spoils_its_own_backup_only() {
    let lab = Lab::start(Program::Walrus);
    backed_up(&lab, 1);
    let good = lab.ok(&format!(
        "ls {REPOSITORY}/basebackups_005 | grep -v sentinel"
    ));
    let bad = push(&lab);
    lab.ok(&format!(
        "truncate -s 40 {REPOSITORY}/basebackups_005/{bad}_backup_stop_sentinel.json"
    ));
    restore_test(&lab, &[]).not_passed(1, "its sentinel is damaged");
    restore_test(&lab, &["--backup", &good, "--sql", &markers("1")]).passed();
    let list = lab.xdb(&["backup", "list"]);
    assert!(
        list.stdout.contains("unusable") && list.stdout.contains("complete"),
        "{list:?}"
    );
}
