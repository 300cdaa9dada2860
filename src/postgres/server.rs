//! What a running server says of itself.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::{Client, Row};

use super::PostgresError;
use crate::model::{Lsn, SegmentSize, Timeline};

/// A server's identity and where its WAL stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerIdentity {
    /// `pg_control_system()`: the same on a primary, its standbys and its backups.
    pub system_identifier: u64,
    pub in_recovery: bool,
    /// A primary's own; a standby's is that of its last restartpoint and may lag behind what it streams.
    pub timeline: Timeline,
    /// `server_version_num`, such as 170011.
    pub version: u32,
    pub data_directory: PathBuf,
    pub segment_size: SegmentSize,
    /// Written (primary) or received (standby); NULL on a standby that never streamed is `None`.
    pub wal_end: Option<Lsn>,
    /// Written (primary, `pg_current_wal_lsn()`) or replayed (standby); NULL before anything was replayed is `None`.
    ///
    /// Not the insert position: that one steps over page headers, and would never be reached while the primary idles.
    pub position: Option<Lsn>,
    /// A standby receives WAL at the moment; `false` on a primary.
    pub streaming: bool,
    /// `archive_mode`: `off`, `on` or `always`.
    pub archive_mode: String,
    /// `archive_command` or `archive_library` is set.
    pub archives: bool,
    pub now: Timestamp,
}

/// Asks `client`'s server about itself (`pg_control_*`, `pg_settings`, `pg_stat_wal_receiver`).
///
/// # Errors
/// When the query fails.
pub(crate) async fn server(client: &Client) -> Result<ServerIdentity, PostgresError> {
    const QUERY: &str = "
        SELECT s.system_identifier::text AS system_identifier,
               pg_catalog.pg_is_in_recovery() AS in_recovery,
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN c.timeline_id::bigint
                    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
               END AS timeline,
               pg_catalog.current_setting('server_version_num')::bigint AS version,
               pg_catalog.current_setting('data_directory') AS data_directory,
               pg_catalog.current_setting('archive_mode') AS archive_mode,
               pg_catalog.current_setting('archive_command') <> '' OR pg_catalog.current_setting('archive_library') <> '' AS archives,
               (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') AS segment_size,
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                    ELSE pg_catalog.pg_current_wal_insert_lsn() END::text AS wal_end,
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                    ELSE pg_catalog.pg_current_wal_lsn() END::text AS position,
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS streaming,
               pg_catalog.clock_timestamp() AS now
          FROM pg_catalog.pg_control_system() AS s, pg_catalog.pg_control_checkpoint() AS c";
    let row = one_row(client, "about itself", QUERY).await?;
    let get = |what| PostgresError::Answer { what };
    Ok(ServerIdentity {
        // A bigint in SQL, unsigned in the control file.
        system_identifier: text(&row, "system_identifier")?
            .parse::<i64>()
            .map(i64::cast_unsigned)
            .map_err(|_| get("system_identifier"))?,
        in_recovery: column(&row, "in_recovery")?,
        timeline: Timeline(number(&row, "timeline")?),
        version: number(&row, "version")?,
        data_directory: text(&row, "data_directory")?.into(),
        segment_size: SegmentSize::new(number::<u64>(&row, "segment_size")?)
            .map_err(|_| get("wal_segment_size"))?,
        wal_end: optional_lsn(&row, "wal_end")?,
        position: optional_lsn(&row, "position")?,
        streaming: column(&row, "streaming")?,
        archive_mode: text(&row, "archive_mode")?,
        archives: column(&row, "archives")?,
        now: column(&row, "now")?,
    })
}

/// The programs that read or write a whole cluster of `client`'s server at the moment, by their names.
///
/// # Errors
/// When the query fails.
pub(crate) async fn heavy_work(client: &Client) -> Result<Vec<String>, PostgresError> {
    const QUERY: &str = "
        SELECT DISTINCT application_name AS program
          FROM pg_catalog.pg_stat_activity
         WHERE application_name IN ('pg_dump', 'pg_dumpall', 'pg_basebackup', 'pg_restore', 'pg_rewind')
         ORDER BY 1";
    let what = "for what else it does";
    let rows = client
        .query(QUERY, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    rows.iter().map(|row| text(row, "program")).collect()
}

/// How far the clock of `client`'s server, a standby, is behind its primary's at least: it got a message before that was
/// sent. `None` where nothing shows that (`pg_stat_wal_receiver`).
///
/// # Errors
/// When the query fails.
pub(crate) async fn clock_behind(client: &Client) -> Result<Option<Duration>, PostgresError> {
    const QUERY: &str = "
        SELECT max((extract(epoch FROM last_msg_send_time - last_msg_receipt_time) * 1000)::bigint) AS milliseconds
          FROM pg_catalog.pg_stat_wal_receiver";
    let row = one_row(client, "for its primary's clock", QUERY).await?;
    let milliseconds: Option<i64> = column(&row, "milliseconds")?;
    let behind = milliseconds.and_then(|it| u64::try_from(it).ok());
    Ok(behind.filter(|it| *it > 0).map(Duration::from_millis))
}

/// One row of `pg_stat_archiver`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Archiver {
    /// The last file that `archive_command` accepted; `None` since the last reset of statistics.
    pub last_archived: Option<String>,
    pub last_archived_at: Option<Timestamp>,
    pub last_failed: Option<String>,
    pub last_failed_at: Option<Timestamp>,
}

impl Archiver {
    /// The newest attempt failed. `failed_count` is cumulative and says nothing about now.
    pub(crate) fn failing(&self) -> bool {
        self.last_failed_at
            .is_some_and(|failed| self.last_archived_at.is_none_or(|done| failed > done))
    }
}

/// Reads `pg_stat_archiver`.
///
/// # Errors
/// When the query fails.
pub(crate) async fn archiver(client: &Client) -> Result<Archiver, PostgresError> {
    const QUERY: &str = "
        SELECT last_archived_wal, last_archived_time, last_failed_wal, last_failed_time
          FROM pg_catalog.pg_stat_archiver";
    let row = one_row(client, "about its archiver", QUERY).await?;
    Ok(Archiver {
        last_archived: column(&row, "last_archived_wal")?,
        last_archived_at: column(&row, "last_archived_time")?,
        last_failed: column(&row, "last_failed_wal")?,
        last_failed_at: column(&row, "last_failed_time")?,
    })
}

/// Ends the segment that `client`'s server, a primary, writes to; does nothing where nothing was written to it.
///
/// # Errors
/// When the query fails: the role needs EXECUTE on `pg_switch_wal()`.
pub(crate) async fn switch_wal(client: &Client) -> Result<(), PostgresError> {
    const QUERY: &str = "SELECT pg_catalog.pg_switch_wal()::text AS switched_at";
    one_row(client, "to end a WAL segment", QUERY).await?;
    Ok(())
}

async fn one_row(client: &Client, what: &'static str, query: &str) -> Result<Row, PostgresError> {
    client
        .query_one(query, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    name: &'static str,
) -> Result<T, PostgresError> {
    row.try_get(name)
        .map_err(|_| PostgresError::Answer { what: name })
}

fn text(row: &Row, name: &'static str) -> Result<String, PostgresError> {
    column(row, name)
}

fn number<T: TryFrom<i64>>(row: &Row, name: &'static str) -> Result<T, PostgresError> {
    let value: i64 = column(row, name)?;
    T::try_from(value).map_err(|_| PostgresError::Answer { what: name })
}

fn optional_lsn(row: &Row, name: &'static str) -> Result<Option<Lsn>, PostgresError> {
    let lsn: Option<String> = column(row, name)?;
    lsn.map(|lsn| lsn.parse())
        .transpose()
        .map_err(|_| PostgresError::Answer { what: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archiver_fails_when_its_newest_attempt_did() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (done, failed, failing) in [
            (None, None, false),
            (at(5), None, false),
            (None, at(5), true),
            (at(5), at(6), true),
            (at(6), at(5), false),
        ] {
            let archiver = Archiver {
                last_archived_at: done,
                last_failed_at: failed,
                ..Archiver::default()
            };
            assert_eq!(archiver.failing(), failing, "{done:?} {failed:?}");
        }
    }
}
