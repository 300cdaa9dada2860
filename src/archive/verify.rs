//! A full look at the repository, with the losses that somebody knows of.

use jiff::Timestamp;

use super::catalog::{self, Catalog, Verified};
use super::{ArchiveError, retention};
use crate::config::Config;
use crate::storage::{Acknowledgement, Bucket, Repository, Shared};

/// Lists all of the repository and judges it.
///
/// # Errors
/// When the bucket cannot be read, or what is acknowledged cannot.
pub async fn verify(
    config: &Config,
    now: Timestamp,
) -> Result<(Repository, Catalog, Verified), ArchiveError> {
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let mut catalog = catalog::read(&bucket, &repository).await?;
    let mut verified = catalog.verify(&[], now);
    // Without a gap there is nothing to acknowledge, and nothing to ask for.
    if !verified.gaps.is_empty() {
        retention::know_pruned(config, &mut catalog).await?;
        let shared = Shared::open(config).await?;
        let known = shared.acknowledgements(&repository.to_string()).await?;
        verified = catalog.verify(&known, now);
    }
    Ok((repository, catalog, verified))
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
    let (repository, catalog, _) = verify(config, now).await?;
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
