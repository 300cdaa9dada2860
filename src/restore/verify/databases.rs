//! The databases of a restored copy: which there are, which can be entered, and what is done in the copy first.

use std::time::Duration;

use tokio_postgres::Row;

use super::object_findings::ObjectFindings;
use crate::model::Verdict;
use crate::postgres::{self, Connection, PostgresError};
use crate::restore::recover::{ScratchServer, error_words};

/// SQL that gives the text expression `text` as bytes: names of a database of encoding SQL_ASCII need not be UTF-8.
pub(super) fn name_bytes(text: &str) -> String {
    format!(
        "CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN pg_catalog.convert_to({text}, 'SQL_ASCII')
              ELSE pg_catalog.textsend({text}) END"
    )
}

/// A name that [`name_bytes`] gave, and whether SQL can be written with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub text: String,
    pub is_exact: bool,
}

impl Name {
    pub(super) fn get(row: &Row, column: &str) -> Result<Self, tokio_postgres::Error> {
        let bytes: &[u8] = row.try_get(column)?;
        Ok(Self {
            text: String::from_utf8_lossy(bytes).into_owned(),
            is_exact: std::str::from_utf8(bytes).is_ok(),
        })
    }
}

/// A database of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopiedDatabase {
    pub name: String,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    /// It allows no connections; in the copy it was made to.
    Opened,
    /// An interrupted `DROP DATABASE` left it, and PostgreSQL refuses each login.
    Invalid,
    Closed(String),
}

impl CopiedDatabase {
    /// Connects to it, without a limit for a statement; `None` where `findings` holds the reason why it cannot be checked.
    pub(super) async fn enter(
        &self,
        server: &ScratchServer,
        findings: &mut ObjectFindings,
    ) -> Option<Connection> {
        self.enter_within(server, findings, Duration::ZERO).await
    }

    /// The same where a statement may take `limit`.
    pub(super) async fn enter_within(
        &self,
        server: &ScratchServer,
        findings: &mut ObjectFindings,
        limit: Duration,
    ) -> Option<Connection> {
        match &self.state {
            State::Invalid => {
                findings.excused(
                    &self.name,
                    "an interrupted DROP DATABASE left it: repeat the DROP on the primary",
                );
                return None;
            }
            State::Closed(reason) => {
                findings.unchecked(&self.name, reason.clone());
                return None;
            }
            State::Opened => findings.remark(format!(
                "{} allows no connections: it was opened in the copy",
                self.name
            )),
            State::Open => {}
        }
        let entered = postgres::connect(&server.target(&self.name), limit).await;
        entered
            .map_err(|error| findings.check_failed(&self.name, &error))
            .ok()
    }

    /// Connects again after a connection to it ended, without a report.
    pub(super) async fn enter_again(
        &self,
        server: &ScratchServer,
    ) -> Result<Connection, PostgresError> {
        postgres::connect(&server.target(&self.name), Duration::ZERO).await
    }
}

/// Lists the databases of the copy through `connection`, a connection to any of them, and opens those that allow no connections,
/// unless the copy is kept.
///
/// `template0`, which PostgreSQL makes and keeps closed, is left out.
///
/// # Errors
/// When the list cannot be read.
async fn open_databases(
    connection: &Connection,
    is_kept: bool,
) -> Result<Vec<CopiedDatabase>, PostgresError> {
    let query = format!(
        "SELECT {} AS name, datallowconn AS allows, datconnlimit = -2 AS invalid
           FROM pg_catalog.pg_database
          WHERE datallowconn OR datname <> 'template0'
          ORDER BY datname",
        name_bytes("datname::text")
    );
    let what = "for its databases";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let mut databases = Vec::new();
    for row in &rows {
        let name = Name::get(row, "name").map_err(failed)?;
        let (allows, invalid): (bool, bool) = (
            row.try_get("allows").map_err(failed)?,
            row.try_get("invalid").map_err(failed)?,
        );
        let state = match (invalid, name.is_exact, allows) {
            (true, ..) => State::Invalid,
            (_, false, _) => State::Closed("its name is not UTF-8".to_owned()),
            (_, _, true) => State::Open,
            _ if is_kept => State::Closed("it allows no connections".to_owned()),
            _ => open(connection, &name.text).await,
        };
        let name = name.text;
        databases.push(CopiedDatabase { name, state });
    }
    Ok(databases)
}

/// The databases of the copy, and the transactions that are prepared in it.
pub(crate) async fn list_databases(
    server: &ScratchServer,
    limit: Duration,
    is_kept: bool,
) -> Result<(Vec<CopiedDatabase>, Vec<PreparedTransaction>), PostgresError> {
    let connection = postgres::connect(&server.accepting_target(), limit).await?;
    let databases = open_databases(&connection, is_kept).await?;
    let prepared = prepared_transactions(&connection).await?;
    Ok((databases, prepared))
}

async fn open(connection: &Connection, name: &str) -> State {
    let quoted = name.replace('"', "\"\"");
    let sql = format!("ALTER DATABASE \"{quoted}\" ALLOW_CONNECTIONS true");
    match connection.batch_execute(&sql).await {
        Ok(()) => State::Opened,
        Err(error) => State::Closed(format!(
            "it allows no connections: {}",
            postgres::in_words(&error)
        )),
    }
}

/// A transaction that was prepared and neither committed nor rolled back: it holds its locks until then.
pub(crate) struct PreparedTransaction {
    gid: String,
    database: String,
}

/// Lists the prepared transactions of the copy through `connection`.
///
/// # Errors
/// When the list cannot be read.
async fn prepared_transactions(
    connection: &Connection,
) -> Result<Vec<PreparedTransaction>, PostgresError> {
    let query = format!(
        "SELECT {} AS gid, {} AS database FROM pg_catalog.pg_prepared_xacts ORDER BY prepared",
        name_bytes("gid"),
        name_bytes("database::text")
    );
    let what = "for its prepared transactions";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let prepared = |row: &Row| -> Result<PreparedTransaction, tokio_postgres::Error> {
        Ok(PreparedTransaction {
            gid: Name::get(row, "gid")?.text,
            database: Name::get(row, "database")?.text,
        })
    };
    rows.iter()
        .map(|row| prepared(row).map_err(failed))
        .collect()
}

/// Rolls back the `prepared` transactions of the copy, whose locks would block its queries, and names each.
pub(crate) async fn roll_back(server: &ScratchServer, prepared: &[PreparedTransaction]) -> Verdict {
    let mut findings = ObjectFindings::default();
    for PreparedTransaction { gid, database } in prepared {
        let object = format!("{database}: {gid}");
        match roll_back_one(server, database, gid).await {
            Ok(()) => findings.remark(format!("{object} was rolled back in the copy")),
            Err(error) => findings.remark(format!(
                "{object} cannot be rolled back: {}",
                error_words(&error)
            )),
        }
    }
    findings.verdict()
}

async fn roll_back_one(
    server: &ScratchServer,
    database: &str,
    gid: &str,
) -> Result<(), PostgresError> {
    let connection = postgres::connect(&server.target(database), Duration::ZERO).await?;
    let sql = format!("ROLLBACK PREPARED '{}'", gid.replace('\'', "''"));
    let what = "to roll back a prepared transaction";
    let done = connection.batch_execute(&sql).await;
    done.map_err(|error| PostgresError::Query { what, error })
}

/// Reports the `prepared` transactions of a cluster that is kept; ok without one.
pub(crate) fn judge_prepared(prepared: &[PreparedTransaction]) -> Verdict {
    let mut findings = ObjectFindings::default();
    for PreparedTransaction { gid, database } in prepared {
        findings.remark(format!(
            "{database}: {gid} is prepared and holds its locks: COMMIT PREPARED or ROLLBACK PREPARED it"
        ));
    }
    findings.verdict()
}

/// Takes the handlers from the foreign data wrappers of `connection`'s database, so that nothing in the copy dials another
/// server: neither an assertion, nor a function of an index.
///
/// # Errors
/// When that fails.
pub(super) async fn disable_foreign_servers(connection: &Connection) -> Result<(), PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.format('ALTER FOREIGN DATA WRAPPER %I NO HANDLER', fdwname) AS statement
          FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwhandler <> 0";
    let what = "to cut off its foreign servers";
    let failed = |error| PostgresError::Query { what, error };
    for row in connection.query(QUERY, &[]).await.map_err(failed)? {
        let statement: &str = row.try_get("statement").map_err(failed)?;
        connection.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(())
}
