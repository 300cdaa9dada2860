//! Whether the program's daemon gets on: a slow link is no reason to kill it, one that stands still is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procfs::ProcResult;
use procfs::process::{FDTarget, Process};

/// What moves while a file is read and sent: how much was read, and its connections with their queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ProgressMark {
    read: u64,
    connections: Vec<(u64, u32, u32)>,
}

/// The last change that was seen, shared by all uploads of one daemon.
#[derive(Debug, Clone)]
pub(super) struct UploadProgress {
    process: Option<i32>,
    last: Arc<Mutex<(ProgressMark, Instant)>>,
}

impl UploadProgress {
    pub(super) fn of(process: Option<i32>) -> Self {
        Self {
            process,
            last: Arc::new(Mutex::new((ProgressMark::default(), Instant::now()))),
        }
    }

    /// Looks, and tells since when nothing moved; what cannot be seen does not move.
    pub(super) fn stands_still_for(&self) -> Duration {
        let mark = self.process.map(read_progress).and_then(ProcResult::ok);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mark) = mark.filter(|mark| *mark != last.0) {
            *last = (mark, Instant::now());
        }
        last.1.elapsed()
    }
}

/// The resident memory of a process, in bytes; `None` where it cannot be seen.
pub(super) fn memory(process: i32) -> Option<u64> {
    let pages = Process::new(process)
        .and_then(|it| it.statm())
        .ok()?
        .resident;
    Some(pages * procfs::page_size())
}

fn read_progress(process: i32) -> ProcResult<ProgressMark> {
    let process = Process::new(process)?;
    let sockets: Vec<u64> = process
        .fd()?
        .flatten()
        .filter_map(|open| match open.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let all = process.tcp()?.into_iter().chain(process.tcp6()?);
    let mut connections: Vec<_> = all
        .filter(|connection| sockets.contains(&connection.inode))
        .map(|connection| (connection.inode, connection.rx_queue, connection.tx_queue))
        .collect();
    connections.sort_unstable();
    Ok(ProgressMark {
        // A program that answers checks reads a few bytes each time: that is no progress.
        read: process.io()?.rchar >> 16,
        connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_that_takes_bytes_is_seen_and_one_that_does_not_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sending = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_silent, _) = listener.accept().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        // Other tests of this process read files: only the connection counts here.
        let queued = || {
            let inode = {
                use std::os::fd::AsRawFd;
                rustix::fs::fstat(&sending).map(|s| (s.st_ino, sending.as_raw_fd()))
            };
            let connections = read_progress(own).unwrap().connections;
            connections
                .into_iter()
                .find(|c| inode.is_ok_and(|(inode, _)| c.0 == inode))
        };
        let before = queued().unwrap();
        assert_eq!(queued(), Some(before));
        sending.set_nonblocking(true).unwrap();
        // The other side reads nothing: what is not taken stays in the queue.
        while sending.write(&[0; 1 << 16]).is_ok() {}
        let after = read_progress(own).unwrap().connections;
        assert!(
            after.iter().any(|c| c.0 == before.0 && c.2 > before.2),
            "{after:?}"
        );
    }

    #[test]
    fn the_memory_of_a_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory(own).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(memory(-1), None);
    }

    #[test]
    fn what_cannot_be_seen_stands_still() {
        let progress = UploadProgress::of(None);
        std::thread::sleep(Duration::from_millis(5));
        assert!(progress.stands_still_for() >= Duration::from_millis(5));
    }
}
