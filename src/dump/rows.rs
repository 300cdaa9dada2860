//! The tables whose rows a dump holds, and how many rows each has.

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};

use crate::postgres::{Connection, PostgresError};

/// The rows of each table whose rows `pg_dump` dumps, by its quoted name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub counted: BTreeMap<String, u64>,
    /// Of tables that are too large to be counted; `None` for one that was never analyzed.
    pub estimated: BTreeMap<String, Option<u64>>,
}

impl Rows {
    fn add(&mut self, table: String, count: Count) {
        match count {
            Count::Exact(rows) => drop(self.counted.insert(table, rows)),
            Count::Estimate(rows) => drop(self.estimated.insert(table, rows)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Count {
    Exact(u64),
    Estimate(Option<u64>),
}

/// Counts the rows of every table whose rows `pg_dump` dumps, by its quoted name; on a standby not the `unlogged` ones.
///
/// # Errors
/// When a table cannot be read.
pub(super) async fn count_rows(
    connection: &Connection,
    unlogged: bool,
) -> Result<BTreeMap<String, u64>, PostgresError> {
    let mut rows = Rows::default();
    for table in tables(connection, unlogged).await? {
        let counted = count(connection, &table, u64::MAX).await?;
        rows.add(table, counted);
    }
    Ok(rows.counted)
}

/// As [`count_rows`], within a longer transaction, and only tables of at most `most` bytes. The locks of each table and its
/// indexes are released once it is counted: kept until the end, they would fill the server's lock table.
///
/// # Errors
/// When a table cannot be read.
pub(super) async fn count_rows_in_transaction(
    connection: &Connection,
    unlogged: bool,
    most: u64,
) -> Result<Rows, PostgresError> {
    let mut rows = Rows::default();
    for table in tables(connection, unlogged).await? {
        execute(connection, "SAVEPOINT counted").await?;
        let counted = count(connection, &table, most).await?;
        execute(
            connection,
            "ROLLBACK TO SAVEPOINT counted; RELEASE SAVEPOINT counted",
        )
        .await?;
        rows.add(table, counted);
    }
    Ok(rows)
}

/// Reads a table only where it takes at most `most` bytes on disk, TOAST and indexes apart.
async fn count(connection: &Connection, table: &str, most: u64) -> Result<Count, PostgresError> {
    let query = format!(
        "SELECT pg_catalog.count(*) AS rows, pg_catalog.pg_relation_size($1::text::pg_catalog.regclass) <= $2 AS is_counted,
                (SELECT CASE WHEN reltuples >= 0 THEN reltuples::bigint END
                   FROM pg_catalog.pg_class WHERE oid = $1::text::pg_catalog.regclass) AS estimate
           FROM ONLY {table}
          WHERE (SELECT pg_catalog.pg_relation_size($1::text::pg_catalog.regclass)) <= $2"
    );
    let failed = |error| PostgresError::Query {
        what: "how many rows a table has",
        error,
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::TEXT), (&most, Type::INT8)];
    let rows = connection.query_typed(&query, &parameters).await;
    let rows = rows.map_err(failed)?;
    let row = rows.first().ok_or(PostgresError::Answer { what: "rows" })?;
    let number =
        |number: i64| u64::try_from(number).map_err(|_| PostgresError::Answer { what: "rows" });
    if row.try_get("is_counted").map_err(failed)? {
        let counted = row.try_get("rows").map_err(failed)?;
        return Ok(Count::Exact(number(counted)?));
    }
    let estimate: Option<i64> = row.try_get("estimate").map_err(failed)?;
    Ok(Count::Estimate(estimate.map(number).transpose()?))
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
