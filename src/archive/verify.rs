//! The repository, judged, with the losses that somebody knows of.

use jiff::Timestamp;

use super::catalog::{Catalog, Verified};
use super::catalog_cache::{Look, read_catalog};
use super::high_water::high_water;
use super::{ArchiveError, retention};
use crate::config::Config;
use crate::storage::{Acknowledgement, Shared};

/// Lists the repository and judges it.
///
/// # Errors
/// When the bucket cannot be read, or what is acknowledged cannot.
pub async fn verify(
    config: &Config,
    look: Look<'_>,
    now: Timestamp,
) -> Result<(Catalog, Verified), ArchiveError> {
    let repository = super::repository(config)?;
    // First the mark, then the bucket: what it says to be archived must be in the listing.
    let mark = high_water(config).await?;
    let mut catalog = read_catalog(config, &repository, look, now).await?;
    catalog.learn_end(mark, &repository);
    let mut verified = catalog.verify(&[], now);
    // Without a gap there is nothing to acknowledge, and nothing to ask for.
    if !verified.gaps.is_empty() {
        retention::know_pruned(config, &repository, &mut catalog).await?;
        let shared = Shared::open(config).await?;
        let known = shared.acknowledgements(&repository.to_string()).await?;
        verified = catalog.verify(&known, now);
    }
    Ok((catalog, verified))
}

/// Keeps that `by` knows of the loss of the segments from `first` to `last`, and why, until `until`.
///
/// # Errors
/// [`ArchiveError::Refused`] where not all of them are missing; otherwise when the bucket cannot be read or written.
pub async fn acknowledge(
    config: &Config,
    segments: (&str, &str),
    who: (&str, &str),
    until: Timestamp,
    now: Timestamp,
) -> Result<Acknowledgement, ArchiveError> {
    let repository = super::repository(config)?;
    let (catalog, _) = verify(config, Look::Whole, now).await?;
    let known = Acknowledgement::new(&repository.to_string(), segments, who, now, until);
    if !catalog.lacks(&known) {
        let (first, last) = segments;
        return Err(ArchiveError::Refused {
            reason: format!("{first} to {last} is no gap, nor a part of one"),
            hint: "`xdb archive verify` names the gaps: only a loss can be acknowledged".to_owned(),
        });
    }
    let shared = Shared::open(config).await?;
    shared.acknowledge(&known).await?;
    Ok(known)
}
