//! Whether an error of a check means that the object is damaged, that this node lacks something, or neither.

use crate::postgres::{self, PostgresError};
use crate::restore::RestoreError;

/// The cause of an error of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCause {
    /// The object is corrupt, or a file of it is missing.
    Corrupt,
    /// This node lacks a library, a locale or a preloaded extension that the object needs.
    Lacking,
    /// The error says nothing of the object: a timeout, a lock, a function that fails, no memory.
    Unknown,
}

pub(crate) fn error_cause(error: &PostgresError) -> ErrorCause {
    match error {
        PostgresError::Query { error, .. } | PostgresError::Connect { error, .. } => {
            cause_of(error)
        }
        _ => ErrorCause::Unknown,
    }
}

/// Whether a login failed, or a query, because the copy is damaged.
pub(crate) fn is_corrupt(error: &tokio_postgres::Error) -> bool {
    cause_of(error) == ErrorCause::Corrupt
}

/// The damage that `error` proves, in words; `None` where it proves none.
pub(crate) fn proven_damage(error: &PostgresError) -> Option<String> {
    (error_cause(error) == ErrorCause::Corrupt).then(|| error_words(error))
}

/// The error for a failed query to the copy: the backup is bad if `error` proves damage, else that is unknown.
pub(crate) fn query_failure(error: PostgresError) -> RestoreError {
    match proven_damage(&error) {
        Some(words) => RestoreError::Bad(format!("the restored server cannot be queried: {words}")),
        None => error.into(),
    }
}

fn cause_of(error: &tokio_postgres::Error) -> ErrorCause {
    error.as_db_error().map_or(ErrorCause::Unknown, |answer| {
        judge_answer(&Answer {
            code: answer.code().code(),
            file: answer.file().unwrap_or_default(),
            message: answer.message(),
            detail: answer.detail().unwrap_or_default(),
        })
    })
}

/// A server's error.
struct Answer<'a> {
    code: &'a str,
    /// The source file of PostgreSQL that raised it.
    file: &'a str,
    message: &'a str,
    detail: &'a str,
}

fn judge_answer(answer: &Answer<'_>) -> ErrorCause {
    let Answer { code, file, .. } = *answer;
    match code {
        "XX001" | "XX002" => ErrorCause::Corrupt,
        // undefined_file: a file of the data directory, or a library.
        "58P01" if file != "dfmgr.c" && is_data_file(answer) => ErrorCause::Corrupt,
        "XX000" if is_unreadable(answer) => ErrorCause::Corrupt,
        // invalid_catalog_name: of a database that is listed.
        "3D000" if answer.detail.contains("database subdirectory") => ErrorCause::Corrupt,
        // invalid_parameter_value: of PG_VERSION in a database's directory.
        "22023" if answer.message.ends_with("is not a valid data directory") => ErrorCause::Corrupt,
        _ if file == "dfmgr.c" || is_missing_here(answer.message) => ErrorCause::Lacking,
        _ => ErrorCause::Unknown,
    }
}

/// The sources that read relations, transaction states and the map of the catalogs.
const STORAGE: [&str; 4] = ["md.c", "slru.c", "relmapper.c", "twophase.c"];
const UNREADABLE: &str = "could not access status of transaction";

/// Whether the file that is not there is one of the data directory.
fn is_data_file(answer: &Answer<'_>) -> bool {
    const DIRECTORIES: [&str; 7] = [
        "\"base/",
        "\"global/",
        "\"pg_tblspc/",
        "\"pg_xact/",
        "\"pg_multixact/",
        "\"pg_subtrans/",
        "\"pg_commit_ts/",
    ];
    let message = answer.message;
    STORAGE.contains(&answer.file)
        || message.starts_with(UNREADABLE)
        || DIRECTORIES.iter().any(|folder| message.contains(folder))
}

/// Whether an internal error says that pages or catalogs cannot be what PostgreSQL wrote.
fn is_unreadable(answer: &Answer<'_>) -> bool {
    // Access methods for tables and B-trees, out-of-line values, and the cache of the catalogs raise it for nothing else.
    const READERS: [&str; 11] = [
        "heapam.c",
        "heapam_visibility.c",
        "heaptoast.c",
        "detoast.c",
        "toast_internals.c",
        "nbtpage.c",
        "nbtsearch.c",
        "nbtutils.c",
        "multixact.c",
        "relcache.c",
        "relation.c",
    ];
    let message = answer.message;
    message.starts_with(UNREADABLE)
        || message.starts_with("relation mapping file")
        || READERS.contains(&answer.file)
}

/// Whether PostgreSQL's message is about something that this node lacks.
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

/// The error in the server's own words, with the detail that names what is damaged, or what this node lacks.
pub(crate) fn error_words(error: &PostgresError) -> String {
    let (PostgresError::Query { error: cause, .. } | PostgresError::Connect { error: cause, .. }) =
        error
    else {
        return error.to_string();
    };
    let words = postgres::in_words(cause);
    match cause.as_db_error().and_then(|answer| answer.detail()) {
        Some(detail) if error_cause(error) != ErrorCause::Unknown => {
            format!("{words}: {detail}")
        }
        _ => words,
    }
}

#[cfg(test)]
#[path = "server_errors_tests.rs"]
mod tests;
