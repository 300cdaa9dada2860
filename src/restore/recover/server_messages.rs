//! The last message of a server that ended: whether it means damage, and what of it may be printed.

use crate::archive::{DAMAGED, MAKES_TABLESPACE};
use crate::restore::RestoreError;
use crate::restore::plan::{Until, not_in_the_wal};

/// Whether a server that ended says that its data or WAL is bad; running out of memory, or being killed, does not.
///
/// Where it ended over a file that `xdb wal-fetch` did not bring, that has read the file and knows.
pub(crate) fn is_damage(reason: &str) -> bool {
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
pub(crate) fn without_values(message: &str) -> String {
    // `invalid value for parameter "x": "…"`, `syntax error in file "x" line 7, near token "…"`
    let value = message
        .find("parameter \"")
        .and_then(|at| Some(at + message[at..].find("\": ")? + 1));
    let token = message.find(", near token");
    let end = [value, token].into_iter().flatten().min();
    message[..end.unwrap_or(message.len())].to_owned()
}

/// The refusal where PostgreSQL may not make something in `pg_tblspc`, by the `reason` in its log.
pub(crate) fn tablespace_refusal(reason: &str) -> Option<RestoreError> {
    let words = |of: &[&str]| of.iter().any(|words| reason.contains(words));
    if words(&[
        MAKES_TABLESPACE,
        "could not create symbolic link \"pg_tblspc/",
    ]) {
        return Some(RestoreError::Refused {
            reason: format!("the WAL makes a tablespace after the backup: {reason}"),
            hint: "replaying that here could write into the live tablespace; --until an LSN some megabytes before that segment brings back what lies before"
                .to_owned(),
        });
    }
    words(&[
        "could not create directory \"pg_tblspc/",
        "could not create missing directory \"pg_tblspc/",
    ])
    .then(|| RestoreError::Refused {
        reason: format!("a tablespace was dropped while the backup was taken: {reason}"),
        hint: "take another with `xdb backup push`, or name an older one with --backup".to_owned(),
    })
}

/// Whether `reason` says that the WAL ended before the target.
pub(crate) fn ended_before_target(reason: &str) -> bool {
    reason.contains("recovery ended before configured recovery target was reached")
}

/// The error for a target that PostgreSQL did not reach, from its `reason`; `None` where that has another cause.
///
/// The last completed transaction in `log`, the server's, shows how far the archived commits go.
pub(crate) fn target_not_reached(reason: &str, log: &str, until: &Until) -> Option<RestoreError> {
    let early = reason.contains("recovery stop point is before consistent recovery point");
    if early {
        return Some(RestoreError::Unreachable {
            reason: format!("{until} is before the end of the backup"),
            hint: "choose an older one with --backup: `xdb backup list` shows them".to_owned(),
        });
    }
    if !ended_before_target(reason) {
        return None;
    }
    let last = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("last completed transaction was at log time "))
        .map_or_else(
            || "no transaction was completed in it".to_owned(),
            |(_, at)| format!("its last transaction was completed at {at}"),
        );
    let (reason, hint) = match until {
        Until::Time(_) => (
            format!("the archive ends before {until}: {last}"),
            "without --until all of it comes back, which is that very transaction; a running primary stores more with `SELECT pg_switch_wal()`",
        ),
        Until::Lsn(_) => (
            format!("no record of the archive follows {until}: {last}"),
            "without --until all of it comes back",
        ),
        Until::Name(_) => return Some(not_in_the_wal(until, &format!(": {last}"))),
    };
    Some(RestoreError::Unreachable {
        reason,
        hint: hint.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

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
        for (message, expected) in [
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
            assert_eq!(without_values(message), expected);
        }
    }

    #[test]
    fn what_the_closed_folder_stopped_is_told_for_what_it_is() {
        let refused = |reason: &str| tablespace_refusal(reason).map(|error| error.to_string());
        let made = "FATAL:  could not create symbolic link \"pg_tblspc/16390\": Permission denied";
        assert!(refused(made).unwrap().contains("makes a tablespace"));
        let dropped =
            "PANIC:  could not create missing directory \"pg_tblspc/16390\": Permission denied";
        assert!(refused(dropped).unwrap().contains("was dropped while"));
        assert_eq!(refused("FATAL:  could not open file \"base/5/1259\""), None);
    }

    #[test]
    fn postgresqls_own_end_is_told_in_words() {
        let fatal = "FATAL:  recovery ended before configured recovery target was reached";
        let log = format!(
            "LOG:  last completed transaction was at log time 2026-11-21 09:41:07+00\n{fatal}\n"
        );
        let message = |reason: &str, until: Until| {
            target_not_reached(reason, &log, &until).map(|e| e.to_string())
        };
        let late = message(fatal, Until::Time(Timestamp::UNIX_EPOCH)).unwrap();
        assert!(late.contains("2026-11-21 09:41:07+00"), "{late}");
        let name = message(fatal, Until::Name("x".to_owned())).unwrap();
        assert!(name.starts_with("the restore point x is not in"), "{name}");
        let early = "FATAL:  requested recovery stop point is before consistent recovery point";
        assert!(message(early, Until::Time(Timestamp::UNIX_EPOCH)).is_some());
        assert_eq!(
            message("PANIC:  bad page", Until::Time(Timestamp::UNIX_EPOCH)),
            None
        );
    }
}
