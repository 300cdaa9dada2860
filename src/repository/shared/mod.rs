//! xdb's own objects, which every node of the cluster reads: `xdb/{cluster}/…` in the WAL-G bucket.
//!
//! Never below the WAL-G prefix: its programs list, judge and delete what is there.

mod acknowledgement;
mod dump;
mod forgotten;
mod high_water;
mod lock;
mod probe;
mod proof;
mod retention;
mod success;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::RepositorySettings;
use crate::storage::{Bucket, Location, StorageError, UnknownPlaceholder};

pub(crate) use acknowledgement::Acknowledgement;
pub(crate) use dump::{BegunDump, DeletingDumps, DumpProof, ReadDumpProofs};
pub(crate) use forgotten::set_aside_folder;
pub(crate) use high_water::HighWater;
pub(crate) use lock::{ClusterLock, LockError};
pub(crate) use proof::{Proof, ReadProofs};
pub(crate) use retention::{ArchiveOf, Keeper, Pruned};
pub(crate) use success::Success;

/// Why the shared objects cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error(transparent)]
    Placeholder(#[from] UnknownPlaceholder),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("cannot read s3://{bucket}/{key}: {reason}")]
    Content {
        bucket: String,
        key: String,
        reason: String,
    },
}

impl SharedError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Placeholder(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Content { bucket, key, .. } => {
                format!(
                    "xdb wrote it and did not expect this: look at s3://{bucket}/{key}, and remove it"
                )
            }
        }
    }
}

/// When what began at `started_at` and took `elapsed_secs` ended.
fn finished_at(started_at: Timestamp, elapsed_secs: f64) -> Timestamp {
    // A number that is no duration was not written by xdb.
    let elapsed = Duration::try_from_secs_f64(elapsed_secs).unwrap_or_default();
    let elapsed = SignedDuration::try_from(elapsed).unwrap_or_default();
    started_at.saturating_add(elapsed).unwrap_or(started_at)
}

/// Where they are.
#[derive(Debug, Clone)]
pub struct Shared {
    bucket: Bucket,
    prefix: String,
}

impl Shared {
    /// Those of the cluster of `settings`. Nothing is sent until something is read or written.
    ///
    /// # Errors
    /// When the bucket's name is not known here, or no client can be made.
    pub(super) async fn open(settings: &RepositorySettings) -> Result<Self, SharedError> {
        let template = &settings.archive.repository;
        // The bucket alone: on a host without a data directory {major} is not known.
        let end = template.get(5..).and_then(|rest| rest.find('/'));
        let bucket = end.map_or(template.as_str(), |end| &template[..end + 5]);
        let repository = Location::fill("archive.repository", bucket, settings)?;
        Ok(Self {
            bucket: Bucket::open(&settings.s3, &repository.bucket).await?,
            prefix: format!("xdb/{}/", settings.cluster.name),
        })
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn damaged(&self, key: &str, error: &serde_json::Error) -> SharedError {
        SharedError::Content {
            bucket: self.bucket.name().to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        }
    }
}
