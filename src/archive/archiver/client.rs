//! `wal-push`'s way to the daemon: no runtime, one check and one request.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{CHECK, ERROR, HEADER, OK, PUSH_FILE, frame, push_file};
use super::socket;
use crate::archive::role::is_stopping;

/// The daemon says within this time whether it serves.
const CHECKED: Duration = Duration::from_secs(1);
/// Where nothing is heard of a push for this long, the daemon is checked again. It may be busy with the file: it has as
/// long again to answer.
const HEARD: Duration = Duration::from_secs(5);

/// What the daemon made of a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::archive) enum HandOver {
    Stored,
    /// It does not serve, or could not store it, and nothing of it works at the file now; or it does not answer at all.
    Refused,
    /// It took the file and was not heard of again: it may still work at it.
    Lost,
}

/// Has the daemon with this state directory store the file at `path`; it waits as long as the daemon is well.
pub(in crate::archive) fn hand_over(state_directory: &Path, path: &Path, name: &str) -> HandOver {
    let socket = socket::path(state_directory);
    // The daemon looks whether this is its server's file of that name: another server has one that is called so, too.
    let Ok(found) = std::fs::metadata(path) else {
        return HandOver::Refused;
    };
    if !is_well(&socket, CHECKED) {
        return HandOver::Refused;
    }
    // PostgreSQL runs archive_command in the data directory.
    let stopping = || std::env::current_dir().is_ok_and(|here| is_stopping(&here));
    let body = push_file(name, (found.dev(), found.ino()));
    match push(&socket, &body, stopping) {
        Ok(OK) => HandOver::Stored,
        Ok(ERROR) => HandOver::Refused,
        _ => HandOver::Lost,
    }
}

fn is_well(socket: &Path, limit: Duration) -> bool {
    send_request(socket, CHECK, "", limit)
        .and_then(|mut stream| read(&mut stream))
        .ok()
        == Some(OK)
}

fn push(socket: &Path, body: &str, stopping: impl Fn() -> bool) -> io::Result<u8> {
    let mut stream = send_request(socket, PUSH_FILE, body, HEARD)?;
    loop {
        match read(&mut stream) {
            // The daemon ends an upload that does not get on; one that is itself stopped does not answer here either.
            // An S3 that hangs must not hold up a shutdown: what is not stored now is archived after the next start.
            Err(error) if is_timeout(&error) && !stopping() && is_well(socket, HEARD) => {}
            answer => return answer,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Sends a request; each byte of the answer may take as long as `limit`.
fn send_request(socket: &Path, kind: u8, body: &str, limit: Duration) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(CHECKED))?;
    stream.write_all(&frame(kind, body))?;
    Ok(stream)
}

fn read(stream: &mut UnixStream) -> io::Result<u8> {
    let mut answer = [0; HEADER];
    match stream.read(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}
