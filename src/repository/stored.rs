//! The objects under the name of one WAL file.

use super::{Repository, RepositoryError, catalog};
use crate::storage::Object;

impl Repository {
    /// The objects that the archive holds for `name`, one a compression: asked of the bucket itself, not of a program.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn stored_as(&self, name: &str) -> Result<Vec<Object>, RepositoryError> {
        let key = self.key(&format!("wal_005/{name}"));
        let mut listed = self.bucket.list(&key).await?;
        // `…0003.lz4` is the segment, `…0003.00000028.backup.lz4` and `…0003.partial.lz4` are not.
        listed.retain(|object| object.key == key || is_compressed(&object.key, &key));
        Ok(listed)
    }

    /// The same, without objects that are too small to hold all `bytes` bytes of the file: an empty upload is not a copy.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn whole_as(&self, name: &str, bytes: u64) -> Result<Vec<Object>, RepositoryError> {
        let mut stored = self.stored_as(name).await?;
        stored.retain(|object| is_whole(object, bytes));
        Ok(stored)
    }

    /// Gives up the uploads of the WAL file `name` that a program left unfinished.
    pub async fn give_up_uploads(&self, name: &str) {
        let key = self.key(&format!("wal_005/{name}"));
        let left = self.bucket.unfinished_uploads(&key).await;
        for upload in left.unwrap_or_default() {
            // The next attempt stores it again, and finds what could not be aborted now.
            let _ = self.bucket.abort_upload(&upload).await;
        }
    }
}

/// Whether `object` is large enough to hold a file of `bytes` bytes.
pub(crate) fn is_whole(object: &Object, bytes: u64) -> bool {
    object.size >= catalog::least_stored(&object.key, bytes)
}

fn is_compressed(candidate: &str, key: &str) -> bool {
    let suffix = candidate
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('.'));
    suffix.is_some_and(|suffix| catalog::COMPRESSIONS.contains(&suffix))
}
