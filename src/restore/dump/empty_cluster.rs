//! An empty scratch cluster for a dump: made by `initdb`, and reachable by xdb only.
//!
//! It reaches no other server and starts no background workers, so that nothing of a dump runs in it.
//!
//! Databases bring their own encoding and locale; checksums and durability would prove nothing of a dump.

use std::path::Path;
use std::time::{Duration, Instant};

use super::DumpSetup;
use super::extensions::Extensions;
use crate::config::Postgres;
use crate::process;
use crate::restore::RestoreError;
use crate::restore::recover::{ScratchServer, StartFailure, quoted};
use crate::restore::scratch::{Scratch, free_bytes};

/// In place of what initdb wrote. No statement is logged, and no row in a detail: the globals set password hashes.
const SETTINGS: &str = "\
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
log_destination = stderr
log_line_prefix = '%m '
log_timezone = UTC
log_statement = none
log_min_error_statement = panic
log_error_verbosity = terse
lc_messages = C
cluster_name = 'xdb dump test'
restart_after_crash = off
max_logical_replication_workers = 0
max_worker_processes = 0
event_triggers = off
autovacuum = off
jit = off
huge_pages = off
shared_buffers = 128MB
dynamic_shared_memory_type = mmap
wal_level = minimal
max_wal_senders = 0
fsync = off
full_page_writes = off
synchronous_commit = off
";

/// Makes a cluster of `superuser` in `scratch`, which is empty, and starts its server with the settings of `extensions`.
/// Returns those that this node lacks, too.
///
/// # Errors
/// When the programs cannot do it, or `deadline` passes.
pub(crate) async fn start_empty_cluster(
    scratch: &Scratch,
    setup: &DumpSetup,
    superuser: &str,
    extensions: Extensions,
    deadline: Instant,
) -> Result<(ScratchServer, Vec<String>), RestoreError> {
    let left = deadline.saturating_duration_since(Instant::now());
    init(
        scratch,
        &setup.dumps.postgres.bin_directory,
        superuser,
        left,
    )
    .await?;
    let (mut extensions, mut left_out) = (extensions, Vec::new());
    loop {
        configure(scratch, &extensions)?;
        let settings = Postgres {
            user: superuser.to_owned(),
            ..setup.dumps.postgres.clone()
        };
        let mut server = ScratchServer::start_cut_off(scratch, &settings)?;
        // A library may block the start for ever.
        let until = deadline.min(Instant::now() + STARTS);
        let reason = match server.wait_until_open(&scratch.log(), until).await {
            Ok(()) => return Ok((server, left_out)),
            Err(StartFailure::Stopped(reason)) if disk_is_full(scratch, &reason) => {
                return Err(RestoreError::DiskFull { doing: STARTED });
            }
            Err(StartFailure::TooSlow) if until == deadline => {
                return Err(RestoreError::Deadline {
                    after: setup.settings.timeout,
                });
            }
            Err(
                StartFailure::Stopped(reason)
                | StartFailure::Refused(reason)
                | StartFailure::Damaged(reason),
            ) => reason,
            Err(StartFailure::Killed(status)) => format!("it was killed, {status}"),
            Err(StartFailure::TooSlow) => format!("it did not start within {} s", STARTS.as_secs()),
        };
        // It may still hold the data directory.
        server.shut_down(SHUTDOWN).await;
        let Some((fewer, message)) = extensions.without(&reason) else {
            return Err(RestoreError::Server(reason));
        };
        left_out.push(message);
        extensions = fewer;
    }
}

fn configure(scratch: &Scratch, extensions: &Extensions) -> Result<(), RestoreError> {
    let path = scratch.data().join("postgresql.conf");
    let sockets = quoted(&scratch.socket_directory().to_string_lossy());
    let text = format!(
        "unix_socket_directories = {sockets}\n{SETTINGS}{}",
        extensions.to_configuration()
    );
    std::fs::write(&path, text).map_err(|source| RestoreError::File {
        operation: "write",
        path,
        source,
    })
}

/// For the start of an empty cluster, and for its end.
const STARTS: Duration = Duration::from_secs(60);
const SHUTDOWN: Duration = Duration::from_secs(5);

const STARTED: &str = "an empty cluster was made";

async fn init(
    scratch: &Scratch,
    bin_directory: &Path,
    superuser: &str,
    deadline: Duration,
) -> Result<(), RestoreError> {
    let mut command = process::command(bin_directory.join("initdb"));
    command
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--no-sync", "--no-instructions"])
        .arg(format!("--username={superuser}"))
        .arg("--pgdata")
        .arg(scratch.data())
        .current_dir(scratch.path());
    let finished = process::run(command, deadline).await?;
    if finished.status.success() {
        return Ok(());
    }
    if disk_is_full(scratch, &finished.stderr) {
        return Err(RestoreError::DiskFull { doing: STARTED });
    }
    let words = finished.last_words();
    Err(RestoreError::Server(format!("initdb failed: {words}")))
}

/// Whether `words`, or the disk of `scratch` itself, say that there is no room.
pub(super) fn disk_is_full(scratch: &Scratch, words: &str) -> bool {
    const NOTHING_LEFT: u64 = 1 << 20;
    words.contains("No space left on device")
        || free_bytes(scratch.path()).is_ok_and(|free| free < NOTHING_LEFT)
}
