//! The WAL-G repository in the bucket, what xdb keeps beside it, and the program that writes it.
//!
//! A [`RepositoryHandle`] opens the [`Repository`] once for each verb, and once in the daemon. The program is driven, never
//! rewritten; what is in the bucket xdb reads for itself. What is pushed, fetched and deleted is decided above, in `archive`.
//!
//! - `catalog`: backups, WAL, gaps and windows, from listings and sentinels; `catalog_cache` keeps them on this node
//! - `timelines`, `ancestry`, `supersession`: which timeline is this cluster's, and who left it
//! - `program`: the dialects of WAL-G, and what each is started with
//! - `shared`: xdb's own objects in the bucket: proofs, successes, marks, acknowledgements, locks
//! - `tested`, `pruned`, `high_water`, `verify`: what those say, read into the catalog
//! - `retention_rules`: which of a series of backups or dumps `[retention]` keeps
//! - `work_lock`: one run of a work at a time, on the node and in the cluster

pub(crate) mod ancestry;
mod archive_end;
pub(crate) mod catalog;
mod catalog_cache;
mod error;
mod forget;
mod handle;
mod high_water;
pub(crate) mod program;
mod pruned;
mod restore_time;
mod retention_rules;
pub(crate) mod segment_header;
mod shared;
mod stored;
mod supersession;
mod tested;
mod timelines;
mod verify;
pub(crate) mod wal_header;
mod work_lock;

use std::path::Path;

use tokio::process::Command;

use crate::config::RepositorySettings;
use crate::storage::{Bucket, Location};
pub(crate) use archive_end::last_in_a_row;
pub(crate) use catalog_cache::{Look, forget_catalog};
pub(crate) use error::{RepositoryError, TOO_SLOW};
pub(crate) use forget::{ShownByPeers, forget_timeline, remember_timeline};
pub(crate) use handle::RepositoryHandle;
pub(crate) use high_water::{PositionSource, last_archived};
pub(crate) use program::environment::{
    SEGMENT_SIZE, add_ambient_aws, segment_size_in, set_segment_size,
};
pub(crate) use program::{Program, ProgramSettings, Trial, try_settings};
pub(crate) use restore_time::{RestoreTime, RestoreWork, expect_restore};
pub(crate) use retention_rules::{
    CLOCKS_DIFFER, RetentionItem, RetentionRules, older_than_all, why_clock_is_wrong,
};
pub(crate) use segment_header::judge_file;
pub(crate) use shared::{
    Acknowledgement, ArchiveOf, BegunDump, ClusterLock, DeletingDumps, DumpProof, HighWater,
    Keeper, LockError, Proof, Pruned, ReadDumpProofs, ReadProofs, Shared, SharedError, Success,
    set_aside_folder,
};
pub(crate) use stored::is_whole;
pub(crate) use supersession::{own_history, position_of, superseded, superseding};
pub(crate) use timelines::{NewerTimeline, PeerOn, Relation, Timelines, timeline_in};
pub(crate) use work_lock::{NodeWorkLock, Work, WorkLock, WorkLockError};

/// An opened WAL-G repository: one for each verb, and one in the daemon.
#[derive(Debug, Clone)]
pub struct Repository {
    pub bucket: Bucket,
    /// The bucket's name and the prefix of the repository in it (`WALG_S3_PREFIX`).
    pub location: Location,
    /// What xdb keeps in the same bucket.
    pub shared: Shared,
    pub program: ProgramSettings,
}

impl Repository {
    /// That of `settings`, through the client of `shared`.
    ///
    /// # Errors
    /// When a placeholder's value is not known here.
    fn beside(shared: Shared, settings: &RepositorySettings) -> Result<Self, RepositoryError> {
        let template = &settings.archive.repository;
        Ok(Self {
            location: Location::fill("archive.repository", template, settings)?,
            bucket: shared.bucket().clone(),
            shared,
            program: settings.into(),
        })
    }

    /// The key of `path`, which is relative to the repository.
    pub fn key(&self, path: &str) -> String {
        self.location.key(path)
    }

    /// The data directory of the server that is archived here.
    pub fn data_directory(&self) -> &Path {
        &self.program.postgres.data_directory
    }

    /// As [`ProgramSettings::command`], for this repository.
    ///
    /// # Errors
    /// As [`ProgramSettings::find`].
    pub fn command(&self, data_directory: &Path) -> Result<(Program, Command), RepositoryError> {
        self.program.command(&self.location, data_directory)
    }
}
