//! The result of a dump restore, as people and programs read it.

use jiff::Timestamp;
use serde::Serialize;

use crate::restore::Step;

/// A restored database; the JSON of `xdb dump restore --json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestoredDump {
    pub set: String,
    pub snapshot_at: Timestamp,
    pub database: String,
    pub part: String,
    /// The name of the restored database.
    pub into: String,
    /// Host and port.
    pub server: String,
    /// It took the place of a database of that name, which is dropped.
    pub replaced: bool,
    pub tables: usize,
    /// Counted after the restore, and the same as in the manifest.
    pub rows: u64,
    /// Whether the whole object was read and is what was stored.
    pub checksum_verified: bool,
    pub secs: f64,
    pub steps: Vec<Step>,
    pub roles_created: Vec<String>,
    /// Databases that restores which were killed left on the server, and which are dropped now.
    pub dropped_leftovers: Vec<String>,
    pub left_out: Vec<String>,
    pub notes: Vec<String>,
}
