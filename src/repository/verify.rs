//! The repository, judged, with the losses that somebody knows of.

use std::path::Path;

use jiff::Timestamp;

use super::catalog::{Catalog, Verified};
use super::{Acknowledgement, Look, Repository, RepositoryError};

impl Repository {
    /// Lists the repository and judges it.
    ///
    /// # Errors
    /// When the bucket cannot be read, or what is acknowledged cannot.
    pub async fn verify(
        &self,
        state_directory: &Path,
        look: Look<'_>,
        now: Timestamp,
    ) -> Result<(Catalog, Verified), RepositoryError> {
        // First the mark, then the bucket: what it says to be archived must be in the listing.
        let mark = self.shared.stated_high_water().await?;
        let mut catalog = self.read_catalog(state_directory, look, now).await?;
        catalog.apply_high_water(mark, &self.location);
        let mut verified = catalog.verify(&[], now);
        // Without a gap there is nothing to acknowledge, and nothing to ask for.
        if !verified.gaps.is_empty() {
            self.know_pruned(&mut catalog).await?;
            let repository = self.location.to_string();
            let known = self.shared.acknowledgements(&repository).await?;
            verified = catalog.verify(&known, now);
        }
        Ok((catalog, verified))
    }

    /// Keeps that `who` knows of the loss of the `segments` from the first to the last, and why, until `until`.
    ///
    /// # Errors
    /// [`RepositoryError::Refused`] where not all of them are missing; otherwise when the bucket cannot be read or written.
    pub async fn acknowledge(
        &self,
        state_directory: &Path,
        segments: (&str, &str),
        who: (&str, &str),
        (now, until): (Timestamp, Timestamp),
    ) -> Result<Acknowledgement, RepositoryError> {
        let (catalog, _) = self.verify(state_directory, Look::Whole, now).await?;
        let known = Acknowledgement::new(&self.location.to_string(), segments, who, now, until);
        if !catalog.covers_gap_of(&known) {
            let (first, last) = segments;
            return Err(RepositoryError::Refused {
                reason: format!("{first} to {last} is no gap, nor a part of one"),
                hint: "`xdb archive verify` names the gaps: only a loss can be acknowledged"
                    .to_owned(),
            });
        }
        self.shared.acknowledge(&known).await?;
        Ok(known)
    }
}
