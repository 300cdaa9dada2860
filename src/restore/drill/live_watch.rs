//! The live server has priority over restore tests: what keeps a test from beginning, and what ends one that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use procfs::{Current, Meminfo};
use tokio::time::timeout;

use crate::config::{Postgres, RestoreTest};
use crate::process::{self, LOW_PRIORITY_MEMORY as MEMORY};
use crate::restore::plan::{LiveServer, read_live_server};
use crate::restore::scratch::free_bytes;
use crate::restore::{Conclusion, RestoreError, conclusion_of};

/// How often a running test checks the live server.
const INTERVAL: Duration = Duration::from_secs(2);

/// A server whose disk is stuck may not answer at all; its volumes are checked all the same.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whether a test may begin beside the live server.
///
/// # Errors
/// [`RestoreError::LiveServerFirst`] with the reason why not.
pub(crate) fn may_begin(
    node: (&Postgres, &RestoreTest),
    live: Option<&LiveServer>,
) -> Result<(), RestoreError> {
    let available = Meminfo::current()
        .ok()
        .and_then(|memory| memory.mem_available);
    let reason = judge_memory(available)
        .or_else(|| live.and_then(|live| judge_work(&live.heavy)))
        .or_else(|| judge_live(node, live));
    match reason {
        Some(reason) => Err(RestoreError::LiveServerFirst(reason)),
        None => Ok(()),
    }
}

/// Runs `test` for as long as the live server of `node` can do without what it takes.
///
/// # Errors
/// As `test`; [`RestoreError::LiveServerFirst`] where the live server needed it, [`RestoreError::NoMemory`] where the kernel
/// ended a part of it.
pub(crate) async fn beside(
    node: (&Postgres, &RestoreTest),
    test: impl Future<Output = Result<(), RestoreError>>,
) -> Result<(), RestoreError> {
    let killed = process::low_priority_kills();
    let outcome = tokio::select! {
        outcome = test => outcome,
        error = watch(node) => Err(error),
    };
    let judged = matches!(&outcome, Err(error) if conclusion_of(error) != Conclusion::NotRun);
    match process::low_priority_limit() {
        Some(limit) if !judged && process::low_priority_kills() > killed => {
            Err(RestoreError::NoMemory {
                limit: ByteSize(limit),
            })
        }
        _ => outcome,
    }
}

/// Watches the live server of `node` beside a running test; ends with the error that ends the test.
async fn watch(node: (&Postgres, &RestoreTest)) -> RestoreError {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // One that does not answer is the test's doing in the worst case only, and its end is no help then.
        let live = timeout(ANSWER_LIMIT, read_live_server(node.0)).await;
        let live = live.ok().and_then(Result::ok);
        if let Some(reason) = judge_live(node, live.as_ref()) {
            return RestoreError::LiveServerFirst(reason);
        }
    }
}

fn judge_live(
    (postgres, settings): (&Postgres, &RestoreTest),
    live: Option<&LiveServer>,
) -> Option<String> {
    let behind = live
        .filter(|live| live.server.in_recovery)
        .and_then(|live| {
            let server = &live.server;
            Some(server.wal_end?.0.saturating_sub(server.position?.0))
        });
    let data = &postgres.data_directory;
    judge_lag(behind, u64::from(settings.max_lag_mib) << 20).or_else(|| judge_volumes(data))
}

/// Why the volumes of the server in `data`, that of its WAL among them, have no room for more.
pub(crate) fn judge_volumes(data: &Path) -> Option<String> {
    judge_volume(data).or_else(|| judge_volume(&data.join("pg_wal")))
}

fn judge_memory(available: Option<u64>) -> Option<String> {
    let available = available.filter(|available| *available < MEMORY)?;
    Some(format!(
        "{} of memory are available, a restore test may take {}",
        ByteSize(available),
        ByteSize(MEMORY)
    ))
}

fn judge_work(heavy: &[String]) -> Option<String> {
    let first = heavy.first()?;
    Some(format!("{first} is running on the live server"))
}

fn judge_lag(behind: Option<u64>, most: u64) -> Option<String> {
    let behind = behind.filter(|behind| *behind > most)?;
    Some(format!(
        "the live standby has {} of WAL to replay, more than {} (restore_test.max_lag_mib)",
        ByteSize(behind),
        ByteSize(most)
    ))
}

/// A twentieth of the live server's volume is its own.
fn judge_volume(path: &Path) -> Option<String> {
    // A link to a volume of its own is followed.
    let path: PathBuf = path.canonicalize().ok()?;
    let size = rustix::fs::statvfs(&path).ok()?;
    let size = size.f_blocks * size.f_frsize;
    let free = free_bytes(&path).ok()?;
    (free < size / 20).then(|| {
        format!(
            "{} has {} free of {}: a twentieth is left to the live server",
            path.display(),
            ByteSize(free),
            ByteSize(size)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_its_limit_keeps_nothing_from_running() {
        assert_eq!(judge_memory(None), None);
        assert_eq!(judge_memory(Some(MEMORY)), None);
        assert!(judge_memory(Some(MEMORY - 1)).unwrap().contains("memory"));
        assert_eq!(judge_work(&[]), None);
        assert_eq!(
            judge_work(&["pg_basebackup".to_owned()]).unwrap(),
            "pg_basebackup is running on the live server"
        );
        assert_eq!(judge_lag(None, 0), None);
        assert_eq!(judge_lag(Some(1 << 30), 1 << 30), None);
        assert!(
            judge_lag(Some((1 << 30) + 1), 1 << 30)
                .unwrap()
                .contains("1.0 GiB")
        );
    }
}
