//! What `wal-push` and `wal-fetch` share: they run before clap, tracing and any runtime, and answer to PostgreSQL.

use std::future::Future;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use super::WalError;
use crate::config::{self, Config, Sources};
use crate::log;
use crate::repository::{RepositoryHandle, is_whole};
use crate::storage::Object;

/// The configuration, and its repository. A wrong value that archiving does not need stops no archiving.
pub(in crate::archive) fn configured(
    file: Option<PathBuf>,
) -> Result<(Config, RepositoryHandle), WalError> {
    let config = config::load_to_serve(&Sources::from_process(file))?.config;
    let repository = RepositoryHandle::new(config.repository_settings());
    Ok((config, repository))
}

/// Runs `work` on a runtime of this thread, made only now; at `deadline` it is dropped, which kills its children.
pub(in crate::archive) fn block_on<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, WalError>>,
) -> Result<T, WalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(WalError::Runtime)?;
    let outcome = runtime.block_on(async { tokio::time::timeout(deadline, work).await });
    // A name that is still being looked up must not hold the exit back.
    runtime.shutdown_background();
    outcome.unwrap_or(Err(WalError::TooSlow { after: deadline }))
}

/// Refuses a name under which only cut objects are stored: the programs do not replace them.
pub(in crate::archive) fn refuse_cut(
    stored: &[Object],
    name: &str,
    bytes: u64,
) -> Result<(), WalError> {
    if stored.iter().any(|object| is_whole(object, bytes)) {
        return Ok(());
    }
    let cut = stored.first();
    cut.map_or(Ok(()), |object| {
        Err(WalError::Cut {
            name: name.to_owned(),
            key: object.key.clone(),
            bytes: object.size,
        })
    })
}

/// Prints `error`, its causes and its hint to PostgreSQL's log, and puts it into `xdb-archive.log`.
///
/// What succeeds is in neither: PostgreSQL calls thousands of times a day, and the bucket tells what is stored.
pub(in crate::archive) fn complain(verb: &'static str, file: Option<PathBuf>, error: &WalError) {
    let hints = error
        .hint()
        .map(|hint| log::hints(&hint))
        .unwrap_or_default();
    let message = log::chain(error);
    // A panic on a closed standard error would exit with a code of its own.
    log::to_stderr(&format!("xdb {verb}: {message}\n{hints}"));
    // The exit code is what PostgreSQL acts on: nothing about a log file may change it.
    let _ = catch_unwind(|| {
        // Where the configuration cannot be read, this node's name is unknown.
        if let Ok(loaded) = config::load_to_serve(&Sources::from_process(file)) {
            let hostname = &loaded.config.node.hostname;
            log::failure("archive", hostname, format!("{verb}: {message}"));
        }
    });
}

/// Prints to PostgreSQL's log why the file `name` is let go though the bucket does not hold it.
pub(in crate::archive) fn note(verb: &'static str, name: &str, why: &str) {
    log::to_stderr(&format!(
        "xdb {verb}: {name} is not stored and no longer needed: {why}\n"
    ));
}
