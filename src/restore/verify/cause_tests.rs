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
            Cause::Corrupt,
        ),
        (
            "XX001",
            "toast_internals.c",
            "missing chunk number 0 for toast value 16390",
            Cause::Corrupt,
        ),
        (
            "XX002",
            "verify_nbtree.c",
            "item order invariant violated for index \"i\"",
            Cause::Corrupt,
        ),
        (
            "58P01",
            md,
            "could not open file \"base/5/16384\": No such file or directory",
            Cause::Corrupt,
        ),
        (
            "58P01",
            "slru.c",
            "could not access status of transaction 745",
            Cause::Corrupt,
        ),
        (
            "XX000",
            "slru.c",
            "could not access status of transaction 745",
            Cause::Corrupt,
        ),
        (
            "58P01",
            dfmgr,
            "could not access file \"$libdir/hstore\": No such file or directory",
            Cause::Lacking,
        ),
        (
            "XX000",
            dfmgr,
            "incompatible library \"/lib/x.so\": version mismatch",
            Cause::Lacking,
        ),
        (
            "42883",
            dfmgr,
            "could not find function \"f\" in file \"/lib/x.so\"",
            Cause::Lacking,
        ),
        (
            "XX000",
            "postinit.c",
            "database locale is incompatible with operating system",
            Cause::Lacking,
        ),
        (
            "22023",
            "pg_locale.c",
            "could not create locale \"fr_FR.utf8\": No such file or directory",
            Cause::Lacking,
        ),
        (
            "0A000",
            "extension.c",
            "extension \"amcheck\" is not available",
            Cause::Lacking,
        ),
        (
            "55000",
            "x.c",
            "pg_cron must be loaded via shared_preload_libraries",
            Cause::Lacking,
        ),
        (
            "42704",
            "guc.c",
            "unrecognized configuration parameter \"cron.database_name\"",
            Cause::Lacking,
        ),
        (
            "42883",
            other,
            "function helper(integer) does not exist",
            Cause::Unknown,
        ),
        (
            "42P01",
            other,
            "relation \"rates\" does not exist",
            Cause::Unknown,
        ),
        (
            "57014",
            other,
            "canceling statement due to statement timeout",
            Cause::Unknown,
        ),
        (
            "55P03",
            other,
            "canceling statement due to lock timeout",
            Cause::Unknown,
        ),
        (
            "42501",
            md,
            "could not open file \"base/5/16384\": Permission denied",
            Cause::Unknown,
        ),
        ("53200", other, "out of memory", Cause::Unknown),
        (
            "53100",
            md,
            "could not extend file \"base/5/1\": No space left on device",
            Cause::Unknown,
        ),
        (
            "58030",
            md,
            "could not read block 1 in file \"base/5/1\": Input/output error",
            Cause::Unknown,
        ),
        (
            "22021",
            other,
            "invalid byte sequence for encoding \"UTF8\": 0xe9",
            Cause::Unknown,
        ),
        (
            "XX000",
            other,
            "invalid memory alloc request size 1073741824",
            Cause::Unknown,
        ),
    ] {
        assert_eq!(judged(code, file, message, ""), cause, "{code} {message}");
    }
}

fn judged(code: &str, file: &str, message: &str, detail: &str) -> Cause {
    judge(&Answer {
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
            Cause::Corrupt,
        ),
        (
            "XX000",
            "relmapper.c",
            "relation mapping file \"global/pg_filenode.map\" contains incorrect checksum",
            "",
            Cause::Corrupt,
        ),
        (
            "58P01",
            "relmapper.c",
            &format!("could not open file \"base/5/pg_filenode.map\": {missing}"),
            "",
            Cause::Corrupt,
        ),
        (
            "53000",
            "relmapper.c",
            "could not open file \"base/5/pg_filenode.map\": Too many open files",
            "",
            Cause::Unknown,
        ),
        (
            "3D000",
            "postinit.c",
            "database \"shop\" does not exist",
            "The database subdirectory \"base/16384\" is missing.",
            Cause::Corrupt,
        ),
        (
            "3D000",
            "postinit.c",
            "database \"shop\" does not exist",
            "",
            Cause::Unknown,
        ),
        (
            "22023",
            "miscinit.c",
            "\"base/16384\" is not a valid data directory",
            "File \"base/16384/PG_VERSION\" is missing.",
            Cause::Corrupt,
        ),
        (
            "58P01",
            "fd.c",
            &format!("could not open file \"base/16384/1259\": {missing}"),
            "",
            Cause::Corrupt,
        ),
        (
            "58P01",
            "fd.c",
            &format!("could not open file \"/etc/xdb/words\": {missing}"),
            "",
            Cause::Unknown,
        ),
        (
            "58P01",
            "dfmgr.c",
            &format!("could not load library \"/base/x.so\": {missing}"),
            "",
            Cause::Lacking,
        ),
        (
            "XX000",
            "relcache.c",
            "catalog is missing 1 attribute(s) for relation OID 16390",
            "",
            Cause::Corrupt,
        ),
        (
            "XX000",
            "multixact.c",
            "MultiXactId 7 does no longer exist -- apparent wraparound",
            "",
            Cause::Corrupt,
        ),
        ("53200", "heapam.c", "out of memory", "", Cause::Unknown),
        (
            "53100",
            "relcache.c",
            "could not write file: No space left on device",
            "",
            Cause::Unknown,
        ),
        (
            "58030",
            "slru.c",
            "could not access status of transaction 745",
            "Could not read from file \"pg_xact/0000\": Input/output error.",
            Cause::Unknown,
        ),
    ] {
        let judged = judged(code, file, message, detail);
        assert_eq!(judged, cause, "{code} {message} {detail}");
    }
}
