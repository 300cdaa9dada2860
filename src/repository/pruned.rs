//! How far retention has deleted, read into the catalog.

use super::catalog::Catalog;
use super::{Repository, SharedError};
use crate::model::WalSegment;

impl Repository {
    /// Puts into `catalog`, which was read from here, how far retention has deleted, so that what it took is no loss.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn know_pruned(&self, catalog: &mut Catalog) -> Result<(), SharedError> {
        let mut sentinels = catalog.backups.iter().filter_map(|it| it.sentinel.as_ref());
        let Some(identifier) = sentinels.find_map(|sentinel| sentinel.system_identifier) else {
            return Ok(());
        };
        let pruned = self.shared.pruned((identifier, &self.location)).await?;
        let before = pruned.and_then(|pruned| pruned.before);
        catalog.wal.pruned_before =
            before.and_then(|name| WalSegment::parse(&name, catalog.wal.size).ok());
        Ok(())
    }
}
