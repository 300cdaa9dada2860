//! The catalog as this node keeps it between two looks. Losing it costs time only, and so does not being able to keep it.

use std::path::Path;

use jiff::Timestamp;

use super::catalog::{Catalog, KeptCatalog};
use super::{Repository, RepositoryError};
use crate::log;
use crate::store::{Reader, Store, StoreError, Writing};

/// How much of the repository is listed.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// All of it.
    Whole,
    /// What came since this node last looked, and all of it once a day; a daemon has the store open already.
    Since(Option<&'a Store>),
}

impl Repository {
    /// Reads the repository, and keeps in `state_directory` what was seen for the next [`Look::Since`] of this node.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn read_catalog(
        &self,
        state_directory: &Path,
        look: Look<'_>,
        now: Timestamp,
    ) -> Result<Catalog, RepositoryError> {
        let origin = self.origin();
        let kept = match look {
            Look::Whole => None,
            Look::Since(store) => kept(state_directory, store, &origin).await,
        };
        let mut snapshot = match kept.as_deref().and_then(KeptCatalog::of_json) {
            Some(snapshot) => snapshot.refresh(self, now).await?,
            None => KeptCatalog::read(self, now).await?,
        };
        self.learn_tests(&mut snapshot.catalog).await?;
        if snapshot.is_older_than_a_failure() {
            // What the test missed may have been deleted since, which a listing of new objects does not show.
            snapshot = KeptCatalog::read(self, now).await?;
            self.learn_tests(&mut snapshot.catalog).await?;
        }
        let json = snapshot.to_json();
        if kept.as_ref() != Some(&json)
            && let Err(error) = keep(state_directory, look, (origin, kept, json)).await
        {
            tracing::debug!(
                "the catalog is not kept on this node: {}",
                log::chain(&error)
            );
        }
        let mut catalog = snapshot.into_catalog();
        self.read_damage(&mut catalog).await?;
        Ok(catalog)
    }

    /// The repository, and the S3 that it is in.
    fn origin(&self) -> String {
        let s3 = &self.program.s3;
        let region = s3.region.as_deref().unwrap_or_default();
        let endpoint = s3.endpoint.as_deref().unwrap_or("AWS");
        format!("{} at {endpoint} {region}", self.location)
    }
}

/// Forgets what this node knows of any repository: after a deletion it is not true any more.
pub(crate) async fn forget_catalog(state_directory: &Path) {
    let forgotten = async {
        let Some(store) = own_store(state_directory)? else {
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

/// A daemon asks its own store: the file may be locked, and nothing else in the daemon may wait for that.
async fn kept(state_directory: &Path, store: Option<&Store>, origin: &str) -> Option<String> {
    if let Some(store) = store {
        let origin = origin.to_owned();
        let read = store.read(move |reading| reading.catalog(&origin)).await;
        return read.ok().flatten();
    }
    let reader = Reader::open(state_directory).ok()??;
    reader.reading().catalog(origin).ok()?
}

async fn keep(
    state_directory: &Path,
    look: Look<'_>,
    (origin, before, json): (String, Option<String>, String),
) -> Result<(), StoreError> {
    let store = match look {
        Look::Since(Some(store)) => Some(store.clone()),
        Look::Since(None) | Look::Whole => own_store(state_directory)?,
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
fn own_store(state_directory: &Path) -> Result<Option<Store>, StoreError> {
    if !state_directory.is_dir() {
        return Ok(None);
    }
    // A damaged one is the daemon's to move aside.
    Reader::open(state_directory)?;
    Ok(Some(Store::open(state_directory, Timestamp::now())?.store))
}
