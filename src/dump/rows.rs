//! The tables whose rows a dump holds, and how many rows each has.

use std::collections::BTreeMap;

use crate::postgres::{Connection, PostgresError};

/// Counts the rows of every table whose rows `pg_dump` dumps, by its quoted name; on a standby not the `unlogged` ones.
///
/// # Errors
/// When a table cannot be read.
pub(crate) async fn count_rows(
    connection: &Connection,
    unlogged: bool,
) -> Result<BTreeMap<String, u64>, PostgresError> {
    let mut rows = BTreeMap::new();
    for table in tables(connection, unlogged).await? {
        let counted = count(connection, &table).await?;
        rows.insert(table, counted);
    }
    Ok(rows)
}

/// As [`count_rows`], within a longer transaction. The locks of each table and its indexes are released once it is counted:
/// kept until the end, they would fill the server's lock table.
///
/// # Errors
/// When a table cannot be read.
pub(super) async fn count_rows_in_transaction(
    connection: &Connection,
    unlogged: bool,
) -> Result<BTreeMap<String, u64>, PostgresError> {
    let mut rows = BTreeMap::new();
    for table in tables(connection, unlogged).await? {
        execute(connection, "SAVEPOINT counted").await?;
        let counted = count(connection, &table).await?;
        execute(
            connection,
            "ROLLBACK TO SAVEPOINT counted; RELEASE SAVEPOINT counted",
        )
        .await?;
        rows.insert(table, counted);
    }
    Ok(rows)
}

async fn count(connection: &Connection, table: &str) -> Result<u64, PostgresError> {
    let count = format!("SELECT pg_catalog.count(*) AS rows FROM ONLY {table}");
    let what = "how many rows a table has";
    let failed = |error| PostgresError::Query { what, error };
    let row = connection.query_one(&count, &[]).await.map_err(failed)?;
    let counted: i64 = row.try_get("rows").map_err(failed)?;
    u64::try_from(counted).map_err(|_| PostgresError::Answer { what: "rows" })
}

async fn execute(connection: &Connection, statements: &str) -> Result<(), PostgresError> {
    let what = "to count in a part of its transaction";
    let done = connection.batch_execute(statements).await;
    done.map_err(|error| PostgresError::Query { what, error })
}

/// The tables whose rows `pg_dump` dumps: no system schema's, no extension's own.
pub(super) async fn tables(
    connection: &Connection,
    unlogged: bool,
) -> Result<Vec<String>, PostgresError> {
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
