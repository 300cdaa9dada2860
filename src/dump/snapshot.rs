//! One database's snapshot: what `pg_dump` dumps, and how many rows that is.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::DumpError;
use crate::config::Config;
use crate::postgres::{self, Connection, PostgresError, Target};

/// PostgreSQL counts its timeouts in milliseconds, in 31 bits.
const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

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
}

impl Snapshot {
    /// Begins a transaction in `database`, exports its snapshot, and holds every table that it sees; `unlogged` ones, too?
    ///
    /// The locks are the ones that reading takes. Without them a TRUNCATE, which no snapshot holds off, could fall
    /// between the counting and the dump.
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
                   pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes";
        let query = |error| {
            failed(PostgresError::Query {
                what: "for a snapshot",
                error,
            })
        };
        let row = connection.query_one(EXPORT, &[]).await.map_err(query)?;
        let bytes: i64 = row.try_get("bytes").map_err(query)?;
        let snapshot = Self {
            id: row.try_get("id").map_err(query)?,
            taken_at: row.try_get("now").map_err(query)?,
            database_bytes: bytes.cast_unsigned(),
            connection,
            unlogged,
        };
        for table in tables(&snapshot.connection, unlogged)
            .await
            .map_err(failed)?
        {
            let lock = format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE");
            let locked = snapshot.connection.batch_execute(&lock).await;
            locked.map_err(|error| DumpError::TableLock {
                database: database.to_owned(),
                table,
                source: PostgresError::Query {
                    what: "for a lock",
                    error,
                },
            })?;
        }
        Ok(snapshot)
    }

    /// Rows a table as the snapshot sees them.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn rows(&self) -> Result<BTreeMap<String, u64>, PostgresError> {
        count_rows(&self.connection, self.unlogged).await
    }
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

/// Counts the rows of every table whose rows `pg_dump` dumps, by its quoted name; on a standby not the `unlogged` ones.
///
/// # Errors
/// When a table cannot be read.
pub async fn count_rows(
    connection: &Connection,
    unlogged: bool,
) -> Result<BTreeMap<String, u64>, PostgresError> {
    let mut rows = BTreeMap::new();
    for table in tables(connection, unlogged).await? {
        let count = format!("SELECT pg_catalog.count(*) AS rows FROM ONLY {table}");
        let what = "how many rows a table has";
        let failed = |error| PostgresError::Query { what, error };
        let row = connection.query_one(&count, &[]).await.map_err(failed)?;
        let counted: i64 = row.try_get("rows").map_err(failed)?;
        let counted = u64::try_from(counted).map_err(|_| PostgresError::Answer { what: "rows" })?;
        rows.insert(table, counted);
    }
    Ok(rows)
}

/// The tables whose rows `pg_dump` dumps: no system schema's, no extension's own.
async fn tables(connection: &Connection, unlogged: bool) -> Result<Vec<String>, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r'
           AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
           AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND $1)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                              AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY name";
    let failed = |error| PostgresError::Query {
        what: "for its tables",
        error,
    };
    let rows = connection
        .query(QUERY, &[&unlogged])
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| row.try_get("name").map_err(failed))
        .collect()
}

/// The role that initdb made, whatever it is called by now.
///
/// # Errors
/// When the query fails.
pub async fn superuser(connection: &Connection) -> Result<String, PostgresError> {
    // BOOTSTRAP_SUPERUSERID.
    const QUERY: &str = "SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE oid = 10";
    let failed = |error| PostgresError::Query {
        what: "for its superuser",
        error,
    };
    let row = connection.query_one(QUERY, &[]).await.map_err(failed)?;
    row.try_get("name").map_err(failed)
}

/// Every database that can be dumped: takes connections, and is no template.
///
/// # Errors
/// When the query fails.
pub async fn databases(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    // A limit of -2 marks what an interrupted DROP DATABASE left.
    const QUERY: &str = "
        SELECT datname::text AS name FROM pg_catalog.pg_database
         WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2
         ORDER BY datname";
    let failed = |error| PostgresError::Query {
        what: "for its databases",
        error,
    };
    let rows = connection.query(QUERY, &[]).await.map_err(failed)?;
    rows.iter()
        .map(|row| row.try_get("name").map_err(failed))
        .collect()
}
