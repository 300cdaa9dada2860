//! How a child ended, and why, from what it said last.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What a child that ended on its own left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// The first and the last lines of standard error.
    pub stderr: String,
}

impl Finished {
    /// Why it failed: the signal that killed it, else its last line that is no mere progress, else its exit status.
    pub(crate) fn last_words(&self) -> String {
        reason(self.status, &self.stderr)
    }
}

fn reason(status: ExitStatus, stderr: &str) -> String {
    let lines = || stderr.lines().rev().map(str::trim);
    let last = lines().find(|line| !line.is_empty());
    if let Some(killed) = killed_by(status) {
        // Its last line was written before, and says nothing of the signal.
        return last.map_or_else(
            || killed.clone(),
            |line| format!("{killed}; its last line was: {line}"),
        );
    }
    match lines().find(|line| !line.is_empty() && !is_progress(line)) {
        Some(line) => line.to_owned(),
        None => last.map_or_else(
            || status.to_string(),
            |line| format!("{status}; its last line was: {line}"),
        ),
    }
}

/// `killed by signal 9 (SIGKILL)`; a shell or a wrapper passes the signal on as an exit status above 128.
fn killed_by(status: ExitStatus) -> Option<String> {
    if let Some(signal) = status.signal() {
        return Some(format!("killed by signal {}", named(signal)));
    }
    let code = status.code()?;
    let signal = code
        .checked_sub(128)
        .filter(|signal| (1..=64).contains(signal))?;
    Some(format!(
        "exit status {code}: a process of its own was killed by signal {}",
        named(signal)
    ))
}

fn named(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return signal.to_string(),
    };
    let why = if signal == 9 {
        ", by a person or for want of memory"
    } else {
        ""
    };
    format!("{signal} ({name}{why})")
}

/// A line of a log's lower levels, as wal-g (`INFO: …`) and walrus (`2026-11-26T… INFO …`) write them.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let level = |word: &str| matches!(word.trim_end_matches(':'), "INFO" | "DEBUG" | "TRACE");
    match words.next() {
        Some(first) if level(first) => true,
        Some(first) if first.starts_with(|c: char| c.is_ascii_digit()) => {
            words.next().is_some_and(level)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_and_progress_is_no_reason() {
        let info = "INFO: 2026/11/21 07:47:17.438968 Starting part 1 ...";
        let walrus = "2026-11-21T07:47:17.438968Z  INFO backup_push: part 1";
        let error = "ERROR: 2026/11/21 07:47:18.438968 connection refused";
        let (exit, killed) = (|code: i32| code << 8, |signal: i32| signal);
        for (status, stderr, expected) in [
            (exit(1), error.to_owned(), error.to_owned()),
            (exit(1), format!("{error}\n{info}\n"), error.to_owned()),
            (
                exit(1),
                format!("{info}\n"),
                format!("exit status: 1; its last line was: {info}"),
            ),
            (
                exit(2),
                walrus.to_owned(),
                format!("exit status: 2; its last line was: {walrus}"),
            ),
            (exit(1), String::new(), "exit status: 1".to_owned()),
            (
                killed(9),
                format!("{error}\n{info}\n\n"),
                format!(
                    "killed by signal 9 (SIGKILL, by a person or for want of memory); its last line was: {info}"
                ),
            ),
            (
                killed(11),
                String::new(),
                "killed by signal 11 (SIGSEGV)".to_owned(),
            ),
            (killed(40), String::new(), "killed by signal 40".to_owned()),
            (
                exit(143),
                String::new(),
                "exit status 143: a process of its own was killed by signal 15 (SIGTERM)"
                    .to_owned(),
            ),
            (exit(255), String::new(), "exit status: 255".to_owned()),
        ] {
            assert_eq!(reason(ExitStatus::from_raw(status), &stderr), expected);
        }
    }
}
