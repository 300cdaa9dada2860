//! Every table read: each row once by sequential scan, and once more through the primary key.

use std::collections::BTreeMap;

use tokio_postgres::{Row, SimpleQueryMessage};

use super::databases::{CopiedDatabase, Name, name_bytes};
use super::object_findings::ObjectFindings;
use super::rows::RestoredRows;
use crate::postgres::{Connection, PostgresError};
use crate::restore::recover::ScratchServer;

struct Table {
    oid: u32,
    /// Schema-qualified and quoted.
    name: Name,
    /// The primary key's columns, quoted; empty without a primary key.
    key: Name,
    bytes: u64,
}

/// The result of reading every table.
#[derive(Default)]
pub(crate) struct ReadTables {
    pub findings: ObjectFindings,
    /// What the tables hold, with their indexes.
    pub bytes: u64,
    pub counts: RestoredRows,
}

/// Reads every table and materialized view of `databases`.
///
/// The sequential scan reads every column, which fetches what was stored out of line. The second pass finds rows
/// whose heap page is missing: PostgreSQL takes a relation that lost its last segment for a shorter one.
/// What cannot be read keeps no other table and no other database from being read.
pub(crate) async fn check_tables(
    server: &ScratchServer,
    databases: &[CopiedDatabase],
) -> ReadTables {
    let mut read = ReadTables::default();
    for database in databases {
        let counted = match database.enter(server, &mut read.findings).await {
            Some(connection) => read_database(server, database, connection, &mut read).await,
            None => None,
        };
        read.counts.insert(database.name.clone(), counted);
    }
    read
}

/// Leaves nothing but an index scan that visits the heap for a query that is ordered by an index.
const PLANNER: &str = "
    SET enable_seqscan = off; SET enable_sort = off; SET enable_incremental_sort = off; SET enable_bitmapscan = off;
    SET enable_indexonlyscan = off; SET max_parallel_workers_per_gather = 0; SET row_security = off";

/// The rows of each table of `database`; `None` where its tables are not known.
async fn read_database(
    server: &ScratchServer,
    database: &CopiedDatabase,
    connection: Connection,
    read: &mut ReadTables,
) -> Option<BTreeMap<String, Option<u64>>> {
    let mut connection = connection;
    let listed = match run(&connection, "to read tables", PLANNER).await {
        Ok(_) => tables(&connection).await,
        Err(error) => Err(error),
    };
    let listed = listed.map_err(|error| read.findings.check_failed(&database.name, &error));
    let mut counted = BTreeMap::new();
    for table in listed.ok()? {
        read.bytes += table.bytes;
        let object = format!("{}: {}", database.name, table.name.text);
        let rows = read_table(&connection, &table, &object, &mut read.findings).await;
        counted.insert(table.name.text, rows);
        if connection.is_closed() {
            // A table that ends the session keeps no other from being read.
            match reconnect(server, database).await {
                Ok(opened) => connection = opened,
                Err(error) => {
                    read.findings.check_failed(&database.name, &error);
                    break;
                }
            }
        }
    }
    Some(counted)
}

async fn reconnect(
    server: &ScratchServer,
    database: &CopiedDatabase,
) -> Result<Connection, PostgresError> {
    let connection = database.enter_again(server).await?;
    run(&connection, "to read tables", PLANNER).await?;
    Ok(connection)
}

/// Reads `table`, and adds what is wrong with it to `findings`; returns its rows where they could be read.
async fn read_table(
    connection: &Connection,
    table: &Table,
    object: &str,
    findings: &mut ObjectFindings,
) -> Option<u64> {
    let rows = match scan(connection, table).await {
        Ok(rows) => rows,
        Err(error) => {
            findings.check_failed(object, &error);
            return None;
        }
    };
    if table.key.text.is_empty() {
        return Some(rows);
    }
    if !(table.name.is_exact && table.key.is_exact) {
        let reason = "not read through its primary key: its name is not UTF-8";
        findings.excused(object, reason);
        return Some(rows);
    }
    let ordered = copy_of("1", &table.name.text, &table.key.text, BINARY);
    match run(connection, "to read a table by its primary key", &ordered).await {
        Ok(keyed) if keyed == rows => {}
        Ok(keyed) => findings.damaged(
            object,
            &format!("{rows} rows by sequential scan, {keyed} through the primary key"),
        ),
        Err(error) => findings.check_failed(object, &error),
    }
    Some(rows)
}

/// As they are stored: text would need twice the room of a `bytea`, beyond what PostgreSQL can build in one value.
const BINARY: &str = "FORMAT binary";
const TEXT: &str = "FORMAT text";

/// Without `ONLY` the rows of children would count, and a foreign one would be asked from its server.
fn copy_of(columns: &str, table: &str, key: &str, format: &str) -> String {
    let ordered = if key.is_empty() {
        String::new()
    } else {
        format!(" ORDER BY {key}")
    };
    // Bytes are bytes: they are not converted, so they need not be valid in any encoding.
    format!(
        "SET LOCAL client_encoding = 'SQL_ASCII'; \
         COPY (SELECT {columns} FROM ONLY {table}{ordered}) TO '/dev/null' ({format})"
    )
}

/// The same for a table whose name cannot be written in a query.
fn copy_by_oid(oid: u32, format: &str) -> String {
    format!(
        "SET LOCAL client_encoding = 'SQL_ASCII'; \
         DO $xdb$ DECLARE n pg_catalog.int8; BEGIN \
           EXECUTE pg_catalog.format('COPY (SELECT * FROM ONLY %s) TO ''/dev/null'' ({format})', \
                                     {oid}::pg_catalog.oid::pg_catalog.regclass); \
           GET DIAGNOSTICS n = ROW_COUNT; \
           PERFORM pg_catalog.set_config('xdb.rows', n::pg_catalog.text, true); \
         END $xdb$; \
         COPY (SELECT FROM pg_catalog.generate_series(1, pg_catalog.current_setting('xdb.rows')::pg_catalog.int8)) TO '/dev/null'"
    )
}

/// Reads all of `table`; returns its rows.
async fn scan(connection: &Connection, table: &Table) -> Result<u64, PostgresError> {
    let what = "to read a table";
    let copy = |format| match table.name.is_exact {
        true => copy_of("*", &table.name.text, "", format),
        false => copy_by_oid(table.oid, format),
    };
    let mut read = run(connection, what, &copy(BINARY)).await;
    if matches!(&read, Err(error) if lacks_binary_output(error)) {
        read = run(connection, what, &copy(TEXT)).await;
    }
    match read {
        Err(error) if is_too_long(&error) && table.name.is_exact => {
            scan_by_column(connection, table).await
        }
        read => read,
    }
}

/// A row of several large values is longer than PostgreSQL can build; each value alone is not.
async fn scan_by_column(connection: &Connection, table: &Table) -> Result<u64, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.quote_ident(attname) AS name FROM pg_catalog.pg_attribute
         WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let what = "to read a table by its columns";
    let failed = |error| PostgresError::Query { what, error };
    let columns = connection.query(QUERY, &[&table.oid]).await;
    let mut rows = 0;
    for column in columns.map_err(failed)? {
        let column: &str = column.try_get("name").map_err(failed)?;
        let copy = |format| copy_of(column, &table.name.text, "", format);
        rows = match run(connection, what, &copy(BINARY)).await {
            Err(error) if lacks_binary_output(&error) => run(connection, what, &copy(TEXT)).await?,
            read => read?,
        };
    }
    Ok(rows)
}

/// Some types have none: `aclitem`, and those of some extensions.
fn lacks_binary_output(error: &PostgresError) -> bool {
    let words = "no binary output function available";
    matches!(error, PostgresError::Query { error, .. }
        if error.as_db_error().is_some_and(|answer| answer.message().starts_with(words)))
}

/// `program_limit_exceeded`: more than 1 GiB in one buffer.
fn is_too_long(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Query { error, .. }
        if error.code().is_some_and(|code| code.code() == "54000"))
}

async fn tables(connection: &Connection) -> Result<Vec<Table>, PostgresError> {
    let name = name_bytes("pg_catalog.format('%I.%I', n.nspname, c.relname)");
    let key = name_bytes("coalesce(k.key, '')");
    let query = format!(
        "SELECT c.oid, {name} AS name, pg_catalog.pg_total_relation_size(c.oid) AS bytes, {key} AS key
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          LEFT JOIN LATERAL (
                SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.position) AS key
                  FROM pg_catalog.pg_index AS i,
                       pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position),
                       pg_catalog.pg_attribute AS a
                 -- INCLUDE columns are no part of the key, and would make PostgreSQL sort.
                 WHERE k.position <= i.indnkeyatts AND i.indrelid = c.oid AND i.indisprimary AND i.indisvalid
                   AND a.attrelid = c.oid AND a.attnum = k.attnum) AS k ON true
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relispopulated
         ORDER BY n.nspname, c.relname"
    );
    let what = "for its tables";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let table = |row: &Row| -> Result<Table, tokio_postgres::Error> {
        let bytes: Option<i64> = row.try_get("bytes")?;
        Ok(Table {
            oid: row.try_get("oid")?,
            name: Name::get(row, "name")?,
            key: Name::get(row, "key")?,
            bytes: bytes.unwrap_or_default().cast_unsigned(),
        })
    };
    rows.iter().map(|row| table(row).map_err(failed)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_alone_and_as_it_is_stored() {
        assert_eq!(
            copy_of("1", "public.orders", "id, at", BINARY),
            "SET LOCAL client_encoding = 'SQL_ASCII'; \
             COPY (SELECT 1 FROM ONLY public.orders ORDER BY id, at) TO '/dev/null' (FORMAT binary)"
        );
        assert!(
            copy_of("*", "public.orders", "", TEXT)
                .ends_with("public.orders) TO '/dev/null' (FORMAT text)")
        );
    }
}
