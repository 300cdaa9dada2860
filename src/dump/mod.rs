//! Dumps: every database by `pg_dump`, streamed into the bucket as one set that its manifest makes complete.
//!
//! A set lies in `{dump.repository}/{set}/`: a `.dump` a database (custom format, for `pg_restore`), `globals.sql`
//! (roles with their password hashes, which a restore needs: the bucket is as secret as the databases), and
//! `manifest.json`, written last. A set without a manifest is no backup. Whether one can be restored is not said here.

mod error;
mod inventory;
mod list;
mod lock;
mod program;
mod push;
mod rows;
mod set;
mod snapshot;

use crate::config::Config;
use crate::storage::Repository;

pub use error::DumpError;
pub use inventory::LeftOut;
pub use list::{Listed, Newest, ReadManifests, Status, list, newest_complete};
pub use lock::clean_up;
pub use push::push;
pub use rows::count_rows;
pub use set::{DumpSet, DumpedDatabase, SetName, StoredObject};

/// Where the dumps of `config` go.
///
/// # Errors
/// When a placeholder's value is not known here.
pub fn repository(config: &Config) -> Result<Repository, DumpError> {
    let template = &config.dump.repository;
    Ok(Repository::fill("dump.repository", template, config)?)
}
