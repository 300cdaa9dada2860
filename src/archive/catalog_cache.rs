//! The catalog as this node keeps it between two looks. Losing it costs time only, and so does not being able to keep it.

use jiff::Timestamp;

use super::ArchiveError;
use super::catalog::{Catalog, Snapshot};
use super::proofs::learn_tests;
use crate::config::Config;
use crate::log;
use crate::storage::{Bucket, Repository};
use crate::store::{Reader, Store, StoreError, Writing};

/// How much of the repository is listed.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// All of it.
    Whole,
    /// What came since this node last looked, and all of it once a day; a daemon has the store open already.
    Since(Option<&'a Store>),
}

/// Reads `repository`, and keeps what was seen for the next [`Look::Since`] of this node.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn read_catalog(
    config: &Config,
    repository: &Repository,
    look: Look<'_>,
    now: Timestamp,
) -> Result<Catalog, ArchiveError> {
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let origin = origin(config, repository);
    let kept = match look {
        Look::Whole => None,
        Look::Since(store) => kept(config, store, &origin).await,
    };
    let mut snapshot = match kept.as_deref().and_then(Snapshot::of_json) {
        Some(snapshot) => snapshot.refresh(&bucket, repository, now).await?,
        None => Snapshot::read(&bucket, repository, now).await?,
    };
    learn_tests(config, repository, &mut snapshot.catalog).await?;
    let json = snapshot.to_json();
    if kept.as_ref() != Some(&json)
        && let Err(error) = keep(config, look, (origin, kept, json)).await
    {
        tracing::debug!(
            "the catalog is not kept on this node: {}",
            log::chain(&error)
        );
    }
    Ok(snapshot.into_catalog())
}

/// Forgets what this node knows of the repository: after a deletion it is not true any more.
pub async fn forget_catalog(config: &Config) {
    let forgotten = async {
        let Some(store) = own_store(config)? else {
            return Ok(());
        };
        store.write(|writing| writing.forget_catalogs()).await
    };
    if let Err(error) = forgotten.await {
        tracing::debug!(
            "the catalog is not kept on this node: {}",
            log::chain(&error)
        );
    }
}

/// The repository, and the S3 that it is in.
fn origin(config: &Config, repository: &Repository) -> String {
    let region = config.s3.region.as_deref().unwrap_or_default();
    let endpoint = config.s3.endpoint.as_deref().unwrap_or("AWS");
    format!("{repository} at {endpoint} {region}")
}

/// A daemon asks its own store: the file may be locked, and nothing else in the daemon may wait for that.
async fn kept(config: &Config, store: Option<&Store>, origin: &str) -> Option<String> {
    if let Some(store) = store {
        let origin = origin.to_owned();
        let read = store.read(move |reading| reading.catalog(&origin)).await;
        return read.ok().flatten();
    }
    let reader = Reader::open(&config.node.state_directory).ok()??;
    reader.reading().catalog(origin).ok()?
}

async fn keep(
    config: &Config,
    look: Look<'_>,
    (origin, before, json): (String, Option<String>, String),
) -> Result<(), StoreError> {
    let store = match look {
        Look::Since(Some(store)) => Some(store.clone()),
        Look::Since(None) | Look::Whole => own_store(config)?,
    };
    let Some(store) = store else {
        return Ok(());
    };
    let whole = matches!(look, Look::Whole);
    let write = move |writing: &Writing<'_>| {
        // Another look, or a deletion, came between: what this one builds on may not be true any more.
        if whole || writing.catalog(&origin)? == before {
            writing.keep_catalog(&origin, &json)?;
        }
        Ok(())
    };
    store.write(write).await
}

/// `None` on a host that keeps no state; a reading verb makes no directory.
fn own_store(config: &Config) -> Result<Option<Store>, StoreError> {
    let directory = &config.node.state_directory;
    if !directory.is_dir() {
        return Ok(None);
    }
    // A damaged one is the daemon's to move aside.
    Reader::open(directory)?;
    Ok(Some(Store::open(directory, Timestamp::now())?.store))
}
