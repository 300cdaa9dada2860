//! `wal-push`'s way to the daemon: no runtime, one check and one request.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::protocol::{CHECK, ERROR, HEADER, OK, PUSH, frame};
use crate::config::Config;

/// The daemon says within this time whether it serves.
const CHECKED: Duration = Duration::from_secs(1);

/// What the daemon made of a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::archive) enum Handed {
    Stored,
    /// It does not serve, or could not store it; nothing of it works at the file now.
    Refused,
    /// It took the file and was not heard of again: it may still work at it.
    Lost,
}

/// Has the daemon store the file at `path`, until `deadline`.
pub(in crate::archive) fn hand_over(
    config: &Config,
    path: &Path,
    name: &str,
    deadline: Instant,
) -> Handed {
    let Some(socket) = &config.archive.socket else {
        return Handed::Refused;
    };
    // The daemon knows names only: another server's file of the same name is not its.
    let served = config.postgres.data_directory.join("pg_wal").join(name);
    if !same_file(path, &served) || ask(socket, CHECK, "", CHECKED).ok() != Some(OK) {
        return Handed::Refused;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    match ask(socket, PUSH, name, left.max(CHECKED)) {
        Ok(OK) => Handed::Stored,
        Ok(ERROR) => Handed::Refused,
        _ => Handed::Lost,
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

fn ask(socket: &Path, kind: u8, body: &str, limit: Duration) -> io::Result<u8> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&frame(kind, body))?;
    let mut answer = [0; HEADER];
    match stream.read(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}
