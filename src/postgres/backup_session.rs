//! Sessions of a base backup on the server.

use jiff::Timestamp;
use tokio_postgres::Client;

use super::PostgresError;

/// Ends the sessions in which `program`, which is gone, began a base backup since `since`; gives how many there were.
///
/// A server notices only between two statements that a client is gone, and `pg_backup_start` waits for a checkpoint,
/// which a slow disk may draw out.
///
/// # Errors
/// When the query fails.
pub async fn end_backup_sessions(
    client: &Client,
    program: &str,
    since: Timestamp,
) -> Result<usize, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_terminate_backend(pid, 5000)
          FROM pg_catalog.pg_stat_activity
         WHERE application_name = $1 AND backend_start >= $2 AND pid <> pg_catalog.pg_backend_pid()
           AND query ~ 'pg_(backup_(start|stop)|(start|stop)_backup)'";
    let ended = client.query(QUERY, &[&program, &since]).await;
    let ended = ended.map_err(|error| PostgresError::Query {
        what: "to end a backup's session",
        error,
    })?;
    Ok(ended.len())
}
