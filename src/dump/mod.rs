//! Dumps: every database by `pg_dump`, streamed into the bucket as one set that its manifest makes complete.
//!
//! A set lies in `{dump.repository}/{set}/`: a `.dump` a database (custom format, for `pg_restore`), `globals.sql`
//! (roles with their password hashes, which a restore needs: the bucket is as secret as the databases), and
//! `manifest.json`, written last. A set without a manifest is no backup. Whether one can be restored is not said here.
//! With `dump.age_recipients` all but the manifest is encrypted before it leaves this node, and `.age` ends its name.

mod attempts;
mod contents;
mod database;
mod encryption;
mod error;
mod identity;
mod inventory;
mod list;
mod listed;
mod lock;
mod object;
mod program;
mod prune;
mod push;
mod restored_names;
mod rows;
mod set;
mod snapshot;
mod source;
mod tested;
mod verify;

use crate::config;
use crate::repository::{RepositoryHandle, Shared};
use crate::storage::{Bucket, Location};

pub(crate) use contents::{CollationVersion, Contents, LargeObjects, Sequence, read_restored};
pub(crate) use error::DumpError;
pub(crate) use identity::{KeyError, judge_identity};
pub(crate) use inventory::LeftOut;
pub(crate) use list::{ReadManifests, list, newest_complete};
pub(crate) use listed::{Listed, SetTest, Status, newest_full};
pub(crate) use lock::clean_up;
pub(crate) use object::{ObjectError, ObjectReader};
pub(crate) use program::client;
pub(crate) use prune::{DumpPlan, DumpPruneReport, look_and_plan, prune};
pub(crate) use push::push;
pub(crate) use restored_names::{DIGITS, REPLACED, RESTORED, is_own, mark_of};
pub(crate) use set::{DumpSet, DumpedDatabase, SetName, StoredObject};
pub(crate) use tested::keep_proof;
pub(crate) use verify::{VerifiedObject, VerifiedSet, verify};

/// The place of the dumps, opened: one for each verb, and one in the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Dumps {
    pub bucket: Bucket,
    pub location: Location,
    /// Where the cluster's lock is: in the bucket of the base backups.
    pub shared: Shared,
    pub settings: config::Dump,
    /// The server that is dumped.
    pub postgres: config::Postgres,
    pub node: config::Node,
    pub cluster: String,
}

impl Dumps {
    /// Those of the cluster of `repository`, through its client; nothing is sent until the first call.
    ///
    /// # Errors
    /// When a placeholder's value is not known here, or no client can be made.
    pub(crate) async fn beside(
        repository: &RepositoryHandle,
        settings: &config::Dump,
        node: &config::Node,
    ) -> Result<Self, DumpError> {
        let (shared, of) = (repository.shared().await?, repository.settings());
        let location = Location::fill("dump.repository", &settings.repository, of)?;
        Ok(Self {
            bucket: shared.bucket().beside(&location.bucket),
            location,
            shared,
            settings: settings.clone(),
            postgres: of.postgres.clone(),
            node: node.clone(),
            cluster: of.cluster.name.clone(),
        })
    }
}
