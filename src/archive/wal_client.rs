//! What `wal-push` and `wal-fetch` share: they run before clap, tracing and any runtime, and answer to PostgreSQL.

use std::future::Future;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use super::{ArchiveError, Repository};
use crate::config::{self, Config, Sources};
use crate::log;
use crate::storage::{Bucket, Object};

/// The configuration and the repository. A wrong value that archiving does not need stops no archiving.
pub(super) fn configured(file: Option<PathBuf>) -> Result<(Config, Repository), ArchiveError> {
    let config = config::load_to_serve(&Sources::from_process(file))?.config;
    let repository = super::repository(&config)?;
    Ok((config, repository))
}

/// Runs `work` on a runtime of this thread, made only now; at `deadline` it is dropped, which kills its children.
pub(super) fn block_on<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(ArchiveError::Runtime)?;
    let outcome = runtime.block_on(async { tokio::time::timeout(deadline, work).await });
    // A name that is still being looked up must not hold the exit back.
    runtime.shutdown_background();
    outcome.unwrap_or(Err(ArchiveError::TooSlow { after: deadline }))
}

/// The objects that the archive holds for `name`, one a compression: asked of the bucket itself, not of a program.
pub async fn stored_as(
    bucket: &Bucket,
    repository: &Repository,
    name: &str,
) -> Result<Vec<Object>, ArchiveError> {
    let key = repository.key(&format!("wal_005/{name}"));
    let mut listed = bucket.list(&key).await?;
    // `…0003.lz4` is the segment, `…0003.00000028.backup.lz4` and `…0003.partial.lz4` are not.
    listed.retain(|object| object.key == key || is_compressed(&object.key, &key));
    Ok(listed)
}

/// The same, without objects that are too small to hold all `bytes` bytes of the file: an empty upload is not a copy.
pub(super) async fn whole_as(
    bucket: &Bucket,
    repository: &Repository,
    name: &str,
    bytes: u64,
) -> Result<Vec<Object>, ArchiveError> {
    let mut stored = stored_as(bucket, repository, name).await?;
    stored.retain(|object| is_whole(object, bytes));
    Ok(stored)
}

/// Whether `object` is large enough to hold a file of `bytes` bytes.
pub(super) fn is_whole(object: &Object, bytes: u64) -> bool {
    object.size >= super::catalog::least_stored(&object.key, bytes)
}

/// Refuses a name under which only cut objects are stored: the programs do not replace them.
pub(super) fn refuse_cut(stored: &[Object], name: &str, bytes: u64) -> Result<(), ArchiveError> {
    if stored.iter().any(|object| is_whole(object, bytes)) {
        return Ok(());
    }
    let cut = stored.first();
    cut.map_or(Ok(()), |object| {
        Err(ArchiveError::Cut {
            name: name.to_owned(),
            key: object.key.clone(),
            bytes: object.size,
        })
    })
}

fn is_compressed(candidate: &str, key: &str) -> bool {
    let suffix = candidate
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('.'));
    suffix.is_some_and(|suffix| super::catalog::COMPRESSIONS.contains(&suffix))
}

/// Prints `error`, its causes and its hint to PostgreSQL's log, and puts it into `xdb-archive.log`.
///
/// What succeeds is in neither: PostgreSQL calls thousands of times a day, and the bucket tells what is stored.
pub(super) fn complain(verb: &'static str, file: Option<PathBuf>, error: &ArchiveError) {
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
pub(super) fn note(verb: &'static str, name: &str, why: &str) {
    log::to_stderr(&format!(
        "xdb {verb}: {name} is not stored and no longer needed: {why}\n"
    ));
}
