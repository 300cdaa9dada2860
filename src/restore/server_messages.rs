//! The last message of a server that ended: whether it means damage, and what of it may be printed.

use crate::archive::DAMAGED;

/// Whether a server that ended says that its data or WAL is bad; running out of memory, or being killed, does not.
///
/// Where it ended over a file that `xdb wal-fetch` did not bring, that has read the file and knows.
pub(super) fn is_damage(reason: &str) -> bool {
    const ELSEWHERE: [&str; 18] = [
        "out of memory",
        "Cannot allocate memory",
        "No space left on device",
        "Disk quota exceeded",
        "shared memory",
        "Too many open files",
        "command not found",
        "Permission denied",
        "Input/output error",
        "Read-only file system",
        "could not load library",
        "could not access file \"",
        "recovery aborted because of insufficient parameter settings",
        "database files are incompatible with server",
        "database locale is incompatible",
        "resource manager with ID",
        "terminated by signal",
        "unexpected postmaster exit",
    ];
    if reason.contains("xdb wal-fetch") {
        return reason.contains(DAMAGED);
    }
    let fatal = ["FATAL:", "PANIC:"]
        .iter()
        .any(|level| reason.contains(level));
    fatal && !ELSEWHERE.iter().any(|words| reason.contains(words))
}

/// PostgreSQL's message about a configuration without the value or token that it quotes, which may be a secret.
pub(super) fn without_values(words: &str) -> String {
    // `invalid value for parameter "x": "…"`, `syntax error in file "x" line 7, near token "…"`
    let value = words
        .find("parameter \"")
        .and_then(|at| Some(at + words[at..].find("\": ")? + 1));
    let token = words.find(", near token");
    let end = [value, token].into_iter().flatten().min();
    words[..end.unwrap_or(words.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_for_damage_is_held_against_the_backup() {
        for (reason, damage) in [
            (
                "FATAL:  could not locate required checkpoint record at 0/3000028",
                true,
            ),
            ("PANIC:  WAL contains references to invalid pages", true),
            (
                "FATAL:  could not restore file (xdb wal-fetch: damaged: what the archive holds of 0…3 is no good: cut)",
                true,
            ),
            (
                "FATAL:  could not restore file (xdb wal-fetch: walrus wal-fetch failed: exit status: 1)",
                false,
            ),
            (
                "LOG:  startup process (PID 9) was terminated by signal 9: Killed",
                false,
            ),
            (
                "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
                false,
            ),
            ("FATAL:  resource manager with ID 140 not registered", false),
            (
                "FATAL:  database locale is incompatible with operating system",
                false,
            ),
            (
                "FATAL:  could not read file \"base/5/1259\": Input/output error",
                false,
            ),
            (
                "FATAL:  could not access file \"pg_cron\": No such file or directory",
                false,
            ),
            ("FATAL:  database files are incompatible with server", false),
            ("FATAL:  could not access status of transaction 745", true),
            (
                "FATAL:  relation mapping file \"global/pg_filenode.map\" contains incorrect checksum",
                true,
            ),
            ("LOG:  database system is ready", false),
            ("it left an empty log", false),
        ] {
            assert_eq!(is_damage(reason), damage, "{reason}");
        }
    }

    #[test]
    fn no_value_of_a_setting_is_repeated() {
        for (words, expected) in [
            (
                "FATAL:  invalid value for parameter \"primary_conninfo\": \"password=secret\"",
                "FATAL:  invalid value for parameter \"primary_conninfo\"",
            ),
            (
                "LOG:  syntax error in file \"/d/postgresql.conf\" line 7, near token \"secret\"",
                "LOG:  syntax error in file \"/d/postgresql.conf\" line 7",
            ),
            (
                "FATAL:  could not open configuration file \"/etc/x.conf\": No such file or directory",
                "FATAL:  could not open configuration file \"/etc/x.conf\": No such file or directory",
            ),
        ] {
            assert_eq!(without_values(words), expected);
        }
    }
}
