//! The forecast of a restore for good: what it will do, how long that takes, and what will be lost.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::loss::measure_rpo;
use super::survey::Survey;
use crate::model::{Lsn, Timeline, WalSegment};
use crate::repository::catalog::Tablespace;
use crate::repository::{Repository, RestoreTime, RestoreWork, expect_restore};

/// The plan as people and programs read it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Forecast {
    pub directory: PathBuf,
    pub repository: String,
    pub backup: String,
    pub backup_finished_at: Option<Timestamp>,
    /// The backups to fetch, the full one first.
    pub chain: Vec<String>,
    /// As stored, all of the chain.
    pub fetch_bytes: u64,
    /// The first and the last segment to replay, and how many; `None` where not even the first is there.
    pub wal: Option<Replayed>,
    /// The timeline that recovery follows to its end.
    pub timeline: Timeline,
    /// Those come back as directories in `pg_tblspc`, wherever they stood.
    pub tablespaces: Vec<Tablespace>,
    /// Where it stops; `None` at the end of the archive.
    pub until: Option<String>,
    pub needed_bytes: u64,
    pub free_bytes: u64,
    /// From restore tests, as in `xdb status`; `None` without one.
    pub expected_secs: Option<f64>,
    /// Both ends of the range that those tests allow.
    pub expected_low_secs: Option<f64>,
    pub expected_high_secs: Option<f64>,
    /// Those tests, or why there is no forecast.
    pub expected_by: String,
    /// What will not come back, in words.
    pub lost: String,
}

/// WAL that is replayed, at most.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Replayed {
    pub first: String,
    pub last: String,
    pub segments: u64,
    pub bytes: u64,
    /// Where the last segment ends.
    pub to_lsn: Lsn,
}

/// Proofs that are read: more than the forecast rests on, for some may be of another repository.
const READ: usize = 40;

/// Forecasts the plan in `survey`; `free` is the room where `directory` is, or will be.
pub(crate) async fn forecast(survey: &Survey, directory: &Path, free: u64) -> Forecast {
    let plan = &survey.plan;
    let wal = replayed(survey);
    let path = &plan.path;
    let work = RestoreWork {
        fetch_bytes: plan.fetch_bytes,
        wal_segments: path.segments,
        wal_bytes: path.stored_bytes,
    };
    let expected = expected(&survey.repository, &work).await;
    let of = |secs: fn(&RestoreTime) -> f64| expected.as_ref().ok().map(secs);
    Forecast {
        directory: directory.to_owned(),
        repository: survey.repository.location.to_string(),
        backup: plan.backup.name.clone(),
        backup_finished_at: plan.backup.finished_at,
        chain: plan.chain.clone(),
        fetch_bytes: plan.fetch_bytes,
        timeline: plan.path.timeline,
        tablespaces: plan.sentinel.tablespaces.clone(),
        until: plan.until.as_ref().map(ToString::to_string),
        needed_bytes: plan.needed_bytes,
        free_bytes: free,
        expected_secs: of(|time| time.secs),
        expected_low_secs: of(|time| time.low_secs),
        expected_high_secs: of(|time| time.high_secs),
        expected_by: match expected {
            Ok(time) => time.based_on,
            Err(reason) => reason,
        },
        lost: lost(survey).await,
        wal,
    }
}

fn replayed(survey: &Survey) -> Option<Replayed> {
    let (plan, size) = (&survey.plan, survey.catalog.wal.size);
    let last = plan.path.reachable?;
    let start = plan.sentinel.start_lsn;
    Some(Replayed {
        first: WalSegment::holding(plan.backup.timeline, start, size).name(size),
        last: last.name(size),
        segments: plan.path.segments,
        bytes: last.end(size).0.saturating_sub(start.0),
        to_lsn: last.end(size),
    })
}

/// By the newest restore tests of this repository on any node.
async fn expected(repository: &Repository, work: &RestoreWork) -> Result<RestoreTime, String> {
    let read = repository.shared.newest_proofs(READ).await;
    let mut proofs = read.map_err(|error| {
        let reason = crate::log::chain(&error);
        format!("the restore tests cannot be read: {reason}")
    })?;
    let name = repository.location.to_string();
    proofs.retain(|proof| proof.repository == name);
    expect_restore(work, &proofs)
}

/// What will not come back: measured against this node's server, else against the high-water mark.
async fn lost(survey: &Survey) -> String {
    let (plan, size) = (&survey.plan, survey.catalog.wal.size);
    let Some(last) = plan.path.reachable else {
        return "everything: the archive holds no WAL for this backup".to_owned();
    };
    let end = last.end(size);
    if let Some(until) = &plan.until {
        return format!("all that was done after {until}; the archive reaches to {end}");
    }
    if let Ok(live) = &survey.live {
        let measured = measure_rpo(
            &survey.repository.program.postgres.bin_directory,
            live,
            plan.path.timeline,
            end,
        )
        .await;
        return match measured {
            Ok(0.0) => "nothing that this node's server has committed by now".to_owned(),
            Ok(secs) => format!(
                "the last {secs:.1} s of what this node's server has committed: the archive does not hold them yet"
            ),
            Err(reason) => format!("unknown: {reason}"),
        };
    }
    let silent = survey
        .live
        .as_ref()
        .err()
        .map_or("", |silent| silent.reason());
    match survey.catalog.lost_end() {
        Ok(None) => format!(
            "nothing that was archived; what the primary had not archived yet is unknown: {silent}"
        ),
        Ok(Some(mark)) => format!(
            "what follows {end}: {} was archived last, and the repository does not hold it",
            mark.name(size)
        ),
        Err(unmarked) => format!("unknown: {silent}, and {unmarked}"),
    }
}
