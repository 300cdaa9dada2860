//! Every table read: each row once by sequential scan, and once more through the primary key.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use super::rows::Counts;
use crate::model::Verdict;
use crate::postgres::{self, Connection, PostgresError};
use crate::restore::server::ScratchServer;

/// Names in one reason; the rest are counted.
const NAMED: usize = 3;

struct Table {
    /// Schema-qualified and quoted.
    name: String,
    /// The primary key's columns, quoted; empty where there is none.
    key: String,
    bytes: u64,
}

/// What reading every table came to.
pub struct ReadTables {
    pub verdict: Verdict,
    /// What the tables hold, with their indexes.
    pub bytes: u64,
    /// The rows of each; without a limit where they could not be read.
    pub counts: Counts,
}

/// Reads every table and materialized view of every database.
///
/// The sequential scan prints every column, which fetches what was stored out of line. The second pass finds rows
/// whose heap page is missing: PostgreSQL takes a relation that lost its last segment for a shorter one.
///
/// # Errors
/// When the list of databases or tables cannot be read.
pub async fn check_tables(server: &ScratchServer) -> Result<ReadTables, PostgresError> {
    let (mut bytes, mut broken, mut counts) = (0, Vec::new(), Counts::new());
    let connection = postgres::connect(&server.target("template1"), Duration::ZERO).await?;
    for database in databases(&connection).await? {
        let connection = postgres::connect(&server.target(&database), Duration::ZERO).await?;
        run(&connection, "to read tables", PLANNER).await?;
        let counted = counts.entry(database.clone()).or_default();
        for table in tables(&connection).await? {
            bytes += table.bytes;
            let (rows, reason) = read(&connection, &table).await?;
            // One that cannot be read is named once.
            counted.insert(table.name.clone(), rows.unwrap_or(u64::MAX));
            broken.extend(reason.map(|reason| format!("{database}: {}: {reason}", table.name)));
        }
    }
    let verdict = if broken.is_empty() {
        Verdict::Ok
    } else {
        Verdict::Critical(summary(&broken))
    };
    Ok(ReadTables {
        verdict,
        bytes,
        counts,
    })
}

/// Leaves nothing but an index scan that visits the heap for a query that is ordered by an index.
const PLANNER: &str = "
    SET enable_seqscan = off; SET enable_sort = off; SET enable_incremental_sort = off; SET enable_bitmapscan = off;
    SET enable_indexonlyscan = off; SET max_parallel_workers_per_gather = 0; SET row_security = off";

/// The rows of `table`, where they can be read, and what is wrong with it.
///
/// # Errors
/// When the server went away meanwhile, which says nothing of the table.
async fn read(
    connection: &Connection,
    table: &Table,
) -> Result<(Option<u64>, Option<String>), PostgresError> {
    let scan = format!("COPY (SELECT * FROM {}) TO '/dev/null'", table.name);
    let rows = match run(connection, "to read a table", &scan).await {
        Ok(rows) => rows,
        Err(error) if connection.is_closed() => return Err(error),
        Err(error) => return Ok((None, Some(error.to_string()))),
    };
    if table.key.is_empty() {
        return Ok((Some(rows), None));
    }
    let ordered = format!(
        "COPY (SELECT * FROM {} ORDER BY {}) TO '/dev/null'",
        table.name, table.key
    );
    let reason = match run(connection, "to read a table by its primary key", &ordered).await {
        Ok(keyed) if keyed == rows => None,
        Ok(keyed) => Some(format!(
            "{rows} rows by sequential scan, {keyed} through the primary key"
        )),
        Err(error) if connection.is_closed() => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    Ok((Some(rows), reason))
}

async fn databases(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    const QUERY: &str =
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname";
    let what = "for its databases";
    let rows = connection
        .query(QUERY, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    rows.iter()
        .map(|row| {
            row.try_get("datname")
                .map_err(|_| PostgresError::Answer { what })
        })
        .collect()
}

async fn tables(connection: &Connection) -> Result<Vec<Table>, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
               pg_catalog.pg_total_relation_size(c.oid) AS bytes,
               coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.position)
                           FROM pg_catalog.pg_index AS i,
                                pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position),
                                pg_catalog.pg_attribute AS a
                          -- INCLUDE columns are no part of the key, and would make PostgreSQL sort.
                          WHERE k.position <= i.indnkeyatts AND i.indrelid = c.oid AND i.indisprimary AND i.indisvalid
                            AND a.attrelid = c.oid AND a.attnum = k.attnum), '') AS key
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relispopulated
         ORDER BY 1";
    let what = "for its tables";
    let rows = connection
        .query(QUERY, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let table = |row: &tokio_postgres::Row| -> Result<Table, tokio_postgres::Error> {
        let bytes: i64 = row.try_get("bytes")?;
        Ok(Table {
            name: row.try_get("name")?,
            key: row.try_get("key")?,
            bytes: bytes.cast_unsigned(),
        })
    };
    rows.iter()
        .map(|row| table(row).map_err(|_| PostgresError::Answer { what }))
        .collect()
}

/// Runs statements without parameters, and returns how many rows the last one touched.
async fn run(
    connection: &Connection,
    what: &'static str,
    statements: &str,
) -> Result<u64, PostgresError> {
    let messages = connection
        .simple_query(statements)
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let rows = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    Ok(rows.unwrap_or_default())
}

fn summary(broken: &[String]) -> String {
    let named = broken
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if broken.len() > NAMED {
        format!("{named}; and {} more tables", broken.len() - NAMED)
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_a_few_and_counts_the_rest() {
        let broken: Vec<String> = (1..=5).map(|n| format!("t{n}")).collect();
        assert_eq!(summary(&broken), "t1; t2; t3; and 2 more tables");
        assert_eq!(summary(&broken[..1]), "t1");
    }
}
