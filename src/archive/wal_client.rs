//! What `wal-push` and `wal-fetch` share: they run before clap, tracing and any runtime, and answer to PostgreSQL.

use std::future::Future;

use super::{ArchiveError, Repository};
use crate::config::{self, Config, Sources};
use crate::storage::Bucket;

/// The configuration and the repository, as every verb sees them.
pub(super) fn configured() -> Result<(Config, Repository), ArchiveError> {
    let config = config::load(&Sources::from_process(None))?.config;
    let repository = super::repository(&config)?;
    Ok((config, repository))
}

/// Runs `work` on a runtime of this thread, made only now.
pub(super) fn block_on<T>(
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(ArchiveError::Runtime)?.block_on(work)
}

/// Whether the archive holds `name`, under any compression: asked of the bucket itself, not of a program.
pub(super) async fn is_stored(
    bucket: &Bucket,
    repository: &Repository,
    name: &str,
) -> Result<bool, ArchiveError> {
    let key = repository.key(&format!("wal_005/{name}"));
    let listed = bucket.list(&key).await?;
    // `…0003.lz4` is the segment, `…0003.00000028.backup.lz4` and `…0003.partial.lz4` are not.
    Ok(listed
        .iter()
        .any(|object| object.key == key || is_compressed(&object.key, &key)))
}

fn is_compressed(candidate: &str, key: &str) -> bool {
    let suffix = candidate
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('.'));
    suffix.is_some_and(|suffix| super::catalog::COMPRESSIONS.contains(&suffix))
}

/// Prints `error`, its causes and its hint to PostgreSQL's log.
pub(super) fn complain(verb: &str, error: &ArchiveError) {
    eprintln!("xdb {verb}: {}", crate::log::chain(error));
    if let Some(hint) = error.hint() {
        eprint!("{}", crate::log::hints(&hint));
    }
}
