//! Every heap and B-tree checked by PostgreSQL's extension `amcheck`, one at a time.
//!
//! `pg_amcheck` runs the same checks and shows no SQLSTATE: its report does not tell a corrupt index from one whose function fails,
//! and a database that cannot be entered ends it.

use tokio_postgres::{Row, SimpleQueryMessage};

use super::databases::{CopiedDatabase, Name, name_bytes};
use super::object_findings::ObjectFindings;
use crate::postgres::{Connection, PostgresError};
use crate::restore::recover::{ErrorCause, ScratchServer, error_cause, error_words};

/// Findings of one heap that its reason holds.
const FINDINGS: usize = 2;

struct Relation {
    oid: u32,
    name: Name,
    is_index: bool,
}

/// Checks every heap and B-tree of `databases`, and where `every_row` that each heap row is in its indexes.
pub(crate) async fn check_amcheck(
    server: &ScratchServer,
    databases: &[CopiedDatabase],
    every_row: bool,
) -> ObjectFindings {
    let mut findings = ObjectFindings::default();
    for database in databases {
        if let Some(connection) = database.enter(server, &mut findings).await {
            check_database(server, database, connection, every_row, &mut findings).await;
        }
    }
    findings
}

async fn check_database(
    server: &ScratchServer,
    database: &CopiedDatabase,
    connection: Connection,
    every_row: bool,
    findings: &mut ObjectFindings,
) {
    let mut connection = connection;
    let listed = match install(&connection).await {
        Ok(schema) => relations(&connection).await.map(|all| (schema, all)),
        Err(error) => Err(error),
    };
    let (schema, relations) = match listed {
        Ok(listed) => listed,
        Err(error) => return findings.check_failed(&database.name, &error),
    };
    for relation in relations {
        let object = format!("{}: {}", database.name, relation.name.text);
        let check = Check {
            connection: &connection,
            schema: &schema,
            oid: relation.oid,
        };
        match relation.is_index {
            true => check.index(&object, every_row, findings).await,
            false => check.heap(&object, findings).await,
        }
        if connection.is_closed() {
            match database.enter_again(server).await {
                Ok(opened) => connection = opened,
                Err(error) => return findings.check_failed(&database.name, &error),
            }
        }
    }
}

/// The quoted schema of the extension, which is made or brought up to date.
async fn install(connection: &Connection) -> Result<String, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.quote_ident(n.nspname) AS schema
          FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
         WHERE e.extname = 'amcheck'";
    let what = "for amcheck";
    let failed = |error| PostgresError::Query { what, error };
    let installed = connection.query_opt(QUERY, &[]).await.map_err(failed)?;
    if let Some(row) = installed {
        // One of an older server lacks functions; where it cannot be brought up to date, those say so.
        let _ = connection
            .batch_execute("ALTER EXTENSION amcheck UPDATE")
            .await;
        return row.try_get("schema").map_err(failed);
    }
    let create = "CREATE EXTENSION amcheck WITH SCHEMA pg_catalog";
    connection.batch_execute(create).await.map_err(failed)?;
    Ok("pg_catalog".to_owned())
}

/// Heaps with sequences and what is stored out of line, then B-trees.
async fn relations(connection: &Connection) -> Result<Vec<Relation>, PostgresError> {
    let query = format!(
        "SELECT c.oid, {} AS name, c.relkind = 'i' AS is_index
           FROM pg_catalog.pg_class AS c
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
          WHERE c.relpersistence <> 't'
            -- The access methods heap and btree.
            AND (c.relkind IN ('r', 'm', 't') AND c.relam = 2 OR c.relkind = 'S'
                 OR c.relkind = 'i' AND c.relam = 403 AND i.indisready AND i.indisvalid AND i.indislive)
          ORDER BY c.relkind = 'i', n.nspname, c.relname",
        name_bytes("pg_catalog.format('%I.%I', n.nspname, c.relname)")
    );
    let what = "for what amcheck can check";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let relation = |row: &Row| -> Result<Relation, tokio_postgres::Error> {
        Ok(Relation {
            oid: row.try_get("oid")?,
            name: Name::get(row, "name")?,
            is_index: row.try_get("is_index")?,
        })
    };
    rows.iter()
        .map(|row| relation(row).map_err(failed))
        .collect()
}

/// The check of one relation.
struct Check<'a> {
    connection: &'a Connection,
    /// Of the extension.
    schema: &'a str,
    oid: u32,
}

impl Check<'_> {
    async fn heap(&self, object: &str, findings: &mut ObjectFindings) {
        let (schema, oid) = (self.schema, self.oid);
        let query = format!(
            "SELECT pg_catalog.concat_ws(', ', 'block ' || blkno, 'offset ' || offnum, 'attribute ' || attnum) || ': ' || msg
               FROM {schema}.verify_heapam(relation := {oid}::pg_catalog.oid::pg_catalog.regclass, on_error_stop := false,
                                           check_toast := true, skip := 'none')
              LIMIT {FINDINGS}"
        );
        match self.ask(&query).await {
            Ok(corruptions) if corruptions.is_empty() => {}
            Ok(corruptions) => findings.damaged(object, &corruptions.join(", ")),
            Err(error) => findings.check_failed(object, &error),
        }
    }

    async fn index(&self, object: &str, every_row: bool, findings: &mut ObjectFindings) {
        let error = match self.tree(every_row).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if error_cause(&error) == ErrorCause::Corrupt {
            return match self.sorts_otherwise_here().await {
                true => findings.unchecked(
                    object,
                    format!(
                        "this node's library sorts its collation otherwise than the one that it was built with: {}",
                        error_words(&error)
                    ),
                ),
                false => findings.check_failed(object, &error),
            };
        }
        if !every_row || self.connection.is_closed() {
            return findings.check_failed(object, &error);
        }
        // What an expression of the index does says nothing of its pages.
        match self.tree(false).await {
            Ok(()) => findings.unchecked(
                object,
                format!(
                    "the index is sound, its rows were not held against the table: {}",
                    error_words(&error)
                ),
            ),
            Err(error) => findings.check_failed(object, &error),
        }
    }

    async fn tree(&self, every_row: bool) -> Result<(), PostgresError> {
        let (schema, oid) = (self.schema, self.oid);
        let query = format!(
            "SELECT {schema}.bt_index_check(index := {oid}::pg_catalog.oid::pg_catalog.regclass, heapallindexed := {every_row})"
        );
        self.ask(&query).await.map(|_| ())
    }

    /// Whether a collation of the index is of another version here, or is not here: then order proves nothing.
    async fn sorts_otherwise_here(&self) -> bool {
        let query = format!(
            "SELECT 1 FROM pg_catalog.pg_index AS i, pg_catalog.unnest(i.indcollation::pg_catalog.oid[]) AS k (id)
               JOIN pg_catalog.pg_collation AS c ON c.oid = k.id
               JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
              WHERE i.indexrelid = {}
                AND CASE WHEN c.collprovider = 'd'
                         THEN d.datcollversion <> pg_catalog.pg_database_collation_actual_version(d.oid)
                         ELSE c.collversion <> pg_catalog.pg_collation_actual_version(c.oid) END",
            self.oid
        );
        // Where the version cannot be told, the library is not here.
        self.ask(&query).await.map_or(true, |rows| !rows.is_empty())
    }

    /// The first column of what `query` returns.
    async fn ask(&self, query: &str) -> Result<Vec<String>, PostgresError> {
        let messages = self.connection.simple_query(query).await;
        let messages = messages.map_err(|error| PostgresError::Query {
            what: "amcheck",
            error,
        })?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some(row.try_get(0).ok().flatten().unwrap_or_default().to_owned())
            }
            _ => None,
        };
        Ok(messages.iter().filter_map(row).collect())
    }
}
