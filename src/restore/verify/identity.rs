//! Which cluster was restored, and where its recovery ended.

use std::path::Path;

use jiff::Timestamp;

use crate::model::{Lsn, Timeline, TimelineHistory, Verdict};
use crate::postgres::{self, Connection, PostgresError, Server};
use crate::restore::stop_point::LoggedEnd;
use crate::restore::wal_stop::StopSegment;

/// Where a recovery ended.
#[derive(Debug)]
pub struct Recovered {
    pub server: Server,
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
/// When it cannot be asked.
pub async fn recovered(
    connection: &Connection,
    data: &Path,
    logged: LoggedEnd,
) -> Result<Recovered, PostgresError> {
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
    Ok(Recovered {
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

/// Whether the system identifier is that of the backup, and that of this node's server.
pub fn judge_identity(recovered: u64, backup: Option<u64>, live: Option<u64>) -> Verdict {
    for (expected, whose) in [(backup, "the backup"), (live, "this node's server")] {
        if let Some(expected) = expected.filter(|expected| *expected != recovered) {
            return Verdict::Critical(format!(
                "the system identifier is {recovered}, that of {whose} {expected}"
            ));
        }
    }
    Verdict::Ok
}

/// Whether the recovery reached the timeline that the archive ends on.
///
/// `switched_at` is where that timeline begins, if it is not the backup's own. Its number alone proves nothing: PostgreSQL
/// takes that from `recovery_target_timeline`.
pub fn judge_timeline(
    recovered: &Recovered,
    planned: Timeline,
    switched_at: Option<Lsn>,
) -> Verdict {
    if recovered.timeline != planned {
        let ended_on = recovered.timeline;
        return Verdict::Critical(format!(
            "recovery ended on timeline {ended_on}, the archive continues on timeline {planned}"
        ));
    }
    match switched_at.filter(|switch| recovered.lsn < *switch) {
        Some(switch) => Verdict::Critical(format!(
            "recovery ended at {}, before timeline {planned} begins at {switch}",
            recovered.lsn
        )),
        None => Verdict::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clusters_backup_is_found() {
        assert_eq!(judge_identity(7, Some(7), None), Verdict::Ok);
        assert_eq!(judge_identity(7, None, Some(7)), Verdict::Ok);
        assert_ne!(judge_identity(7, Some(8), None), Verdict::Ok);
        assert_ne!(judge_identity(7, Some(7), Some(8)), Verdict::Ok);
    }
}
