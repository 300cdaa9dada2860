//! The snapshot of one database that `pg_dump` dumps, and its rows, counted in the same snapshot.

use std::time::Duration;

use jiff::Timestamp;

use super::contents::{collations, extensions, large_objects, note_moved, sequences};
use super::error::LockedTable;
use super::inventory::not_in_dump;
use super::rows::{Rows, count_rows_in_transaction, tables};
use super::source::Source;
use super::{Contents, DumpError, Dumps, LargeObjects, LeftOut};
use crate::model::Lsn;
use crate::postgres::{self, Connection, PostgresError, Target};

/// PostgreSQL counts its timeouts in milliseconds, in 31 bits.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Who holds the tables while they are counted and dumped.
///
/// Without locks, a TRUNCATE between the counting and the dump would change the dump: a snapshot does not prevent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The snapshot's own session, from before its begin: counting and dumping may run side by side.
    Snapshot,
    /// `pg_dump` alone, from its first byte of output until its end: two holders of so many locks could be more than
    /// the server has room for.
    PgDump,
}

/// A transaction that stays open, so that `pg_dump` can join it by its id; it ends when this is dropped.
pub(crate) struct Snapshot {
    connection: Connection,
    /// Whether unlogged tables are counted. A standby cannot read them, and `pg_dump` leaves them out there.
    unlogged: bool,
    /// For `pg_dump --snapshot`.
    pub id: String,
    pub taken_at: Timestamp,
    /// `pg_database_size`.
    pub database_bytes: u64,
    /// The database's own: in another encoding the dump could lose characters.
    pub encoding: String,
    pub guard: Guard,
    /// Objects of this database that the dump does not hold.
    pub left_out: Vec<LeftOut>,
    /// All but the large objects and the estimates, which are counted later.
    pub contents: Contents,
    /// A larger table is not counted, in bytes.
    most: u64,
}

/// What is counted beside `pg_dump`.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub rows: Rows,
    pub large_objects: Option<LargeObjects>,
}

impl Snapshot {
    /// Locks every table of `database`, where they are few, then takes a snapshot and exports it. Unlogged tables
    /// are locked and counted, too, where the server is no standby.
    ///
    /// The locks are the ones that reading takes.
    ///
    /// # Errors
    /// When the server refuses, or a table stays locked for `lock_timeout`.
    pub(crate) async fn take(
        dumps: &Dumps,
        source: &Source,
        database: &str,
        lock_timeout: Duration,
    ) -> Result<Self, DumpError> {
        let unlogged = !source.in_recovery;
        let failed = |source| DumpError::Snapshot {
            database: database.to_owned(),
            source,
        };
        let target = Target {
            database: database.to_owned(),
            ..(&source.postgres).into()
        };
        let connection = postgres::connect(&target, dumps.settings.timeout.min(LONGEST)).await;
        let connection = connection.map_err(failed)?;
        prepare(&connection, lock_timeout).await.map_err(failed)?;
        let guard = begin_with_locks(&connection, database, unlogged).await?;
        const EXPORT: &str = "
            SELECT pg_catalog.pg_export_snapshot() AS id, pg_catalog.clock_timestamp() AS now,
                   pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes,
                   pg_catalog.current_setting('server_encoding') AS encoding,
                   CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                        ELSE pg_catalog.pg_current_wal_insert_lsn() END::text AS lsn";
        let query = |error| failed(of_snapshot(error));
        let row = connection.query_one(EXPORT, &[]).await.map_err(query)?;
        let bytes: i64 = row.try_get("bytes").map_err(query)?;
        if guard == Guard::Snapshot {
            // Tables that were made after the listing. A second lock of the same table takes no room.
            let all = tables(&connection, unlogged).await.map_err(failed)?;
            lock(&connection, database, all).await?;
        }
        let left_out = not_in_dump(&connection, database, unlogged).await;
        let lsn: Option<String> = row.try_get("lsn").map_err(query)?;
        let lsn = lsn.and_then(|lsn| lsn.parse().ok());
        let contents = contents(&connection, lsn, unlogged).await;
        Ok(Self {
            id: row.try_get("id").map_err(query)?,
            taken_at: row.try_get("now").map_err(query)?,
            database_bytes: bytes.cast_unsigned(),
            encoding: row.try_get("encoding").map_err(query)?,
            guard,
            left_out: left_out.map_err(failed)?,
            contents: contents.map_err(failed)?,
            most: u64::from(dumps.settings.count_up_to_mib) << 20,
            connection,
            unlogged,
        })
    }

    /// Tables that were truncated or rewritten after the snapshot was taken and before they were locked: no snapshot keeps
    /// their rows. Once all are locked there will be no more of them.
    ///
    /// # Errors
    /// When the query fails.
    pub(crate) async fn rewritten(&self, database: &str) -> Result<Option<LeftOut>, PostgresError> {
        // The snapshot sees the file that the table had then, the function the file that it has.
        const QUERY: &str = "
            SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname) AS names
              FROM pg_catalog.pg_class AS c
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
               AND pg_catalog.pg_relation_filenode(c.oid) <> c.relfilenode";
        let row = self.connection.query_one(QUERY, &[]).await;
        let row = row.map_err(of_snapshot)?;
        let names: Option<String> = row.try_get("names").map_err(of_snapshot)?;
        Ok(names.map(|names| LeftOut {
            database: Some(database.to_owned()),
            what: format!(
                "rows of tables that were truncated or rewritten while the dump began: {names}"
            ),
        }))
    }

    /// Rows a table, and the large objects, as the snapshot sees them.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) async fn count(&self) -> Result<Counted, PostgresError> {
        let connection = &self.connection;
        Ok(Counted {
            large_objects: Some(large_objects(connection, self.most).await?),
            rows: count_rows_in_transaction(connection, self.unlogged, self.most).await?,
        })
    }

    /// Notes the sequences that moved while the dump was made; to be called after its end.
    ///
    /// Where one was dropped or is locked since, none of them is compared: the dump itself is whole.
    pub(crate) async fn note_moved_sequences(&mut self) {
        match sequences(&self.connection, self.unlogged).await {
            Ok(at_end) => {
                if let Some(begun) = &mut self.contents.sequences {
                    note_moved(begun, &at_end);
                }
            }
            Err(error) => {
                tracing::warn!("the values of sequences are not in the manifest: {error}");
                self.contents.sequences = None;
            }
        }
    }
}

/// What is read before `pg_dump` begins: the sequences' values are the lowest that it can find.
async fn contents(
    connection: &Connection,
    lsn: Option<Lsn>,
    unlogged: bool,
) -> Result<Contents, PostgresError> {
    Ok(Contents {
        lsn,
        extensions: Some(extensions(connection).await?),
        collations: Some(collations(connection).await?),
        sequences: Some(sequences(connection, unlogged).await?),
        ..Contents::default()
    })
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

fn of_snapshot(error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query {
        what: "for a snapshot",
        error,
    }
}

/// Begins the transaction, and locks the tables before it has a snapshot: what TRUNCATE and rewriting did by then is seen
/// as it was committed, and from then on neither can be done.
async fn begin_with_locks(
    connection: &Connection,
    database: &str,
    unlogged: bool,
) -> Result<Guard, DumpError> {
    /// A table may be dropped between the listing and its lock.
    const ATTEMPTS: usize = 3;
    let failed = |source| DumpError::Snapshot {
        database: database.to_owned(),
        source,
    };
    let mut attempt = 1;
    loop {
        let room = room_for_locks(connection).await.map_err(failed)?;
        let listed = tables(connection, unlogged).await.map_err(failed)?;
        let guard = choose_guard(listed.len(), room);
        execute(
            connection,
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        )
        .await
        .map_err(failed)?;
        if guard == Guard::PgDump {
            return Ok(guard);
        }
        match lock(connection, database, listed).await {
            Ok(()) => return Ok(guard),
            Err(DumpError::TableLock { source, .. })
                if attempt < ATTEMPTS && is_dropped(&source) =>
            {
                execute(connection, "ROLLBACK").await.map_err(failed)?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// undefined_table, invalid_schema_name.
fn is_dropped(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Query { error, .. }
        if error.code().is_some_and(|code| ["42P01", "3F000"].contains(&code.code())))
}

/// How many locks the server has room for.
async fn room_for_locks(connection: &Connection) -> Result<u64, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.current_setting('max_locks_per_transaction')::bigint *
               (pg_catalog.current_setting('max_connections')::bigint
                + pg_catalog.current_setting('max_prepared_transactions')::bigint) AS locks";
    let row = connection.query_one(QUERY, &[]).await;
    let locks: i64 = row
        .and_then(|row| row.try_get("locks"))
        .map_err(of_snapshot)?;
    Ok(locks.cast_unsigned())
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
            locked: Box::new(LockedTable {
                database: database.to_owned(),
                table,
                holders: String::new(),
            }),
            source: PostgresError::Query {
                what: "for a lock",
                error,
            },
        })?;
    }
    Ok(())
}

/// Sets what the session needs for a transaction that may take hours.
async fn prepare(connection: &Connection, lock_timeout: Duration) -> Result<(), PostgresError> {
    // By pg_settings: not every release has each of them. A count must end when its client is gone.
    const SETTINGS: &str = "
        SELECT pg_catalog.set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '5s' ELSE '0' END, false)
          FROM pg_catalog.pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'client_connection_check_interval')";
    // One process counts: the rest of the processors is the live server's.
    let pinned = format!(
        "SET row_security = off; SET max_parallel_workers_per_gather = 0; SET lock_timeout = {}",
        lock_timeout.min(LONGEST).as_millis()
    );
    execute(connection, SETTINGS).await?;
    execute(connection, &pinned).await
}

async fn execute(connection: &Connection, statement: &str) -> Result<(), PostgresError> {
    let done = connection.batch_execute(statement).await;
    done.map_err(|error| PostgresError::Query {
        what: "for a transaction",
        error,
    })
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
