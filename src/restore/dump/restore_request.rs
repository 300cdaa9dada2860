//! What an operator asks `xdb dump restore` for, and the plan of it.

use jiff::Timestamp;
use serde::Serialize;

use super::selection::Part;
use crate::config::Postgres;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) struct DumpRestoreRequest {
    /// `None` for the newest that holds the database.
    pub set: Option<String>,
    pub database: String,
    pub part: Part,
    /// The name of the restored database; `None` for `{database}_restored`.
    pub into: Option<String>,
    pub with_rows: bool,
    /// Missing roles are made.
    pub globals: bool,
    /// Owners and privileges are restored.
    pub with_owners: bool,
    /// A database of the wanted name is replaced.
    pub clean: bool,
    /// Another server than the configured one.
    pub target: Option<Postgres>,
}

/// The plan of one restore; the JSON of `xdb dump restore --plan --json`.
#[derive(Debug, Serialize)]
pub(crate) struct DumpRestorePlan {
    pub set: String,
    /// When the snapshot of the database was taken: the restored database is as of then.
    pub snapshot_at: Timestamp,
    pub database: String,
    pub part: String,
    pub into: String,
    /// Host and port.
    pub server: String,
    /// A database of this name is there, and is replaced at the end.
    pub replaces: bool,
    /// Where it is read from, and how much.
    pub object: String,
    pub read_bytes: u64,
    /// What the database took on its server. `None` for a part of it, and where a first xdb wrote the set.
    pub database_bytes: Option<u64>,
    /// What may be written to the volume of this node's data directory. `None` for another server.
    pub free_bytes: Option<u64>,
    pub tables: usize,
    /// By the manifest.
    pub rows: u64,
    pub roles_to_create: Vec<String>,
    pub missing_roles: Vec<String>,
    pub missing_extensions: Vec<String>,
    /// Their tables come into the default one.
    pub missing_tablespaces: Vec<String>,
    pub left_out: Vec<String>,
    pub notes: Vec<String>,
    /// Why it is refused; `None` where it can begin.
    pub refused: Option<Refusal>,
}

/// A reason not to begin, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    pub reason: String,
    pub hint: String,
}
