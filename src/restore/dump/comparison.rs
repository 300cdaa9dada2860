//! A restored database, compared with its manifest.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::contents_comparison::{judge_collations, judge_contents, not_compared};
use super::row_comparison::judge_rows;
use crate::dump::{self, DumpSet, DumpedDatabase};
use crate::model::Verdict;
use crate::postgres::{self, PostgresError};
use crate::restore::recover::ScratchServer;
use crate::restore::{RestoreError, Verifications};

/// Compares `database` of `set`, restored into `server`, and adds the verdicts.
///
/// # Errors
/// When the scratch server is lost.
pub(super) async fn compare(
    server: &ScratchServer,
    set: &DumpSet,
    database: &DumpedDatabase,
    verifications: &mut Verifications,
) -> Result<(), RestoreError> {
    let name = format!("database: {}", database.name);
    let target = server.target(&database.name);
    let connection = match postgres::connect(&target, Duration::ZERO).await {
        Ok(connection) => connection,
        Err(PostgresError::Connect { error, .. }) if is_no_database(&error) => {
            let reason = "its dump holds a database of another name";
            verifications.add(name, Verdict::Critical(reason.to_owned()));
            return Ok(());
        }
        // One that cannot be entered ends no test of the others.
        Err(PostgresError::Connect { error, .. }) if error.code().is_some() => {
            verifications.add(name, Verdict::Unknown(postgres::in_words(&error)));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let manifest = &database.contents;
    let unlogged = !set.in_recovery || manifest.dumped_from.is_some();
    let (rows, restored) = match dump::read_restored(&connection, unlogged).await {
        Ok(read) => read,
        Err(error) if connection.is_closed() => return Err(error.into()),
        Err(error) => {
            verifications.add(name, Verdict::Unknown(error.to_string()));
            return Ok(());
        }
    };
    let judged = [
        judge_rows(&database.rows, &manifest.estimated_rows, &rows),
        judge_contents(manifest, &restored),
    ];
    verifications.add(name, Verdict::worst(&judged));
    let collations = judge_collations(manifest, &restored, &set.node);
    verifications.add_unless_ok(&format!("collations: {}", database.name), collations);
    let missing = not_compared(manifest, &restored, &rows);
    if !missing.is_empty() {
        let name = format!("not compared: {}", database.name);
        verifications.add(name.clone(), Verdict::Unknown(missing.join("; ")));
        // The manifest cannot say it, so that no later test could compare it either.
        verifications.excuse(name);
    }
    Ok(())
}

fn is_no_database(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_CATALOG_NAME)
}
