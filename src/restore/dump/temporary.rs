//! Databases under names of xdb's own: one that is being restored, and one that was replaced.
//!
//! Both are marked in the statement that makes them, by a connection limit that follows from the name, so that what a killed
//! restore leaves is provably its own. An advisory lock says that the restore still runs.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::sql::{quote_name, tokens};
use crate::config::Postgres;
use crate::postgres::{self, Connection, PostgresError, Target};

const RESTORED: &str = "xdb_restore_";
const REPLACED: &str = "xdb_replaced_";
const DIGITS: usize = 16;
/// The class of the advisory locks: "xdb".
const LOCK_CLASS: i32 = 0x0078_6462;
/// `datconnlimit` of a database whose `DROP DATABASE` was interrupted.
const INVALID: i32 = -2;

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

/// The connection limit of a database of this name: too large to limit anything.
pub(super) fn mark_of(name: &str) -> i32 {
    const LEAST: u32 = 1_000_000_000;
    let hash = Sha256::digest(name.as_bytes());
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    i32::try_from(LEAST + number % LEAST).expect("below 2^31")
}

/// Whether a database of this name and connection limit was made, or set aside, by a restore.
fn is_own(name: &str, limit: i32) -> bool {
    let digits = [RESTORED, REPLACED]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    let is_named = digits.is_some_and(|digits| {
        digits.len() == DIGITS
            && digits
                .bytes()
                .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    });
    is_named && (limit == mark_of(name) || limit == INVALID)
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

/// Drops what the restore of `name` left on the server of `settings`, after it was stopped.
///
/// # Errors
/// When the server does not answer, or does not drop it; the next restore does.
pub(crate) async fn clean_up(
    settings: &Postgres,
    name: &TemporaryName,
) -> Result<(), PostgresError> {
    /// The server ends the sessions of a stopped restore, and a CREATE DATABASE that was under way, by then.
    const LIMIT: Duration = Duration::from_secs(60);
    let target = Target::from(settings);
    let connection = postgres::connect(&target, LIMIT).await?;
    let until = Instant::now() + LIMIT;
    while is_running(&connection, &name.restored()).await? && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
    }
    for own in [name.restored(), name.replaced()] {
        let there = leftovers(&connection).await?;
        if there.contains(&own) {
            let dropped = drop_database(&connection, &own).await;
            dropped.map_err(|error| failed("to drop what a restore left", error))?;
        }
    }
    Ok(())
}

fn failed(what: &'static str, error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_restores_own_by_its_name_and_its_mark() {
        let name = TemporaryName::new();
        assert_ne!(name, TemporaryName::new());
        for own in [name.restored(), name.replaced()] {
            assert!(
                is_own(&own, mark_of(&own)) && is_own(&own, INVALID),
                "{own}"
            );
            assert!(!is_own(&own, -1) && !is_own(&own, mark_of("app")), "{own}");
        }
        for other in [
            "xdb_restore_",
            "xdb_restore_0123456789ABCDEF",
            "xdb_restore_0123456789abcdef0",
            "xdb_restored_0123456789abcdef",
            "app",
        ] {
            assert!(!is_own(other, mark_of(other)), "{other}");
            assert!(!is_own(other, INVALID), "{other}");
        }
        // Other versions of xdb must find the same.
        assert_eq!(mark_of("xdb_restore_0123456789abcdef"), 1_323_246_620);
    }

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
