//! Opens the file: settings, migrations, and what to do with one that cannot be used.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::StoreError;
use super::facts::STORE;

/// The steps from one version to the next; `user_version` counts those that were taken.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("samples.sql"),
    include_str!("notices.sql"),
];
/// The versions that brought them: a file that is only read stays as an older xdb left it.
pub(super) const SAMPLES_SINCE: u32 = 2;
pub(super) const NOTICES_SINCE: u32 = 3;

/// A command line's: the daemon's transactions are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon's, which works in memory after that.
const DAEMON_BUSY_TIMEOUT: Duration = Duration::from_secs(2);
const SHORT_BUSY_TIMEOUT: Duration = Duration::from_millis(300);
/// Readers wait only for a lock on the whole file.
const READ_BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The file, open for writing.
pub(super) struct OpenFile {
    pub connection: Connection,
    pub set_aside: Option<PathBuf>,
}

/// For a command line.
///
/// # Errors
/// As [`super::Store::open`].
pub(super) fn open_once(state_directory: &Path, now: Timestamp) -> Result<OpenFile, StoreError> {
    open_file(state_directory, now, BUSY_TIMEOUT)
}

/// For the daemon, whose callers wait meanwhile: it must not wait long for another process.
pub(super) fn open_again(state_directory: &Path, now: Timestamp) -> Result<OpenFile, StoreError> {
    let opened = open_file(state_directory, now, SHORT_BUSY_TIMEOUT)?;
    let failed = |source| judge(&file(state_directory), source);
    opened
        .connection
        .busy_timeout(DAEMON_BUSY_TIMEOUT)
        .map_err(failed)?;
    Ok(opened)
}

fn open_file(
    state_directory: &Path,
    now: Timestamp,
    busy: Duration,
) -> Result<OpenFile, StoreError> {
    std::fs::create_dir_all(state_directory).map_err(|source| StoreError::Directory {
        path: state_directory.to_owned(),
        source,
    })?;
    refuse_foreign(state_directory)?;
    let path = file(state_directory);
    let (connection, set_aside) = match open_for_writing(&path, busy) {
        Err(StoreError::Damaged { .. }) => {
            let aside = move_aside(&path, now)?;
            (open_for_writing(&path, busy)?, Some(aside))
        }
        opened => (opened?, None),
    };
    Ok(OpenFile {
        connection,
        set_aside,
    })
}

/// An empty store with the same tables, and a list of the alerts that ended in it.
pub(super) fn open_in_memory() -> Result<Connection, StoreError> {
    let path = Path::new(":memory:");
    let mut connection = Connection::open_in_memory().map_err(|source| judge(path, source))?;
    migrate(&mut connection, path)?;
    connection
        .execute_batch(ENDED)
        .map_err(|source| judge(path, source))?;
    Ok(connection)
}

const ENDED: &str = "
    CREATE TABLE ended (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TRIGGER alert_ends AFTER DELETE ON alerts
        BEGIN INSERT OR IGNORE INTO ended (key) VALUES (old.key); END;
    CREATE TRIGGER alert_stands AFTER INSERT ON alerts
        BEGIN DELETE FROM ended WHERE key = new.key; END;";

/// A file that cannot be written, open for reading.
pub(super) struct Readable {
    pub connection: Connection,
    /// All that was committed can be read; else what the WAL holds is missing.
    pub is_current: bool,
}

/// `None` where it cannot be read either, or must not be: damaged, or of a newer xdb.
pub(super) fn read_what_is_readable(state_directory: &Path) -> Option<Readable> {
    let path = file(state_directory);
    let can_be_read = |connection: &Connection| {
        let version = version(connection, &path).ok()?;
        // What later steps add is left out where it is read.
        (version > 0).then_some(())?;
        check(connection, &path).ok()
    };
    match open_for_reading(&path) {
        Ok(connection) => {
            can_be_read(&connection)?;
            return Some(Readable {
                connection,
                is_current: true,
            });
        }
        // SQLite cannot make its files beside it: the file alone can still be read.
        Err(StoreError::Open { source, .. })
            if source.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => {}
        Err(_) => return None,
    }
    let name = path.to_str()?;
    let name = name
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{name}?immutable=1");
    let connection = Connection::open_with_flags(uri, flags).ok()?;
    can_be_read(&connection)?;
    let wal = beside(&path, "-wal").metadata();
    Some(Readable {
        connection,
        is_current: wal.map_or(true, |wal| wal.len() == 0),
    })
}

/// Reads the file as another process would, past what this one has cached.
///
/// # Errors
/// When it is damaged; that it cannot be looked at is no damage.
pub(super) fn verify_file(path: &Path) -> Result<(), StoreError> {
    let checked = open_for_reading(path).and_then(|connection| check(&connection, path));
    match checked {
        Err(error @ StoreError::Damaged { .. }) => Err(error),
        _ => Ok(()),
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

fn open_for_writing(path: &Path, busy: Duration) -> Result<Connection, StoreError> {
    let failed = |source| judge(path, source);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(busy).map_err(failed)?;
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
    connection.busy_timeout(READ_BUSY_TIMEOUT).map_err(failed)?;
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
    // Tells a store that was put in place of another from that other.
    transaction
        .execute(
            "INSERT OR IGNORE INTO facts (name, value) VALUES (?1, lower(hex(randomblob(8))))",
            [STORE],
        )
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

/// The files that SQLite keeps beside its own.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// The WAL goes along: a new file must not be filled from the old one's.
fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let aside = path.with_file_name(format!("xdb.db.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if suffix.is_empty() || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::MoveAside {
                    path: beside(path, suffix),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(aside)
}
