//! Judges whether WAL gets away. Pure.

use jiff::Timestamp;

use super::Limits;
use crate::model::{Verdict, age};
use crate::postgres::Archiver;

/// What the server says of its archiving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archiving {
    pub in_recovery: bool,
    /// `archive_mode`: `off`, `on` or `always`.
    pub mode: String,
    /// `archive_command`; empty where it is not set.
    pub command: String,
    /// `archive_library`; empty where it is not set.
    pub library: String,
    pub archiver: Archiver,
    /// `.ready` files: segments, histories and backup labels that wait.
    pub pending: u32,
}

/// Judges by the newest attempt and by what waits.
///
/// The age of the last success says nothing on a quiet database, so it only explains.
pub(super) fn judge(archiving: &Archiving, limits: &Limits, now: Timestamp) -> Verdict {
    let Archiving {
        archiver, pending, ..
    } = archiving;
    let settings = judge_settings(archiving);
    if matches!(settings, Verdict::Critical(_)) {
        return settings;
    }
    let last = archiver.last_archived_at.map_or_else(
        || "nothing was archived since the statistics began".to_owned(),
        |at| format!("last success {} s ago", age(at, now).as_secs()),
    );
    if archiver.failing() {
        let file = archiver.last_failed.as_deref().unwrap_or("a file");
        return Verdict::Critical(format!(
            "archive_command fails on {file}; {pending} files wait; {last}"
        ));
    }
    let waiting = limits.judge(f64::from(*pending), |limit| {
        format!("{pending} files wait to be archived (limit {limit}); {last}")
    });
    match waiting {
        Verdict::Ok => settings,
        waiting => waiting,
    }
}

/// Judges what the settings make of this server in its role: what it loses, at once or when it is promoted.
fn judge_settings(archiving: &Archiving) -> Verdict {
    let Archiving {
        in_recovery,
        mode,
        command,
        library,
        ..
    } = archiving;
    let critical = |reason: &str| Verdict::Critical(reason.to_owned());
    if mode == "off" {
        return critical("archive_mode is off: no WAL leaves this node");
    }
    if *in_recovery && mode != "always" {
        return critical(
            "archive_mode is on: a standby then marks WAL as archived that the primary has not stored, and a failover loses it; set archive_mode = always",
        );
    }
    if library.is_empty() && stores_nothing(command) {
        let command = command.trim();
        return Verdict::Critical(format!(
            "archive_command is {command:?}: it stores nothing, and PostgreSQL takes all WAL for archived"
        ));
    }
    if library.is_empty() && hides_failure(command) {
        return Verdict::Critical(format!(
            "archive_command is {command:?}: its exit status is not that of wal-push, so PostgreSQL takes WAL for archived that is not stored"
        ));
    }
    if !library.is_empty() {
        return match in_recovery {
            true => Verdict::Warning(format!(
                "archive_library is {library}: whether it keeps what the primary has not stored is not known; xdb is run by archive_command"
            )),
            false => Verdict::Ok,
        };
    }
    match (command.trim(), in_recovery) {
        ("", false) => critical("archive_command is empty: no WAL leaves this node"),
        ("", true) => Verdict::Warning(
            "archive_command is empty: WAL stays in pg_wal, and after a promotion none is archived"
                .to_owned(),
        ),
        (command, true) if !runs_xdb(command) => Verdict::Warning(format!(
            "archive_command is {command:?} and not xdb wal-push: whether it keeps what the primary has not stored is not known"
        )),
        _ => Verdict::Ok,
    }
}

/// A command that succeeds and does nothing, as people set it to quiet an archiver.
fn stores_nothing(command: &str) -> bool {
    let command = command.trim().trim_end_matches(';').trim_end();
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let alone = !command.contains(['&', '|', ';', '\n', '`', '$']);
    alone && (matches!(name, "true" | ":") || command == "exit 0" || command == "/bin/exit 0")
}

/// Whether something after `wal-push` ends the command, as in `… || true`, `…; exit 0` or `… | logger`.
fn hides_failure(command: &str) -> bool {
    let Some((_, rest)) = command.split_once("wal-push") else {
        return false;
    };
    if may_pass_failure_on(command) {
        return false;
    }
    let rest = without_quoted(rest);
    let rest = rest.trim_end().trim_end_matches([';', '\n']);
    // `2>&1` and `&>` redirect; after `&&`, a failure stays the exit status.
    let plain = [">&", "&>", "&&"]
        .iter()
        .fold(rest.to_owned(), |rest, words| rest.replace(words, " "));
    let ends_at_failure = command.contains("set -e") || command.contains("sh -e");
    plain.contains(['|', '&']) || !ends_at_failure && plain.contains([';', '\n'])
}

/// Whether a failure may become the exit status after all. How is not judged: a shell has too many ways to do that.
fn may_pass_failure_on(command: &str) -> bool {
    let words = ["false", "$?", "pipefail", "PIPESTATUS"];
    let mut exits = command.split("exit").skip(1);
    words.iter().any(|words| command.contains(words))
        || exits.any(|status| !status.trim_start().starts_with('0'))
}

fn without_quoted(text: &str) -> String {
    let (mut plain, mut quote) = (String::new(), None);
    for character in text.chars() {
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None => plain.push(character),
        }
    }
    plain
}

fn runs_xdb(command: &str) -> bool {
    command.contains("xdb") && command.contains("wal-push")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_attempt_and_what_waits_decide() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(1_000);
        let limits = Limits {
            warning: Some(5.0),
            critical: Some(50.0),
            ..Limits::default()
        };
        let archiving = |done, failed: Option<i64>, pending| Archiving {
            archiver: Archiver {
                last_archived_at: Option::map(done, at),
                last_failed: failed.map(|_| "000000010000000000000002".to_owned()),
                last_failed_at: failed.map(at),
                ..Archiver::default()
            },
            pending,
            ..server(false, "on", "xdb wal-push %p", "")
        };
        for (what, archiving, word) in [
            ("quiet for long", archiving(Some(1), None, 0), "ok"),
            ("nothing yet", archiving(None, None, 0), "ok"),
            ("failed long ago", archiving(Some(900), Some(800), 0), "ok"),
            ("failing", archiving(Some(900), Some(990), 1), "critical"),
            ("never succeeded", archiving(None, Some(990), 1), "critical"),
            ("behind", archiving(Some(999), None, 5), "warning"),
            ("far behind", archiving(Some(999), None, 50), "critical"),
        ] {
            let verdict = judge(&archiving, &limits, now);
            assert_eq!(verdict.word(), word, "{what}: {verdict:?}");
        }
        let failing = judge(&archiving(Some(900), Some(990), 3), &limits, now);
        assert_eq!(
            failing.reason(),
            Some(
                "archive_command fails on 000000010000000000000002; 3 files wait; last success 100 s ago"
            )
        );
    }

    fn server(in_recovery: bool, mode: &str, command: &str, library: &str) -> Archiving {
        Archiving {
            in_recovery,
            mode: mode.to_owned(),
            command: command.to_owned(),
            library: library.to_owned(),
            archiver: Archiver::default(),
            pending: 0,
        }
    }

    #[test]
    fn settings_that_lose_wal_now_or_at_a_promotion_are_told() {
        let limits = Limits {
            warning: Some(5.0),
            critical: Some(50.0),
            ..Limits::default()
        };
        let xdb = "xdb wal-push \"%p\"";
        for (in_recovery, mode, command, library, word) in [
            (false, "on", xdb, "", "ok"),
            (false, "always", xdb, "", "ok"),
            (true, "always", xdb, "", "ok"),
            (
                true,
                "always",
                "/usr/local/bin/xdb --config /x wal-push %p",
                "",
                "ok",
            ),
            (true, "on", xdb, "", "critical"),
            (true, "off", xdb, "", "critical"),
            (false, "off", xdb, "", "critical"),
            (false, "on", "", "", "critical"),
            (true, "always", "", "", "warning"),
            (true, "always", "  ", "", "warning"),
            (true, "always", "wal-g wal-push %p", "", "warning"),
            (false, "on", "wal-g wal-push %p", "", "ok"),
            (true, "always", "/bin/true", "", "critical"),
            (false, "on", "/bin/true", "", "critical"),
            (false, "on", ": %p", "", "critical"),
            (false, "on", "true && xdb wal-push %p", "", "ok"),
            (false, "on", "xdb wal-push \"%p\" || true", "", "critical"),
            (true, "always", "xdb wal-push %p || :", "", "critical"),
            (true, "always", "", "basic_archive", "warning"),
            (false, "on", "", "basic_archive", "ok"),
        ] {
            let archiving = server(in_recovery, mode, command, library);
            let verdict = judge(&archiving, &limits, Timestamp::UNIX_EPOCH);
            let what = format!("{in_recovery} {mode} {command:?} {library:?}: {verdict:?}");
            assert_eq!(verdict.word(), word, "{what}");
        }
        // What waits is the more urgent, unless all of it is lost anyway.
        let waiting = |command: &str| Archiving {
            pending: 50,
            ..server(true, "always", command, "")
        };
        let verdict = judge(&waiting("cp %p /mnt"), &limits, Timestamp::UNIX_EPOCH);
        assert!(
            verdict
                .reason()
                .unwrap_or_default()
                .contains("50 files wait"),
            "{verdict:?}"
        );
        let verdict = judge(&waiting("/bin/true"), &limits, Timestamp::UNIX_EPOCH);
        assert!(
            verdict
                .reason()
                .unwrap_or_default()
                .contains("stores nothing"),
            "{verdict:?}"
        );
    }

    #[test]
    fn what_ends_the_command_after_wal_push_may_hide_its_failure() {
        for (command, hides) in [
            ("xdb wal-push %p", false),
            ("xdb wal-push %p || true", true),
            ("xdb wal-push %p; exit 0", true),
            ("xdb wal-push %p; true", true),
            ("xdb wal-push %p 2>&1 | logger -t wal", true),
            ("xdb wal-push %p &", true),
            ("wal-g wal-push %p || exit 0", true),
            ("sh -c 'xdb wal-push %p || true'", true),
            ("xdb wal-push \"%p\" >>/tmp/x 2>&1;", false),
            ("xdb wal-push '%p' && touch /tmp/done", false),
            ("xdb wal-push %p || exit 1", false),
            ("xdb wal-push %p || exit 75", false),
            ("xdb wal-push %p || exit", false),
            ("xdb wal-push %p || { date >>/tmp/f; exit $?; }", false),
            ("set -o pipefail; xdb wal-push %p | logger", false),
            ("bash -ec 'xdb wal-push %p; touch /tmp/done'", false),
            ("set -e; xdb wal-push %p || true", true),
            ("cd /tmp; xdb wal-push \"%p; x\"", false),
        ] {
            assert_eq!(hides_failure(command), hides, "{command}");
        }
    }
}
