//! The log of the scratch server, which is removed with its directory: the reason of its end, and its last lines.

use std::fs;
use std::path::Path;

use super::server_messages::without_values;

/// Logs the last lines of a server log that is removed with the scratch directory.
pub(crate) fn log_last_lines(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(TURNED_AWAY))
        .collect();
    for line in &lines[lines.len().saturating_sub(15)..] {
        tracing::warn!("scratch server: {}", without_values(line));
    }
}

/// The answer to xdb's own logins until the server opens.
const TURNED_AWAY: &str = "the database system is";

/// The reason in a server's log: its first FATAL or PANIC, or the signal that ended the recovery, and what `xdb wal-fetch` complained of last.
pub(crate) fn failure_reason(log: &str) -> String {
    let message = |line: &str, level: &str| {
        line.split_once(level)
            .map(|(_, text)| format!("{level}{text}"))
    };
    let level = |line: &str| {
        message(line, "PANIC:")
            .or_else(|| message(line, "FATAL:"))
            .filter(|_| !line.contains(TURNED_AWAY))
    };
    let fetch = log
        .lines()
        .rev()
        .find_map(|line| message(line, "xdb wal-fetch: "));
    let killed = |line: &str| {
        let signal = |line: &String| line.contains("startup process") && line.contains("by signal");
        message(line, "LOG:").filter(signal)
    };
    let fatal = log.lines().find_map(level);
    let fatal = fatal.or_else(|| log.lines().find_map(killed));
    match (fatal, fetch) {
        (Some(fatal), Some(fetch)) => format!("{fatal} ({fetch})"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => log
            .lines()
            .last()
            .unwrap_or("it left an empty log")
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_its_reason() {
        let log = "2026-11-21 07:47:11.648 UTC LOG:  starting\n\
                   2026-11-21 07:47:11.700 UTC FATAL:  the database system is starting up\n\
                   xdb wal-fetch: cannot list s3://b/k: S3 does not answer (connection refused)\n\
                   HINT: check s3.endpoint\n\
                   2026-11-21 07:47:12.000 UTC FATAL:  could not restore file \"000000010000000000000004\" from archive: command not executable\n\
                   2026-11-21 07:47:12.000 UTC LOG:  startup process (PID 9) exited with exit code 1\n";
        let reason = failure_reason(log);
        assert!(
            reason.starts_with("FATAL:  could not restore file"),
            "{reason}"
        );
        assert!(reason.contains("S3 does not answer"), "{reason}");
        let killed = "2026-11-21 07:47:12.000 UTC LOG:  startup process (PID 9) was terminated by signal 9: Killed\n\
                      2026-11-21 07:47:12.000 UTC LOG:  database system is shut down\n";
        assert!(failure_reason(killed).ends_with("signal 9: Killed"));
        assert_eq!(failure_reason(""), "it left an empty log");
    }
}
