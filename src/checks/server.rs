//! What PostgreSQL says of itself when a check asks.

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::archiver::Archiving;
use super::replication_lag::judge_bytes;
use super::values::Value;
use super::{LagLimits, SampleError, Standby, judge_replication_lag};
use crate::cluster::LsnRing;
use crate::model::{Lsn, Verdict};
use crate::postgres::{self, PostgresError};

/// Rows that one check may return: each is an alert of its own.
const MOST_ROWS: usize = 1000;

/// The simple protocol: an operator's query may hold what cannot be prepared.
///
/// After too many rows the connection cannot be used again.
pub(super) async fn ask(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, SampleError> {
    let failed = |error| PostgresError::Query {
        what: "for a check",
        error,
    };
    let answer = client.simple_query_raw(query).await.map_err(failed)?;
    let mut answer = std::pin::pin!(answer);
    let mut rows = Vec::new();
    while let Some(message) = answer.try_next().await.map_err(failed)? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(row);
        }
        if rows.len() > MOST_ROWS {
            return Err(SampleError::TooManyRows { most: MOST_ROWS });
        }
    }
    Ok(rows)
}

pub(super) async fn in_recovery(client: &Client) -> Result<bool, SampleError> {
    let rows = ask(
        client,
        "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery",
    )
    .await?;
    let row = rows.first();
    match row.and_then(|row| column(row, "in_recovery")) {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        _ => Err(PostgresError::Answer {
            what: "in_recovery",
        }
        .into()),
    }
}

/// A column's text; `None` when it is missing or NULL.
fn column<'a>(row: &'a SimpleQueryRow, name: &str) -> Option<&'a str> {
    row.try_get(name).ok().flatten()
}

pub(super) fn read_values(rows: &[SimpleQueryRow]) -> Result<Vec<Value>, SampleError> {
    let read = |row: &SimpleQueryRow| {
        let text = row.try_get("value").map_err(|_| SampleError::NoValue)?;
        Ok(Value {
            object: column(row, "object").map(str::to_owned),
            number: text.and_then(|text| text.parse().ok()),
            detail: None,
        })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn archiving(client: &Client) -> Result<Archiving, SampleError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
               pg_catalog.current_setting('archive_mode') AS archive_mode,
               pg_catalog.current_setting('archive_command') AS archive_command,
               coalesce(pg_catalog.current_setting('archive_library', true), '') AS archive_library,
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir()
                 WHERE name LIKE '%.ready') AS pending";
    let rows = ask(client, QUERY).await?;
    let text = |name: &'static str| {
        let value = rows.first().and_then(|row| column(row, name));
        value.ok_or(PostgresError::Answer { what: name })
    };
    Ok(Archiving {
        in_recovery: text("in_recovery")? == "t",
        mode: text("archive_mode")?.to_owned(),
        command: text("archive_command")?.to_owned(),
        library: text("archive_library")?.to_owned(),
        pending: text("pending")?
            .parse()
            .map_err(|_| PostgresError::Answer { what: "pending" })?,
        archiver: postgres::archiver(client).await?,
    })
}

/// On a replica: whether WAL comes, and how far the replay is behind where the primary was when.
pub(super) async fn standby(
    client: &Client,
    primary: &LsnRing,
    limits: &LagLimits,
    now: Timestamp,
) -> Result<Verdict, SampleError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_last_wal_replay_lsn() AS replayed,
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS streaming";
    let rows = ask(client, QUERY).await?;
    let get = |name| rows.first().and_then(|row| column(row, name));
    let standby = Standby {
        primary,
        replayed: get("replayed").and_then(|lsn| lsn.parse::<Lsn>().ok()),
        streaming: get("streaming") == Some("t"),
    };
    Ok(judge_replication_lag(&standby, limits, now))
}

/// On a primary: each standby's bytes. How many seconds they are behind it does not know while it idles.
pub(super) async fn standbys(
    client: &Client,
    limits: &LagLimits,
) -> Result<Vec<(Option<String>, Verdict)>, SampleError> {
    // pg_basebackup and pg_receivewal replay nothing and are no standbys.
    const QUERY: &str = "
        SELECT application_name AS object, state,
               GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn), 0) AS bytes,
               replay_lsn IS NOT NULL AS replays
          FROM pg_catalog.pg_stat_replication
         WHERE state <> 'backup' AND application_name NOT IN ('pg_basebackup', 'pg_receivewal')
         ORDER BY application_name, pid";
    let rows = ask(client, QUERY).await?;
    if rows.is_empty() {
        let verdict = Verdict::Critical("no standby is connected to this primary".to_owned());
        return Ok(vec![(None, verdict)]);
    }
    let judge = |row: &SimpleQueryRow| {
        // NULL until a standby has reported; GREATEST would make 0 of it.
        let replays = column(row, "replays") == Some("t");
        let bytes = column(row, "bytes").filter(|_| replays);
        let verdict = match bytes.and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) => judge_bytes(bytes, &limits.bytes),
            None => Verdict::Unknown(format!(
                "the standby has reported no position yet (state {})",
                column(row, "state").unwrap_or("unknown")
            )),
        };
        (column(row, "object").map(str::to_owned), verdict)
    };
    Ok(rows.iter().map(judge).collect())
}
