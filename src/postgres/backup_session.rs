//! Sessions of a base backup on the server.

use jiff::Timestamp;
use tokio_postgres::Client;

use super::PostgresError;

/// Ends the sessions from this machine in which an application `name`, which is dead, began a base backup since `since`.
/// Returns their number.
///
/// A server notices only between two statements that a client is gone, and `pg_backup_start` waits for a checkpoint,
/// which a slow disk may draw out.
///
/// # Errors
/// When the query fails.
pub(crate) async fn end_backup_sessions(
    client: &Client,
    name: &str,
    since: Timestamp,
) -> Result<usize, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_terminate_backend(pid, 5000)
          FROM pg_catalog.pg_stat_activity
         WHERE application_name = $1 AND backend_start >= $2 AND pid <> pg_catalog.pg_backend_pid()
           AND query ~ 'pg_(backup_(start|stop)|(start|stop)_backup)'
           AND (client_addr IS NULL OR client_addr IN
                (SELECT client_addr FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()))";
    let ended = client.query(QUERY, &[&name, &since]).await;
    let ended = ended.map_err(|error| PostgresError::Query {
        what: "to end a backup's session",
        error,
    })?;
    Ok(ended.len())
}

/// The name of the WAL segment that the server writes at the moment: a base backup that begins later starts in a later one.
///
/// # Errors
/// When the query fails, as on a standby.
pub(crate) async fn current_segment(client: &Client) -> Result<String, PostgresError> {
    const QUERY: &str =
        "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) AS segment";
    let row = client.query_one(QUERY, &[]).await;
    let row = row.map_err(|error| PostgresError::Query {
        what: "for the segment that is written",
        error,
    })?;
    row.try_get("segment")
        .map_err(|_| PostgresError::Answer { what: "segment" })
}
