//! What PostgreSQL says of itself when a check asks.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::archiver::Archiving;
use super::replication_lag::judge_bytes;
use super::trace::Answer;
use super::{LagLimits, SampleError, Standby, judge_replication_lag};
use crate::cluster::LsnRing;
use crate::model::{Lsn, Verdict};
use crate::postgres::{self, PostgresError};

/// Rows that one check may return: each is an alert of its own.
const MOST_ROWS: usize = 1000;

/// What decides where a check runs, and by which query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerFacts {
    pub in_recovery: bool,
    /// `server_version_num`, such as 170011.
    pub version: u32,
}

/// The simple protocol: an operator's query may hold what cannot be prepared. Of several answers the last counts.
///
/// After too many rows the connection cannot be used again.
pub(super) async fn ask(client: &Client, query: &str) -> Result<Answer, SampleError> {
    let failed = |error| PostgresError::Query {
        what: "for a check",
        error,
    };
    let messages = client.simple_query_raw(query).await.map_err(failed)?;
    let mut messages = std::pin::pin!(messages);
    let mut answer = Answer::default();
    while let Some(message) = messages.try_next().await.map_err(failed)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns.iter().map(|it| it.name().to_owned()).collect();
                answer.rows.clear();
            }
            SimpleQueryMessage::Row(row) => {
                let cell = |at| row.get(at).map(str::to_owned);
                answer.rows.push((0..row.len()).map(cell).collect());
            }
            _ => {}
        }
        if answer.rows.len() > MOST_ROWS {
            return Err(SampleError::TooManyRows { most: MOST_ROWS });
        }
    }
    Ok(answer)
}

pub(super) async fn server_facts(client: &Client) -> Result<ServerFacts, SampleError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
               pg_catalog.current_setting('server_version_num') AS version";
    let answer = ask(client, QUERY).await?;
    let in_recovery = match answer.first("in_recovery") {
        Some("t") => true,
        Some("f") => false,
        _ => {
            let what = "in_recovery";
            return Err(PostgresError::Answer { what }.into());
        }
    };
    let version = answer.first("version").and_then(|text| text.parse().ok());
    let version = version.ok_or(PostgresError::Answer { what: "version" })?;
    Ok(ServerFacts {
        in_recovery,
        version,
    })
}

/// The databases that applications use. One that xdb may not enter is among them: it is not judged, and that is said.
pub(super) async fn databases(client: &Client) -> Result<Vec<String>, SampleError> {
    const QUERY: &str = "
        SELECT datname
          FROM pg_catalog.pg_database
         WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2
         ORDER BY datname";
    let answer = ask(client, QUERY).await?;
    let names = answer
        .rows
        .into_iter()
        .filter_map(|row| row.into_iter().next());
    Ok(names.flatten().collect())
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
        let value = rows.first(name);
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
               pg_catalog.pg_last_wal_receive_lsn() AS received,
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'recovery_min_apply_delay') AS delay,
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS streaming";
    let answer = ask(client, QUERY).await?;
    let lsn = |name| answer.first(name).and_then(|lsn| lsn.parse::<Lsn>().ok());
    let delay = answer.first("delay").and_then(|delay| delay.parse().ok());
    let standby = Standby {
        primary,
        replayed: lsn("replayed"),
        received: lsn("received"),
        delay: delay.map_or(Duration::ZERO, Duration::from_millis),
        streaming: answer.first("streaming") == Some("t"),
    };
    Ok(judge_replication_lag(&standby, limits, now))
}

/// On a primary: each standby's bytes. How many seconds they are behind it does not know while it idles.
///
/// A standby is what reports a replay position: a logical subscriber, `pg_receivewal` and `pg_basebackup` replay nothing.
/// Of those in `delayed`, by application name, what they have flushed counts: they replay late on purpose. Of two of one name (an
/// old walsender beside its successor's) the worse counts: they would raise and resolve one alert in turn.
pub(super) async fn standbys(
    client: &Client,
    limits: &LagLimits,
    delayed: &[String],
) -> Result<Vec<(Option<String>, Verdict)>, SampleError> {
    const QUERY: &str = "
        SELECT r.application_name AS object, r.state,
               GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn), 0) AS bytes,
               GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.flush_lsn), 0) AS flush_bytes,
               r.replay_lsn IS NOT NULL AS replays
          FROM pg_catalog.pg_stat_replication AS r
         WHERE r.state <> 'backup' AND r.application_name NOT IN ('pg_basebackup', 'pg_receivewal')
           AND NOT (r.replay_lsn IS NULL AND (r.write_lsn IS NOT NULL OR r.flush_lsn IS NOT NULL))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS s
                            WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
         ORDER BY r.application_name, r.pid";
    let answer = ask(client, QUERY).await?;
    if answer.rows.is_empty() {
        let verdict = Verdict::Critical("no standby is connected to this primary".to_owned());
        return Ok(vec![(None, verdict)]);
    }
    let judge = |row: &Vec<Option<String>>| {
        let get = |name| answer.cell(row, name);
        // NULL until a standby has reported; GREATEST would make 0 of it.
        let replays = get("replays") == Some("t");
        let object = get("object");
        let is_delayed = object.is_some_and(|name| delayed.iter().any(|one| one == name));
        let bytes = get(if is_delayed { "flush_bytes" } else { "bytes" }).filter(|_| replays);
        let verdict = match bytes.and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) => judge_bytes(bytes, &limits.bytes),
            None => Verdict::Unknown(format!(
                "the standby has reported no position yet (state {})",
                get("state").unwrap_or("unknown")
            )),
        };
        (object.map(str::to_owned), verdict)
    };
    Ok(worst_of_each(answer.rows.iter().map(judge)))
}

fn worst_of_each(
    judged: impl Iterator<Item = (Option<String>, Verdict)>,
) -> Vec<(Option<String>, Verdict)> {
    let mut worst: BTreeMap<Option<String>, Verdict> = BTreeMap::new();
    for (object, verdict) in judged {
        let known = worst.entry(object).or_insert(Verdict::Ok);
        *known = Verdict::worst([&*known, &verdict]);
    }
    worst.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_standbys_of_one_name_the_worse_counts() {
        let bad = || Verdict::Critical("5 GiB behind".to_owned());
        let named = |name: &str, verdict| (Some(name.to_owned()), verdict);
        for judged in [
            [named("db2", bad()), named("db2", Verdict::Ok)],
            [named("db2", Verdict::Ok), named("db2", bad())],
        ] {
            let others = [named("db3", Verdict::Ok)];
            let found = worst_of_each(judged.into_iter().chain(others));
            assert_eq!(found, [named("db2", bad()), named("db3", Verdict::Ok)]);
        }
    }
}
