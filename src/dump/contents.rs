//! What a database holds besides the rows of its tables, as the manifest records it and a dump test compares it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rows::count_rows;
use crate::model::Lsn;
use crate::postgres::{Connection, PostgresError};

/// The part of a manifest about one database that older versions of xdb did not write: each `None` was not recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// WAL position of the snapshot: everything that the dump holds was committed at or before it. On a standby it is the
    /// replayed position.
    pub lsn: Option<Lsn>,
    /// The primary, as `host:port`, where this database was dumped from it because recovery conflicts ended its dumps on
    /// the standby.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dumped_from: Option<String>,
    /// Tables above `dump.count_up_to_mib`, which were not counted, with the planner's estimate (`pg_class.reltuples`);
    /// `None` for a table that was never analyzed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub estimated_rows: BTreeMap<String, Option<u64>>,
    /// Versions of the extensions, by name (`pg_extension`).
    pub extensions: Option<BTreeMap<String, String>>,
    /// The versions of the collations that the database uses, by quoted name; its own default is `pg_catalog."default"`.
    pub collations: Option<BTreeMap<String, CollationVersion>>,
    /// Sequences by quoted name.
    pub sequences: Option<BTreeMap<String, Sequence>>,
    pub large_objects: Option<LargeObjects>,
}

/// A collation's version when its objects were built, and that of the library of the node that dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CollationVersion {
    /// `collversion` or `datcollversion`.
    pub recorded: Option<String>,
    /// `pg_collation_actual_version`.
    pub actual: Option<String>,
}

/// A sequence's state. Sequences ignore snapshots: a dump holds the value of the moment when `pg_dump` read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sequence {
    /// `last_value` when the snapshot was taken.
    pub value: i64,
    pub is_called: bool,
    /// `last_value` when the dump ended, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_at_end: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LargeObjects {
    pub number: u64,
    /// Of their contents, holes included. `None` where they are above `dump.count_up_to_mib`, and where the role cannot read them.
    pub bytes: Option<u64>,
}

/// What a manifest records of a database, read from the restored one of `connection`: the rows of each table, and the rest.
///
/// # Errors
/// When something cannot be read.
pub(crate) async fn read_restored(
    connection: &Connection,
    unlogged: bool,
) -> Result<(BTreeMap<String, u64>, Contents), PostgresError> {
    let rows = count_rows(connection, unlogged).await?;
    let failed = |error| query_failed("for a transaction", error);
    let begun = connection.batch_execute("BEGIN READ ONLY").await;
    begun.map_err(failed)?;
    let contents = Contents {
        extensions: Some(extensions(connection).await?),
        collations: Some(collations(connection).await?),
        sequences: Some(sequences(connection, unlogged).await?),
        large_objects: Some(large_objects(connection, u64::MAX).await?),
        ..Contents::default()
    };
    let ended = connection.batch_execute("COMMIT").await;
    ended.map_err(failed)?;
    Ok((rows, contents))
}

/// The versions of the extensions in the database of `connection`.
///
/// # Errors
/// When the query fails.
pub(super) async fn extensions(
    connection: &Connection,
) -> Result<BTreeMap<String, String>, PostgresError> {
    const QUERY: &str =
        "SELECT extname::text AS name, extversion AS version FROM pg_catalog.pg_extension";
    let failed = |error| query_failed("for its extensions", error);
    let rows = connection.query(QUERY, &[]).await.map_err(failed)?;
    let named = rows
        .iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("version")?)));
    named.collect::<Result<_, _>>().map_err(failed)
}

/// The versions of the default collation, and of those that an object of the database uses.
///
/// # Errors
/// When the query fails.
pub(super) async fn collations(
    connection: &Connection,
) -> Result<BTreeMap<String, CollationVersion>, PostgresError> {
    // initdb imports hundreds of collations; pg_depend names those in use.
    const QUERY: &str = "
        SELECT 'pg_catalog.\"default\"' AS name, d.datcollversion AS recorded,
               pg_catalog.pg_database_collation_actual_version(d.oid) AS actual
          FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
        UNION ALL
        SELECT pg_catalog.format('%I.%I', n.nspname, c.collname), c.collversion,
               pg_catalog.pg_collation_actual_version(c.oid)
          FROM pg_catalog.pg_collation AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
         WHERE c.collprovider <> 'd'
           AND (c.oid >= 16384
                OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.refobjid = c.oid))";
    let failed = |error| query_failed("for its collations", error);
    let rows = connection.query(QUERY, &[]).await.map_err(failed)?;
    let versions = rows.iter().map(|row| {
        let version = CollationVersion {
            recorded: row.try_get("recorded")?,
            actual: row.try_get("actual")?,
        };
        Ok((row.try_get("name")?, version))
    });
    versions.collect::<Result<_, _>>().map_err(failed)
}

/// The sequences whose values `pg_dump` writes, within a transaction that must not keep a lock on each of them: no system
/// schema's, no extension's own; on a standby not the `unlogged` ones.
///
/// # Errors
/// When a sequence cannot be read.
pub(super) async fn sequences(
    connection: &Connection,
    unlogged: bool,
) -> Result<BTreeMap<String, Sequence>, PostgresError> {
    /// So many are read by one query, and locked at once.
    const AT_ONCE: usize = 50;
    const QUERY: &str = "
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
               pg_catalog.format('SELECT %L AS name, last_value, is_called FROM %I.%I',
                                 pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname, c.relname) AS query
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S'
           AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
           AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND $1)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                              AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY name";
    let failed = |error| query_failed("for its sequences", error);
    let listed = connection.query(QUERY, &[&unlogged]).await;
    let queries: Result<Vec<String>, _> = listed
        .map_err(failed)?
        .iter()
        .map(|row| row.try_get("query").map_err(failed))
        .collect();
    let mut sequences = BTreeMap::new();
    for some in queries?.chunks(AT_ONCE) {
        let begun = connection.batch_execute("SAVEPOINT sequences").await;
        begun.map_err(failed)?;
        let rows = connection.query(&some.join(" UNION ALL "), &[]).await;
        for row in rows.map_err(failed)? {
            let sequence = Sequence {
                value: row.try_get("last_value").map_err(failed)?,
                is_called: row.try_get("is_called").map_err(failed)?,
                value_at_end: None,
            };
            sequences.insert(row.try_get("name").map_err(failed)?, sequence);
        }
        let released = "ROLLBACK TO SAVEPOINT sequences; RELEASE SAVEPOINT sequences";
        connection.batch_execute(released).await.map_err(failed)?;
    }
    Ok(sequences)
}

/// Notes in `sequences` which of them moved until `at_end`.
pub(super) fn note_moved(
    sequences: &mut BTreeMap<String, Sequence>,
    at_end: &BTreeMap<String, Sequence>,
) {
    for (name, sequence) in sequences {
        if let Some(ended) = at_end.get(name) {
            let moved = (ended.value, ended.is_called) != (sequence.value, sequence.is_called);
            sequence.value_at_end = moved.then_some(ended.value);
        }
    }
}

/// The number of large objects, and the bytes of those that take at most `most` bytes on disk.
///
/// # Errors
/// When the query fails.
pub(super) async fn large_objects(
    connection: &Connection,
    most: u64,
) -> Result<LargeObjects, PostgresError> {
    const NUMBER: &str = "
        SELECT pg_catalog.count(*) AS number,
               pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
                   AND pg_catalog.pg_relation_size('pg_catalog.pg_largeobject') <= $1 AS readable
          FROM pg_catalog.pg_largeobject_metadata";
    // By the last page of each: pages of zeros may be missing before it, and a restored object has them (LOBLKSIZE).
    const BYTES: &str = "
        WITH last AS (SELECT loid, pg_catalog.max(pageno) AS pageno FROM pg_catalog.pg_largeobject GROUP BY loid)
        SELECT coalesce(pg_catalog.sum(p.pageno::bigint * (pg_catalog.current_setting('block_size')::bigint / 4)
                                       + pg_catalog.octet_length(p.data)), 0)::bigint AS bytes
          FROM pg_catalog.pg_largeobject AS p JOIN last USING (loid, pageno)";
    let failed = |error| query_failed("for its large objects", error);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let row = connection.query_one(NUMBER, &[&most]).await;
    let row = row.map_err(failed)?;
    let number: i64 = row.try_get("number").map_err(failed)?;
    let mut bytes = None;
    if row.try_get("readable").map_err(failed)? {
        let row = connection.query_one(BYTES, &[]).await.map_err(failed)?;
        let counted: i64 = row.try_get("bytes").map_err(failed)?;
        bytes = Some(counted.cast_unsigned());
    }
    Ok(LargeObjects {
        number: number.cast_unsigned(),
        bytes,
    })
}

fn query_failed(what: &'static str, error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_moved_during_the_dump_has_both_values() {
        let sequence = |value, is_called| Sequence {
            value,
            is_called,
            value_at_end: None,
        };
        let named = |sequences: [(&str, Sequence); 3]| {
            BTreeMap::from(sequences.map(|(name, sequence)| (name.to_owned(), sequence)))
        };
        let mut begun = named([
            ("still", sequence(7, true)),
            ("moved", sequence(7, true)),
            // The first nextval() leaves last_value as it was.
            ("first", sequence(1, false)),
        ]);
        let ended = named([
            ("still", sequence(7, true)),
            ("moved", sequence(9, true)),
            ("first", sequence(1, true)),
        ]);
        note_moved(&mut begun, &ended);
        let at_end = |name: &str| begun[name].value_at_end;
        assert_eq!(
            (at_end("still"), at_end("moved"), at_end("first")),
            (None, Some(9), Some(1))
        );
    }
}
