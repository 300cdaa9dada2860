//! Children: start one in its own process group, read what it says, stop all of it at a deadline or when xdb goes.
//!
//! Every child dies with xdb, even after `kill -9` (`PR_SET_PDEATHSIG`). Never a shell, never a secret in an argument.

mod capped;
mod finished;
mod group;
mod lock;
mod low_priority;
mod no_network;
mod on_a_thread;
mod open_files;
mod running;
mod search;
mod sweep;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use capped::{LOW_PRIORITY_MEMORY, low_priority_kills, low_priority_limit};
pub(crate) use finished::Finished;
pub(crate) use group::ProcessGroup;
pub(crate) use lock::{MarkedLock, NodeLock};
pub(crate) use low_priority::low_priority;
pub(crate) use no_network::{Reach, can_cut_off, cut_off};
pub(crate) use on_a_thread::on_a_thread;
pub(crate) use open_files::raise_open_files;
pub(crate) use running::running;
pub(crate) use search::{find, find_with};
pub(crate) use sweep::kill_all_under;

/// Standard output beyond this is dropped; what xdb reads there is far shorter.
const STDOUT_LIMIT: u64 = 4 << 20;
/// Lines of standard error kept for the reason of a failure, and how many of them are the first: a program's first error
/// is often the cause of all the others.
const STDERR_LINES: usize = 40;
const STDERR_FIRST: usize = 10;
/// How long output may follow after the child itself ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("there is no program {}", program.display())]
    Missing { program: PathBuf },
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot wait for {}", program.display())]
    Wait {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} was stopped: it was not done after {} s", program.display(), after.as_secs())]
    Deadline { program: PathBuf, after: Duration },
}

/// Prepares `program` with an empty environment but for `PATH`, `HOME`, `LANG` and its time zone.
///
/// The first two are there also where this process has none.
///
/// Messages are parsed, so their language is fixed.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        // What they say ends in logs.
        .env("NO_COLOR", "1")
        .env("PATH", search::path())
        .env("HOME", search::home())
        .stdin(Stdio::null());
    if let Some(zone) = std::env::var_os("TZ") {
        command.env("TZ", zone);
    }
    command
}

/// Runs `command` to its end, both pipes read at once; at `deadline` its whole group is stopped.
///
/// # Errors
/// When the program is not there, cannot be started, or is not done in time. A bad exit status is no error here.
pub(crate) async fn run(command: Command, deadline: Duration) -> Result<Finished, ProcessError> {
    let mut command = command;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::start(&mut command, Signal::KILL)?;
    let stdout = tokio::spawn(first_bytes(group.stdout()));
    let stderr = tokio::spawn(telling_lines(group.stderr()));
    let status = group.wait(deadline).await?;
    // What is left of the group holds the pipes, and its work has no reader any more.
    group.kill();
    Ok(Finished {
        status,
        stdout: drained(stdout).await,
        stderr: drained(stderr).await,
    })
}

/// Runs `command` to its end, its standard output handed to `consume` while its standard error is read.
///
/// What `consume` made counts only when the exit status, which is no error here, is good: output may be cut anywhere.
/// The child's group is killed when `consume` fails, and when this is dropped; the deadline is the caller's.
///
/// # Errors
/// As `consume`, or when the program is not there or cannot be started.
pub(crate) async fn stream<T, E: From<ProcessError>>(
    command: Command,
    consume: impl AsyncFnOnce(ChildStdout) -> Result<T, E>,
) -> Result<(Finished, T), E> {
    let mut command = command;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::start(&mut command, Signal::KILL)?;
    let stdout = group.stdout().expect("standard output is piped");
    // Both pipes drain at once: either one left full would stall the child.
    let stderr = tokio::spawn(telling_lines(group.stderr()));
    let consumed = consume(stdout).await?;
    Ok((ended(group, stderr).await?, consumed))
}

/// Runs `command` to its end, its standard input written by `produce`, which closes it by dropping it.
///
/// The child may end before it has read all of it. Its group is killed when `produce` fails, and when this is dropped;
/// the deadline is the caller's.
///
/// # Errors
/// As `produce`, or when the program is not there or cannot be started.
pub(crate) async fn feed<T, E: From<ProcessError>>(
    command: Command,
    produce: impl AsyncFnOnce(ChildStdin) -> Result<T, E>,
) -> Result<(Finished, T), E> {
    feed_and_watch(command, produce, |_| {}).await
}

/// As [`feed`], where `watch` sees each line of standard error.
///
/// # Errors
/// As [`feed`].
pub(crate) async fn feed_and_watch<T, E: From<ProcessError>>(
    command: Command,
    produce: impl AsyncFnOnce(ChildStdin) -> Result<T, E>,
    watch: impl FnMut(&str),
) -> Result<(Finished, T), E> {
    let mut command = command;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut group = ProcessGroup::start(&mut command, Signal::KILL)?;
    let stdin = group.stdin().expect("standard input is piped");
    let stderr = group.stderr();
    let said = async { Ok::<_, E>(watched_lines(stderr, watch).await) };
    let (produced, stderr) = tokio::try_join!(produce(stdin), said)?;
    let status = group.wait(Duration::MAX).await?;
    group.kill();
    let finished = Finished {
        status,
        stdout: Vec::new(),
        stderr,
    };
    Ok((finished, produced))
}

/// The end of a child whose standard output went elsewhere.
async fn ended(
    mut group: ProcessGroup,
    stderr: JoinHandle<String>,
) -> Result<Finished, ProcessError> {
    let status = group.wait(Duration::MAX).await?;
    group.kill();
    Ok(Finished {
        status,
        stdout: Vec::new(),
        stderr: drained(stderr).await,
    })
}

/// As [`stream`], where what is said on either pipe counts.
///
/// # Errors
/// When the program is not there or cannot be started.
pub(crate) async fn stream_both<T>(
    command: Command,
    consume: impl AsyncFnOnce(ChildStdout, ChildStderr) -> T,
) -> Result<(ExitStatus, T), ProcessError> {
    let mut command = command;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::start(&mut command, Signal::KILL)?;
    let pipes = group.stdout().zip(group.stderr());
    let (stdout, stderr) = pipes.expect("both are piped");
    let consumed = consume(stdout, stderr).await;
    let status = group.wait(Duration::MAX).await?;
    group.kill();
    Ok((status, consumed))
}

/// Runs `command` to its end with xdb's own standard error, and lets what it started in the background go on.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_attached(
    command: Command,
    deadline: Duration,
) -> Result<ExitStatus, ProcessError> {
    let mut command = command;
    // Standard output belongs to xdb's own answer.
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut group = ProcessGroup::start(&mut command, Signal::KILL)?;
    let status = group.wait(deadline).await?;
    group.release();
    Ok(status)
}

async fn drained<T: Default>(pipe: JoinHandle<T>) -> T {
    let read = timeout(DRAIN, pipe).await.ok().and_then(Result::ok);
    read.unwrap_or_default()
}

async fn first_bytes(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return bytes };
    // A read error ends the output like its end does; the exit status judges.
    let _ = (&mut pipe).take(STDOUT_LIMIT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    bytes
}

async fn telling_lines(pipe: Option<impl AsyncRead + Unpin>) -> String {
    watched_lines(pipe, |_| {}).await
}

async fn watched_lines(
    pipe: Option<impl AsyncRead + Unpin>,
    mut watch: impl FnMut(&str),
) -> String {
    let mut kept: VecDeque<String> = VecDeque::new();
    let Some(pipe) = pipe else {
        return String::new();
    };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    // Bytes, not lines(): one byte that is not UTF-8 must not end the reading and stall the child.
    while reader
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|read| read > 0)
    {
        if kept.len() == STDERR_LINES {
            kept.remove(STDERR_FIRST);
        }
        let text = String::from_utf8_lossy(&line);
        watch(text.trim_end());
        kept.push_back(text.trim_end().to_owned());
        line.clear();
    }
    Vec::from(kept).join("\n")
}

/// PostgreSQL does not run as root, and no other user can remove what root creates.
pub(crate) fn runs_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_much_standard_error_the_first_and_the_last_lines_are_kept() {
        let all: String = (1..=100).map(|line| format!("line {line}\n")).collect();
        let kept = telling_lines(Some(all.as_bytes())).await;
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(lines.len(), STDERR_LINES);
        assert_eq!((lines[0], lines[9]), ("line 1", "line 10"));
        assert_eq!((lines[10], lines[39]), ("line 71", "line 100"));
    }
}
