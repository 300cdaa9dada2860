//! Databases under names of xdb's own: one that is being restored, and one that was replaced.
//!
//! Both are marked in the statement that makes them, by a connection limit that follows from the name, so that what a killed
//! restore leaves is provably its own. An advisory lock says that the restore still runs.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::sql::{quote_name, tokens};
use crate::config::Postgres;
use crate::dump::{DIGITS, REPLACED, RESTORED, is_own, mark_of};
use crate::postgres::{self, Connection, PostgresError, Target};

/// The class of the advisory locks: "xdb".
const LOCK_CLASS: i32 = 0x0078_6462;

/// The names that one restore gives to databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemporaryName {
    digits: String,
}

impl TemporaryName {
    /// A new one: no two restores have the same.
    pub(crate) fn new() -> Self {
        let state = std::collections::hash_map::RandomState::new();
        let random = std::hash::BuildHasher::hash_one(&state, std::process::id());
        Self {
            digits: format!("{random:0width$x}", width = DIGITS),
        }
    }

    /// Of the database that is being restored.
    pub(super) fn restored(&self) -> String {
        format!("{RESTORED}{}", self.digits)
    }

    /// Of the database that makes room for it, until it is dropped.
    pub(super) fn replaced(&self) -> String {
        format!("{REPLACED}{}", self.digits)
    }
}

/// Says to others, for as long as `connection` lives, that the restore of `name` runs.
///
/// # Errors
/// When the query fails.
pub(super) async fn lock(
    connection: &Connection,
    name: &TemporaryName,
) -> Result<(), PostgresError> {
    const LOCK: &str = "SELECT pg_catalog.pg_advisory_lock($1, $2)";
    for name in [name.restored(), name.replaced()] {
        let keys: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&LOCK_CLASS, &mark_of(&name)];
        let locked = connection.execute(LOCK, &keys).await;
        locked.map_err(|error| failed("for an advisory lock", error))?;
    }
    Ok(())
}

/// Makes the database `name`, by the statement that the dump makes its own with.
///
/// # Errors
/// When the server refuses.
pub(super) async fn create(
    connection: &Connection,
    name: &str,
    definition: &str,
    tablespaces: &[String],
) -> Result<(), tokio_postgres::Error> {
    let statement = create_statement(name, definition, tablespaces);
    connection.batch_execute(&statement).await
}

/// The dump's `CREATE DATABASE` for another name; a tablespace that the server lacks is left out.
fn create_statement(name: &str, definition: &str, tablespaces: &[String]) -> String {
    let found = tokens(definition);
    let end = found.iter().find(|token| token.is_symbol(';'));
    let end = end.map_or(definition.len(), |token| token.start);
    // After CREATE DATABASE and the name.
    let mut options = found
        .get(2)
        .map_or("", |name| &definition[name.end..end])
        .to_owned();
    let at = found.iter().position(|token| token.is("TABLESPACE"));
    if let Some([keyword, _, tablespace]) = at.and_then(|at| found.get(at..at + 3)) {
        let start = found[2].end;
        if !tablespaces.contains(&tablespace.text) {
            options.replace_range(keyword.start - start..tablespace.end - start, "");
        }
    }
    format!(
        "CREATE DATABASE {}{} CONNECTION LIMIT {}",
        quote_name(name),
        options.trim_end(),
        mark_of(name)
    )
}

/// Drops what restores that were killed left on the server, and returns the names.
///
/// A restore that still runs, and a database that only looks like one, are left alone.
///
/// # Errors
/// When the server cannot be asked. A leftover that cannot be dropped now is left for the next restore.
pub(super) async fn drop_leftovers(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    let mut dropped = Vec::new();
    for name in leftovers(connection).await? {
        match drop_database(connection, &name).await {
            Ok(()) => dropped.push(name),
            Err(error) => {
                let reason = postgres::in_words(&error);
                tracing::warn!(
                    "the database {name}, which a restore left, is still there: {reason}"
                );
            }
        }
    }
    Ok(dropped)
}

async fn leftovers(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    const DATABASES: &str = "
        SELECT datname::text AS name, datconnlimit AS mark FROM pg_catalog.pg_database
         WHERE datname LIKE 'xdb\\_re%' ORDER BY datname";
    let mut found = Vec::new();
    let query = |error| failed("for what restores left", error);
    for row in connection.query(DATABASES, &[]).await.map_err(query)? {
        let name: String = row.try_get("name").map_err(query)?;
        let limit: i32 = row.try_get("mark").map_err(query)?;
        if is_own(&name, limit) && !is_running(connection, &name).await? {
            found.push(name);
        }
    }
    Ok(found)
}

async fn is_running(connection: &Connection, name: &str) -> Result<bool, PostgresError> {
    // By number, and not by the columns' type: they are OIDs there.
    const QUERY: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                        WHERE locktype = 'advisory' AND objsubid = 2
                          AND classid::bigint = $1 AND objid::bigint = $2) AS running";
    let keys: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&i64::from(LOCK_CLASS), &i64::from(mark_of(name))];
    let query = |error| failed("whether a restore runs", error);
    let row = connection.query_one(QUERY, &keys).await.map_err(query)?;
    row.try_get("running").map_err(query)
}

/// Drops the database `name`, one of xdb's own, with the sessions in it.
pub(super) async fn drop_database(
    connection: &Connection,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    let name = quote_name(name);
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    connection.batch_execute(&drop).await
}

/// Waits until the restore of `name` has ended on the server: then says whether its database has got the wanted name.
///
/// Its session may have been lost while the answer to the last COMMIT was on its way.
///
/// # Errors
/// When the server does not answer, or the session does not end.
pub(super) async fn is_complete(
    settings: &Postgres,
    name: &TemporaryName,
) -> Result<bool, PostgresError> {
    let connection = ended(settings, name).await?;
    Ok(!exists(&connection, &name.restored()).await?)
}

async fn exists(connection: &Connection, name: &str) -> Result<bool, PostgresError> {
    const QUERY: &str =
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1::text) AS found";
    let query = |error| failed("for a database of a restore", error);
    let row = connection.query_one(QUERY, &[&name]).await.map_err(query)?;
    row.try_get("found").map_err(query)
}

/// A new session, once that of the restore of `name` is gone; after a minute xdb has the server end it.
async fn ended(settings: &Postgres, name: &TemporaryName) -> Result<Connection, PostgresError> {
    /// The server ends the sessions of a stopped restore, and a CREATE DATABASE that was under way, by then.
    const LIMIT: Duration = Duration::from_secs(60);
    const END: &str = "
        SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks
         WHERE locktype = 'advisory' AND objsubid = 2 AND granted
           AND classid::bigint = $1 AND objid::bigint = $2";
    let target = Target::from(settings);
    let connection = postgres::connect(&target, LIMIT).await?;
    let keys: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [
        &i64::from(LOCK_CLASS),
        &i64::from(mark_of(&name.restored())),
    ];
    let began = Instant::now();
    let mut is_told = false;
    while is_running(&connection, &name.restored()).await? {
        if began.elapsed() > LIMIT && !is_told {
            is_told = true;
            let told = connection.query(END, &keys).await;
            told.map_err(|error| failed("to end a stopped restore", error))?;
        }
        if began.elapsed() > 2 * LIMIT {
            return Err(PostgresError::Silent {
                target: target.host.clone(),
                secs: began.elapsed().as_secs(),
            });
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(connection)
}

/// Drops what the restore of `name` left on the server of `settings`, after it was stopped. Where it was complete, nothing is
/// dropped, and the name of the database that it replaced is returned.
///
/// # Errors
/// When the server does not answer, or does not drop it; the next restore does.
pub(crate) async fn clean_up(
    settings: &Postgres,
    name: &TemporaryName,
) -> Result<Option<String>, PostgresError> {
    let connection = ended(settings, name).await?;
    let there = leftovers(&connection).await?;
    if there.contains(&name.restored()) {
        let dropped = drop_database(&connection, &name.restored()).await;
        dropped.map_err(|error| failed("to drop what a restore left", error))?;
    }
    Ok(there.into_iter().find(|left| *left == name.replaced()))
}

fn failed(what: &'static str, error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dumps_statement_makes_a_database_of_another_name() {
        let definition = "CREATE DATABASE \"it's; \"\"odd\"\"\" WITH TEMPLATE = template0 ENCODING = 'UTF8' \
            LOCALE_PROVIDER = libc LOCALE = 'C' TABLESPACE = \"fast disk\";\n";
        let mark = mark_of("new");
        for (tablespaces, options) in [
            (&[][..], ""),
            (&["fast disk".to_owned()], " TABLESPACE = \"fast disk\""),
        ] {
            assert_eq!(
                create_statement("new", definition, tablespaces),
                format!(
                    "CREATE DATABASE \"new\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C'{options} CONNECTION LIMIT {mark}"
                )
            );
        }
    }
}
