//! Opens the file: settings, migrations, and what to do with one that cannot be used.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{Store, StoreError};

/// The steps from one version to the next; `user_version` counts those that were taken.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store that was opened for writing.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    /// Where the damaged file went that was there before; the store is then empty.
    pub set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens `{state_directory}/xdb.db`, makes it where it is missing, and moves a damaged one aside.
    ///
    /// `now` names what is moved aside.
    ///
    /// # Errors
    /// When the directory is another user's, the file is of a newer xdb, or it cannot be read, written or moved.
    pub fn open(state_directory: &Path, now: Timestamp) -> Result<Opened, StoreError> {
        std::fs::create_dir_all(state_directory).map_err(|source| StoreError::Directory {
            path: state_directory.to_owned(),
            source,
        })?;
        refuse_foreign(state_directory)?;
        let path = file(state_directory);
        let (connection, set_aside) = match open_for_writing(&path) {
            Err(StoreError::Damaged { .. }) => {
                let aside = move_aside(&path, now)?;
                (open_for_writing(&path)?, Some(aside))
            }
            opened => (opened?, None),
        };
        let store = Store::start(connection);
        Ok(Opened { store, set_aside })
    }
}

/// The files that SQLite makes beside its own would shut the directory's owner out.
fn refuse_foreign(state_directory: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Directory {
        path: state_directory.to_owned(),
        source,
    };
    let owner = state_directory.metadata().map_err(failed)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(StoreError::Foreign {
        path: state_directory.to_owned(),
        owner,
    })
}

pub(super) fn file(state_directory: &Path) -> PathBuf {
    state_directory.join("xdb.db")
}

fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| judge(path, source);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .execute_batch(
            // FULL: an event that Redis has seen must not be forgotten by a power cut, or its number
            // would be handed out a second time. The limit: readers can keep the WAL from being reset.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216;",
        )
        .map_err(failed)?;
    check(&connection, path)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens an existing file for reading; SQLite itself refuses every write.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| judge(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    version(&connection, path)?;
    Ok(connection)
}

fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let said: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| judge(path, source))?;
    if said == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        source: None,
    })
}

/// The version of the file; 0 for an empty one.
fn version(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let found: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| judge(path, source))?;
    let known = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: u32::try_from(known).unwrap_or(u32::MAX),
        }),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| judge(path, source);
    // Immediate, and the version read inside: two that start at once take each step once.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    for step in &MIGRATIONS[version(&transaction, path)?..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction
        .execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn judge(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Damaged {
            path,
            source: Some(source),
        },
        _ => StoreError::Open { path, source },
    }
}

/// The WAL goes along: a new file must not be filled from the old one's.
fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let aside = path.with_file_name(format!("xdb.db.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    for suffix in ["-wal", "-shm", ""] {
        let with_suffix = |path: &Path| {
            let mut path = path.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        match std::fs::rename(with_suffix(path), with_suffix(&aside)) {
            Err(error) if suffix.is_empty() || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::MoveAside {
                    path: with_suffix(path),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(aside)
}
