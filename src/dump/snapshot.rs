//! One database's snapshot: what `pg_dump` dumps, and how many rows that is.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::inventory::not_in_dump;
use super::rows::{count_rows_in_transaction, tables};
use super::{DumpError, LeftOut};
use crate::config::Config;
use crate::postgres::{self, Connection, PostgresError, Target};

/// PostgreSQL counts its timeouts in milliseconds, in 31 bits.
const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Who holds the tables while they are counted and dumped.
///
/// Without locks a TRUNCATE, which no snapshot holds off, could fall between the counting and the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The snapshot's own session, from its begin: counting and dumping may run side by side.
    Snapshot,
    /// `pg_dump` alone, from its first byte of output until its end: two holders of so many locks could be more than
    /// the server has room for.
    PgDump,
}

/// A transaction that stays open, so that `pg_dump` can join it by its id; it ends when this is dropped.
pub struct Snapshot {
    connection: Connection,
    /// On a standby nobody can read them, and `pg_dump` leaves them out.
    unlogged: bool,
    /// For `pg_dump --snapshot`.
    pub id: String,
    pub taken_at: Timestamp,
    /// `pg_database_size`.
    pub database_bytes: u64,
    /// The database's own: a dump in another could lose what that one does not have.
    pub encoding: String,
    pub guard: Guard,
    /// What of this database the dump does not hold.
    pub left_out: Vec<LeftOut>,
}

impl Snapshot {
    /// Begins a transaction in `database`, exports its snapshot, and locks every table that it sees, where they are few;
    /// `unlogged` ones, too?
    ///
    /// The locks are the ones that reading takes.
    ///
    /// # Errors
    /// When the server refuses, or a table stays locked for `dump.lock_timeout`.
    pub async fn take(config: &Config, database: &str, unlogged: bool) -> Result<Self, DumpError> {
        let failed = |source| DumpError::Snapshot {
            database: database.to_owned(),
            source,
        };
        let target = Target {
            database: database.to_owned(),
            ..(&config.postgres).into()
        };
        let connection = postgres::connect(&target, config.dump.timeout.min(LONGEST)).await;
        let connection = connection.map_err(failed)?;
        begin(&connection, config).await.map_err(failed)?;
        const EXPORT: &str = "
            SELECT pg_catalog.pg_export_snapshot() AS id, pg_catalog.clock_timestamp() AS now,
                   pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes,
                   pg_catalog.current_setting('server_encoding') AS encoding,
                   pg_catalog.current_setting('max_locks_per_transaction')::bigint *
                   (pg_catalog.current_setting('max_connections')::bigint
                    + pg_catalog.current_setting('max_prepared_transactions')::bigint) AS locks";
        let query = |error| {
            failed(PostgresError::Query {
                what: "for a snapshot",
                error,
            })
        };
        let row = connection.query_one(EXPORT, &[]).await.map_err(query)?;
        let bytes: i64 = row.try_get("bytes").map_err(query)?;
        let locks: i64 = row.try_get("locks").map_err(query)?;
        let tables = tables(&connection, unlogged).await.map_err(failed)?;
        let guard = choose_guard(tables.len(), locks.cast_unsigned());
        if guard == Guard::Snapshot {
            lock(&connection, database, tables).await?;
        }
        let left_out = not_in_dump(&connection, database, unlogged).await;
        Ok(Self {
            id: row.try_get("id").map_err(query)?,
            taken_at: row.try_get("now").map_err(query)?,
            database_bytes: bytes.cast_unsigned(),
            encoding: row.try_get("encoding").map_err(query)?,
            guard,
            left_out: left_out.map_err(failed)?,
            connection,
            unlogged,
        })
    }

    /// Rows a table as the snapshot sees them.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn rows(&self) -> Result<BTreeMap<String, u64>, PostgresError> {
        count_rows_in_transaction(&self.connection, self.unlogged).await
    }
}

/// Few tables are locked twice; the lock table of the server has room for `locks`, and all sessions share it.
fn choose_guard(tables: usize, locks: u64) -> Guard {
    // So few give an output that `pg_dump` may have written, and ended, before it is read: only the own locks count then.
    const FEW: u64 = 64;
    const SHARE: u64 = 8;
    if tables as u64 <= FEW.max(locks / SHARE) {
        Guard::Snapshot
    } else {
        Guard::PgDump
    }
}

async fn lock(
    connection: &Connection,
    database: &str,
    tables: Vec<String>,
) -> Result<(), DumpError> {
    for table in tables {
        let lock = format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE");
        let locked = connection.batch_execute(&lock).await;
        locked.map_err(|error| DumpError::TableLock {
            database: database.to_owned(),
            table,
            source: PostgresError::Query {
                what: "for a lock",
                error,
            },
        })?;
    }
    Ok(())
}

async fn begin(connection: &Connection, config: &Config) -> Result<(), PostgresError> {
    // By pg_settings: not every release has each of them. A count must not go on for a client that is gone.
    const SETTINGS: &str = "
        SELECT pg_catalog.set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '5s' ELSE '0' END, false)
          FROM pg_catalog.pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'client_connection_check_interval')";
    let begin = format!(
        "SET row_security = off; SET lock_timeout = {}",
        config.dump.lock_timeout.min(LONGEST).as_millis()
    );
    for statement in [
        SETTINGS,
        &begin,
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    ] {
        let done = connection.batch_execute(statement).await;
        done.map_err(|error| PostgresError::Query {
            what: "for a transaction",
            error,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_few_tables_are_locked_twice() {
        // 64 locks for each of 100 sessions; 10 for each of 50.
        for (tables, locks, guard) in [
            (0, 6_400, Guard::Snapshot),
            (800, 6_400, Guard::Snapshot),
            (801, 6_400, Guard::PgDump),
            (4_500, 6_400, Guard::PgDump),
            (64, 500, Guard::Snapshot),
            (65, 500, Guard::PgDump),
        ] {
            assert_eq!(choose_guard(tables, locks), guard, "{tables} of {locks}");
        }
    }
}
