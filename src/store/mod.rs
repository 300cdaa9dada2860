//! SQLite in the node's state directory: what this node remembers over a restart.
//!
//! Losing it loses nothing of the user's. It must not judge what it keeps, nor talk to anything but
//! its file: one thread writes in the daemon, command lines read through connections of their own.
//! The daemon's works in memory while the file cannot be used.

mod alerts;
mod backing;
mod facts;
mod fault;
mod files;
mod notices;
mod open;
mod outbox;
mod reader;
mod runs;
mod samples;
mod silences;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_memory;
mod transfer;
mod writer;

pub use fault::Fault;
pub use files::{LastAnswer, StateFiles};
pub use notices::Waiting;
pub use outbox::{OUTBOX_LIMIT, Queued};
pub use reader::Reader;
pub use runs::KEPT_RUNS;
pub use samples::StoredSample;
pub use writer::{Opened, Store};

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode};

/// Reads in one connection, or in one transaction.
pub struct Reading<'a>(&'a Connection);

impl Reading<'_> {
    /// `user_version`: how many of the steps in [`open`] were taken. A file that is only read stays as an older xdb left it.
    fn version(&self) -> rusqlite::Result<u32> {
        self.0
            .query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// Whether the file lacks the tables that its version `since` brought.
    fn is_before(&self, since: u32) -> Result<bool, StoreError> {
        let version = self.version().map_err(query("read the version of"))?;
        Ok(version < since)
    }

    /// The rows of `select` that can be read, where damage hides others.
    fn readable<Raw, T>(
        &self,
        select: &str,
        parameters: impl rusqlite::Params,
        raw: fn(&rusqlite::Row<'_>) -> rusqlite::Result<Raw>,
        parse: fn(Raw) -> Result<T, StoreError>,
    ) -> Vec<T> {
        let Ok(mut statement) = self.0.prepare(select) else {
            return Vec::new();
        };
        let Ok(rows) = statement.query_map(parameters, raw) else {
            return Vec::new();
        };
        let readable = rows.map_while(|row| match row {
            // Damage ends the reading; a value of the wrong kind is that row's alone.
            Err(error) if error.sqlite_error_code().is_some() => None,
            row => Some(row.ok()),
        });
        let parsed = readable.flatten().map(parse);
        parsed.filter_map(Result::ok).collect()
    }
}

/// Writes in one transaction: all of it happens, or none.
pub struct Writing<'a>(Reading<'a>);

impl<'a> std::ops::Deref for Writing<'a> {
    type Target = Reading<'a>;

    fn deref(&self) -> &Reading<'a> {
        &self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} belongs to the user {owner}, and xdb runs as another", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("cannot use the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{} is of version {found}, and this xdb knows {known}", path.display())]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Option<rusqlite::Error>,
    },
    #[error("cannot move the damaged {} aside", path.display())]
    MoveAside {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} was deleted, replaced or cut under the running daemon", path.display())]
    Replaced { path: PathBuf },
    #[error("cannot {what} the store")]
    Query {
        what: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot read {what} in the store")]
    Content { what: &'static str },
    #[error("the state store did not answer within {secs} s")]
    NoAnswer { secs: u64 },
    #[error("the store's writer has ended")]
    Ended,
}

impl StoreError {
    /// Whether the file is the reason, and not what was asked of it.
    fn is_of_file(&self) -> bool {
        match self {
            Self::Query { source, .. } => {
                source.sqlite_error_code() != Some(ErrorCode::ConstraintViolation)
            }
            _ => true,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "run xdb as the database's user: runuser -u postgres -- xdb",
            Self::Directory { .. } | Self::Open { .. } => {
                "node.state_directory belongs to the user that xdb runs as, and its disk is not full"
            }
            Self::Newer { .. } => {
                "a newer xdb was here: install that again, or move the file away; no data of yours is in it"
            }
            Self::Damaged { .. } => {
                "the daemon moves the file aside within a minute and writes a new one; no data of yours is in it"
            }
            Self::MoveAside { .. } => "move the file away by hand; no data of yours is in it",
            Self::Replaced { .. } => {
                "leave the files of node.state_directory to xdb; it writes a new one"
            }
            Self::Query { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => "free space where node.state_directory is",
                Some(ErrorCode::ReadOnly) => "make node.state_directory writable for xdb's user",
                Some(ErrorCode::DatabaseBusy) => {
                    "another process holds a lock on the store; `fuser -v` on xdb.db shows it; try again"
                }
                _ => "the words after the colon are SQLite's own",
            },
            Self::Content { .. } => "move xdb.db away and restart xdb; no data of yours is in it",
            Self::NoAnswer { .. } => {
                "look whether the volume of node.state_directory hangs: dmesg, findmnt -T /var/lib/xdb"
            }
            Self::Ended => "restart xdb; its log tells why",
        }
    }
}

fn log_chain(error: &StoreError) -> String {
    crate::log::chain(error)
}

fn query(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Query { what, source }
}

fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(|_| StoreError::Content { what: "a time" })
}
