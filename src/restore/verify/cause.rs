//! Whether an error in a look at an object is the object's fault, or this node's, or says nothing of either.

use crate::postgres::{self, PostgresError};

/// What an error says of the object that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The object is corrupt, or a file of it is missing.
    Corrupt,
    /// This node lacks a library, a locale or a preloaded extension that the object needs.
    Lacking,
    /// The error says nothing of the object: a timeout, a lock, a function that fails, no memory.
    Unknown,
}

pub(super) fn cause(error: &PostgresError) -> Cause {
    let (PostgresError::Query { error, .. } | PostgresError::Connect { error, .. }) = error else {
        return Cause::Unknown;
    };
    error.as_db_error().map_or(Cause::Unknown, |answer| {
        let file = answer.file().unwrap_or_default();
        judge(answer.code().code(), file, answer.message())
    })
}

/// `file` is the source file of PostgreSQL that raised the error.
fn judge(code: &str, file: &str, message: &str) -> Cause {
    // What the server reads relations and transaction states with.
    const STORAGE: [&str; 2] = ["md.c", "slru.c"];
    const UNREADABLE: &str = "could not access status of transaction";
    match code {
        "XX001" | "XX002" => Cause::Corrupt,
        // undefined_file: a relation's own file, or a library.
        "58P01" if STORAGE.contains(&file) || message.starts_with(UNREADABLE) => Cause::Corrupt,
        "XX000" if message.starts_with(UNREADABLE) => Cause::Corrupt,
        _ if file == "dfmgr.c" || is_missing_here(message) => Cause::Lacking,
        _ => Cause::Unknown,
    }
}

/// PostgreSQL's words for what is installed where the backup was taken, and not here.
fn is_missing_here(message: &str) -> bool {
    const WORDS: [&str; 17] = [
        "could not load library",
        "could not access file \"",
        "could not open extension control file",
        "could not open dictionary file",
        "could not open affix file",
        "could not open stop-word file",
        "could not open thesaurus file",
        "could not create locale",
        "could not open collator",
        "database locale is incompatible",
        "locale name",
        "ICU is not supported",
        "shared_preload_libraries",
        "must be preloaded",
        "must be loaded via",
        "unrecognized configuration parameter",
        "resource manager with ID",
    ];
    let is_extension = message.starts_with("extension \"") && message.ends_with("is not available");
    is_extension || WORDS.iter().any(|words| message.contains(words))
}

/// The error in the server's own words, with the detail that names what this node lacks.
pub(super) fn in_words(error: &PostgresError) -> String {
    let (PostgresError::Query { error: cause, .. } | PostgresError::Connect { error: cause, .. }) =
        error
    else {
        return error.to_string();
    };
    let words = postgres::in_words(cause);
    match cause.as_db_error().and_then(|answer| answer.detail()) {
        Some(detail) if self::cause(error) == Cause::Lacking => format!("{words}: {detail}"),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(judge(code, file, message), cause, "{code} {message}");
        }
    }
}
