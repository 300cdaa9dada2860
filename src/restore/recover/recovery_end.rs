//! Where a recovery ended, by the promoted server and by its log.

use std::path::Path;

use jiff::Timestamp;

use super::stop_segment::StopSegment;
use crate::model::{Lsn, Timeline, TimelineHistory};
use crate::postgres::{self, Connection, PostgresError, ServerIdentity};

/// Where a recovery ended.
#[derive(Debug)]
pub(crate) struct RecoveryEnd {
    pub server: ServerIdentity,
    /// The timeline that was replayed; the promotion began one of its own.
    pub timeline: Timeline,
    /// End of the last record that was replayed.
    pub lsn: Lsn,
    /// Commit time of the last transaction that was replayed.
    pub to: Option<Timestamp>,
    pub logged: LoggedEnd,
    /// `None` where the listed archive holds nothing further.
    pub stop_segment: Option<StopSegment>,
}

/// Reads from the promoted scratch server where its recovery ended (`pg_last_wal_replay_lsn`, which stays after promotion);
/// `logged` is the same from its log.
///
/// # Errors
/// When it cannot be queried.
pub(crate) async fn read_recovery_end(
    connection: &Connection,
    data: &Path,
    logged: LoggedEnd,
) -> Result<RecoveryEnd, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_last_wal_replay_lsn()::text AS lsn,
               pg_catalog.pg_last_xact_replay_timestamp() AS replayed_to,
               pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) AS walfile";
    let what = "how far it recovered";
    let row = connection
        .query_one(QUERY, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let unreadable = |_| PostgresError::Answer { what };
    let lsn: Option<String> = row.try_get("lsn").map_err(unreadable)?;
    let lsn = lsn
        .and_then(|lsn| lsn.parse().ok())
        .ok_or(PostgresError::Answer { what })?;
    let walfile: String = row.try_get("walfile").map_err(unreadable)?;
    let timeline = parent_timeline(data, &walfile).ok_or(PostgresError::Answer { what })?;
    let to = row.try_get("replayed_to").map_err(unreadable)?;
    Ok(RecoveryEnd {
        server: postgres::server(connection).await?,
        timeline,
        lsn,
        to,
        logged,
        stop_segment: None,
    })
}

/// The timeline that the promotion left, from the history file that it wrote.
fn parent_timeline(data: &Path, walfile: &str) -> Option<Timeline> {
    let new = u32::from_str_radix(walfile.get(..8)?, 16)
        .ok()
        .map(Timeline)?;
    let text = std::fs::read_to_string(data.join("pg_wal").join(new.history_file())).ok()?;
    let history: TimelineHistory = text.parse().ok()?;
    history.parent().map(|switch| switch.timeline)
}

/// The end of a recovery, read from the server's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoggedEnd {
    /// Begin of the last record that was read. Where the recovery stopped before a target, this record was not replayed.
    pub last_record: Option<Lsn>,
    /// Begin of the record before which the recovery stopped for its target; `None` where it stopped for another reason.
    pub stopped_before: Option<Lsn>,
}

impl LoggedEnd {
    pub(crate) fn parse(log: &str) -> Self {
        let stopped = log
            .lines()
            .rev()
            .find_map(|line| line.split_once("recovery stopping before WAL location (LSN) \""));
        let stopped_before = stopped.and_then(|(_, at)| at.split('"').next()?.parse().ok());
        Self {
            last_record: last_record(log),
            stopped_before,
        }
    }
}

/// Begin of the last record that was read.
pub(crate) fn last_record(log: &str) -> Option<Lsn> {
    let lines = log.lines().rev();
    let mut done = lines.filter_map(|line| line.split_once("redo done at "));
    let (_, at) = done.next()?;
    at.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_where_the_recovery_ended() {
        let log = "LOG:  redo starts at 0/3000028\n\
                   LOG:  redo done at 0/5000140 system usage: CPU: user: 0.00 s\n\
                   FATAL:  recovery ended before configured recovery target was reached\n";
        assert_eq!(last_record(log), Some(Lsn(0x500_0140)));
        assert_eq!(last_record("LOG:  redo is not required\n"), None);
        let log = "LOG:  recovery stopping before WAL location (LSN) \"0/5000140\"\n\
                   LOG:  redo done at 0/5000140 system usage: CPU: user: 0.00 s\n";
        let at = Some(Lsn(0x500_0140));
        assert_eq!(
            LoggedEnd::parse(log),
            LoggedEnd {
                last_record: at,
                stopped_before: at
            }
        );
        assert_eq!(LoggedEnd::parse(""), LoggedEnd::default());
    }
}
