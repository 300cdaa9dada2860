//! The end of a restore: the restored database takes its name, at once or not at all.

use super::restore_plan::PlannedRestore;
use super::sql::{quote_name, statements};
use super::temporary::{TemporaryName, drop_database, is_complete};
use super::toc::Entry;
use crate::dump::mark_of;
use crate::postgres::{self, PostgresError};
use crate::restore::RestoreError;

/// Gives the restored database the properties of the dumped one, and the wanted name; one that is replaced makes room in the
/// same transaction, and is dropped last. Returns what an operator should know.
///
/// # Errors
/// When the name cannot be taken. Where sessions hold the database that is to be replaced, the restored one is kept beside it.
pub(super) async fn take_name(
    planned: &PlannedRestore,
    name: &TemporaryName,
) -> Result<Vec<String>, RestoreError> {
    let mut notes = Vec::new();
    match rename(
        planned,
        name,
        &planned.plan.into,
        planned.plan.replaces,
        &mut notes,
    )
    .await
    {
        Ok(()) => {}
        Err(error) if error.code().is_some() => {
            return Err(keep_beside(planned, name, &error).await);
        }
        // The server may have carried the COMMIT out, and its answer was lost.
        Err(error) => match is_complete(&planned.destination.settings, name).await {
            Ok(true) => notes.push("the connection was lost at the end".to_owned()),
            Ok(false) => return Err(failed(error).into()),
            Err(unknown) => {
                return Err(RestoreError::NotRestored {
                    reason: format!(
                        "whether {} has its name is unknown: {}; {unknown}",
                        planned.plan.into,
                        postgres::in_words(&error)
                    ),
                    hint: format!(
                        "look at the server's databases: where {} is there and {} is not, the restore is complete",
                        planned.plan.into,
                        name.restored()
                    ),
                });
            }
        },
    }
    if planned.plan.replaces {
        let connection = &planned.destination.connection;
        if let Err(error) = drop_database(connection, &name.replaced()).await {
            let (old, reason) = (name.replaced(), postgres::in_words(&error));
            notes.push(format!(
                "the database that was replaced is still there, as {old}: {reason}; the next restore drops it"
            ));
        }
    }
    Ok(notes)
}

/// Of a database of xdb's own.
const END_SESSIONS: &str = "
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
     WHERE datname = $1::text AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";

/// In one transaction: a killed xdb leaves either all of it or nothing.
async fn rename(
    planned: &PlannedRestore,
    name: &TemporaryName,
    into: &str,
    replaces: bool,
    notes: &mut Vec<String>,
) -> Result<(), tokio_postgres::Error> {
    let connection = &planned.destination.connection;
    let execute = async |sql: &str| connection.batch_execute(sql).await;
    let renamed = async {
        let temporary = quote_name(&name.restored());
        // A program that connects to every database it sees must not be in the way of the rename.
        execute(&format!(
            "ALTER DATABASE {temporary} WITH ALLOW_CONNECTIONS false"
        ))
        .await?;
        let database = name.restored();
        // A role that may not end a superuser's session finds out at the rename whether it is in the way.
        let _ = connection.query(END_SESSIONS, &[&database]).await;
        execute("BEGIN").await?;
        execute(&format!(
            "ALTER DATABASE {temporary} WITH ALLOW_CONNECTIONS true"
        ))
        .await?;
        *notes = set_properties(planned, &name.restored()).await?;
        if replaces {
            let (quoted, old) = (quote_name(into), quote_name(&name.replaced()));
            let mark = mark_of(&name.replaced());
            execute(&format!("ALTER DATABASE {quoted} RENAME TO {old}")).await?;
            execute(&format!(
                "ALTER DATABASE {old} WITH CONNECTION LIMIT {mark} IS_TEMPLATE false;
                 COMMENT ON DATABASE {old} IS 'replaced by xdb dump restore --clean, which drops it'"
            ))
            .await?;
        }
        let quoted = quote_name(into);
        execute(&format!("ALTER DATABASE {temporary} RENAME TO {quoted}")).await?;
        execute("COMMIT").await
    };
    let outcome = renamed.await;
    if outcome.is_err() {
        // The session may be gone.
        let _ = execute("ROLLBACK").await;
    }
    outcome
}

/// What `pg_restore --create` would do: owner, privileges, settings, comment. A setting that the server does not take is
/// named and left out.
async fn set_properties(
    planned: &PlannedRestore,
    name: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let connection = &planned.destination.connection;
    let (quoted, dumped) = (quote_name(name), planned.plan.database.as_str());
    let with_owners = planned.request.with_owners;
    let entries = || planned.of_database.iter();
    let mut notes = Vec::new();
    connection
        .batch_execute(&format!(
            "COMMENT ON DATABASE {quoted} IS NULL; ALTER DATABASE {quoted} WITH CONNECTION LIMIT -1"
        ))
        .await?;
    let owner = entries().find(|entry| entry.kind == "DATABASE");
    let owner = owner.map_or("", |entry| entry.owner.as_str());
    if with_owners && !owner.is_empty() {
        let owner = quote_name(owner);
        let alter = format!("ALTER DATABASE {quoted} OWNER TO {owner}");
        connection.batch_execute(&alter).await?;
    }
    let wanted = |entry: &&Entry| match entry.kind.as_str() {
        "ACL" => with_owners,
        "DATABASE" => false,
        _ => true,
    };
    for entry in entries().filter(wanted) {
        for statement in statements(&entry.definition) {
            if !with_owners && statement.begins(&["ALTER", "ROLE"]) {
                continue;
            }
            let sql = statement.with_database(dumped, name);
            if sql == statement.sql {
                // In another encoding than UTF-8 the name is misread, and the live database must not be changed.
                notes.push("a property of the database was not restored: its name cannot be read in the dump".to_owned());
                continue;
            }
            connection.batch_execute("SAVEPOINT property").await?;
            match connection.batch_execute(&sql).await {
                Ok(()) => {
                    connection
                        .batch_execute("RELEASE SAVEPOINT property")
                        .await?;
                }
                Err(error) if error.code().is_some() && entry.kind != "ACL" => {
                    let back = "ROLLBACK TO SAVEPOINT property; RELEASE SAVEPOINT property";
                    connection.batch_execute(back).await?;
                    let reason = postgres::in_words(&error);
                    notes.push(format!(
                        "a property of the database was not restored: {reason}"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(notes)
}

/// The restored database is complete: it must not be lost to a session or a database that came meanwhile.
async fn keep_beside(
    planned: &PlannedRestore,
    name: &TemporaryName,
    error: &tokio_postgres::Error,
) -> RestoreError {
    let (into, reason) = (&planned.plan.into, postgres::in_words(error));
    let beside = format!("{}_{}", shortened(into), &name.restored()[12..20]);
    match rename(planned, name, &beside, false, &mut Vec::new()).await {
        Ok(()) => RestoreError::Refused {
            reason: format!(
                "the restored database could not be named {into}: {reason}; what was restored is complete, in the database {beside}"
            ),
            hint: format!(
                "disconnect the sessions (PAUSE {into} on PgBouncer's console), then: ALTER DATABASE {} RENAME TO …; ALTER DATABASE {} RENAME TO {}",
                quote_name(into),
                quote_name(&beside),
                quote_name(into)
            ),
        },
        Err(second) => failed(second).into(),
    }
}

/// With room for a suffix in the 63 bytes of a name.
fn shortened(name: &str) -> &str {
    const MOST: usize = 54;
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8());
    &name[..end.take_while(|end| *end <= MOST).last().unwrap_or(0)]
}

fn failed(error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query {
        what: "to rename the restored database",
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_room_for_its_suffix() {
        for (name, short) in [
            ("app", "app".to_owned()),
            (&"a".repeat(63), "a".repeat(54)),
            (&"é".repeat(31), "é".repeat(27)),
        ] {
            assert_eq!(shortened(name), short);
        }
    }
}
