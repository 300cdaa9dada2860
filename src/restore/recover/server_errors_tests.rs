//! Which errors are damage.

use super::*;

#[test]
fn only_a_corrupt_or_unreadable_object_is_corrupt() {
    let (md, dfmgr, other) = ("md.c", "dfmgr.c", "postgres.c");
    for (code, file, message, cause) in [
        (
            "XX001",
            "bufmgr.c",
            "invalid page in block 1 of relation base/5/16384",
            ErrorCause::Corrupt,
        ),
        (
            "XX001",
            "toast_internals.c",
            "missing chunk number 0 for toast value 16390",
            ErrorCause::Corrupt,
        ),
        (
            "XX002",
            "verify_nbtree.c",
            "item order invariant violated for index \"i\"",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            md,
            "could not open file \"base/5/16384\": No such file or directory",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            "slru.c",
            "could not access status of transaction 745",
            ErrorCause::Corrupt,
        ),
        (
            "XX000",
            "slru.c",
            "could not access status of transaction 745",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            dfmgr,
            "could not access file \"$libdir/hstore\": No such file or directory",
            ErrorCause::Lacking,
        ),
        (
            "XX000",
            dfmgr,
            "incompatible library \"/lib/x.so\": version mismatch",
            ErrorCause::Lacking,
        ),
        (
            "42883",
            dfmgr,
            "could not find function \"f\" in file \"/lib/x.so\"",
            ErrorCause::Lacking,
        ),
        (
            "XX000",
            "postinit.c",
            "database locale is incompatible with operating system",
            ErrorCause::Lacking,
        ),
        (
            "22023",
            "pg_locale.c",
            "could not create locale \"fr_FR.utf8\": No such file or directory",
            ErrorCause::Lacking,
        ),
        (
            "0A000",
            "extension.c",
            "extension \"amcheck\" is not available",
            ErrorCause::Lacking,
        ),
        (
            "55000",
            "x.c",
            "pg_cron must be loaded via shared_preload_libraries",
            ErrorCause::Lacking,
        ),
        (
            "42704",
            "guc.c",
            "unrecognized configuration parameter \"cron.database_name\"",
            ErrorCause::Lacking,
        ),
        (
            "42883",
            other,
            "function helper(integer) does not exist",
            ErrorCause::Unknown,
        ),
        (
            "42P01",
            other,
            "relation \"rates\" does not exist",
            ErrorCause::Unknown,
        ),
        (
            "57014",
            other,
            "canceling statement due to statement timeout",
            ErrorCause::Unknown,
        ),
        (
            "55P03",
            other,
            "canceling statement due to lock timeout",
            ErrorCause::Unknown,
        ),
        (
            "42501",
            md,
            "could not open file \"base/5/16384\": Permission denied",
            ErrorCause::Unknown,
        ),
        ("53200", other, "out of memory", ErrorCause::Unknown),
        (
            "53100",
            md,
            "could not extend file \"base/5/1\": No space left on device",
            ErrorCause::Unknown,
        ),
        (
            "58030",
            md,
            "could not read block 1 in file \"base/5/1\": Input/output error",
            ErrorCause::Unknown,
        ),
        (
            "22021",
            other,
            "invalid byte sequence for encoding \"UTF8\": 0xe9",
            ErrorCause::Unknown,
        ),
        (
            "XX000",
            other,
            "invalid memory alloc request size 1073741824",
            ErrorCause::Unknown,
        ),
    ] {
        assert_eq!(judged(code, file, message, ""), cause, "{code} {message}");
    }
}

fn judged(code: &str, file: &str, message: &str, detail: &str) -> ErrorCause {
    judge_answer(&Answer {
        code,
        file,
        message,
        detail,
    })
}

#[test]
fn a_damaged_catalog_is_corrupt_and_what_the_node_ran_out_of_is_not() {
    let missing = "No such file or directory";
    for (code, file, message, detail, cause) in [
        (
            "XX000",
            "relmapper.c",
            "relation mapping file \"base/5/pg_filenode.map\" contains invalid data",
            "",
            ErrorCause::Corrupt,
        ),
        (
            "XX000",
            "relmapper.c",
            "relation mapping file \"global/pg_filenode.map\" contains incorrect checksum",
            "",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            "relmapper.c",
            &format!("could not open file \"base/5/pg_filenode.map\": {missing}"),
            "",
            ErrorCause::Corrupt,
        ),
        (
            "53000",
            "relmapper.c",
            "could not open file \"base/5/pg_filenode.map\": Too many open files",
            "",
            ErrorCause::Unknown,
        ),
        (
            "3D000",
            "postinit.c",
            "database \"shop\" does not exist",
            "The database subdirectory \"base/16384\" is missing.",
            ErrorCause::Corrupt,
        ),
        (
            "3D000",
            "postinit.c",
            "database \"shop\" does not exist",
            "",
            ErrorCause::Unknown,
        ),
        (
            "22023",
            "miscinit.c",
            "\"base/16384\" is not a valid data directory",
            "File \"base/16384/PG_VERSION\" is missing.",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            "fd.c",
            &format!("could not open file \"base/16384/1259\": {missing}"),
            "",
            ErrorCause::Corrupt,
        ),
        (
            "58P01",
            "fd.c",
            &format!("could not open file \"/etc/xdb/words\": {missing}"),
            "",
            ErrorCause::Unknown,
        ),
        (
            "58P01",
            "dfmgr.c",
            &format!("could not load library \"/base/x.so\": {missing}"),
            "",
            ErrorCause::Lacking,
        ),
        (
            "XX000",
            "relcache.c",
            "catalog is missing 1 attribute(s) for relation OID 16390",
            "",
            ErrorCause::Corrupt,
        ),
        (
            "XX000",
            "multixact.c",
            "MultiXactId 7 does no longer exist -- apparent wraparound",
            "",
            ErrorCause::Corrupt,
        ),
        (
            "53200",
            "heapam.c",
            "out of memory",
            "",
            ErrorCause::Unknown,
        ),
        (
            "53100",
            "relcache.c",
            "could not write file: No space left on device",
            "",
            ErrorCause::Unknown,
        ),
        (
            "58030",
            "slru.c",
            "could not access status of transaction 745",
            "Could not read from file \"pg_xact/0000\": Input/output error.",
            ErrorCause::Unknown,
        ),
    ] {
        let judged = judged(code, file, message, detail);
        assert_eq!(judged, cause, "{code} {message} {detail}");
    }
}
