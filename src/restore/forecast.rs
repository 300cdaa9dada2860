//! What a restore for good will do, take and lose: told before anything is touched.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::live;
use super::preflight::Found;
use crate::archive::catalog::Tablespace;
use crate::config::Config;
use crate::model::{Lsn, Timeline, WalSegment};
use crate::storage::{Shared, Success};

/// The plan as people and programs read it.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
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
    /// By the last restore test that passed; `None` where there is none to go by.
    pub expected_secs: Option<f64>,
    /// That test, or why there is none.
    pub expected_by: String,
    /// What will not come back, in words.
    pub lost: String,
}

/// WAL that is replayed, at most.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    pub first: String,
    pub last: String,
    pub segments: u64,
    pub bytes: u64,
    /// Where the last segment ends.
    pub to_lsn: Lsn,
}

/// How fast a restore test was, in bytes a second.
#[derive(Debug, Clone, PartialEq)]
struct Pace {
    fetch: f64,
    replay: f64,
}

/// Looks at what is known of the plan in `found`; `free` is the room where `directory` is, or will be.
pub async fn forecast(config: &Config, found: &Found, directory: &Path, free: u64) -> Forecast {
    let plan = &found.plan;
    let wal = replayed(found);
    let (pace, expected_by) = match last_test(config).await {
        Ok(test) => match pace_of(&test) {
            Some(pace) => (Some(pace), named(&test)),
            None => (
                None,
                format!("{} does not tell how fast it was", named(&test)),
            ),
        },
        Err(reason) => (None, reason),
    };
    let replay_bytes = wal.as_ref().map_or(0, |wal| wal.bytes);
    Forecast {
        directory: directory.to_owned(),
        repository: found.repository.to_string(),
        backup: plan.backup.name.clone(),
        backup_finished_at: plan.backup.finished_at,
        chain: plan.chain.clone(),
        fetch_bytes: plan.fetch_bytes,
        timeline: plan.path.timeline,
        tablespaces: plan.sentinel.tablespaces.clone(),
        until: plan.until.as_ref().map(ToString::to_string),
        needed_bytes: plan.needed_bytes,
        free_bytes: free,
        expected_secs: pace.map(|pace| expect(&pace, plan.fetch_bytes, replay_bytes)),
        expected_by,
        lost: lost(config, found).await,
        wal,
    }
}

fn replayed(found: &Found) -> Option<Replayed> {
    let (plan, size) = (&found.plan, found.catalog.wal.size);
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

/// The last restore test that passed on any node, as the bucket tells it.
async fn last_test(config: &Config) -> Result<Success, String> {
    let asked = async {
        let shared = Shared::open(config).await?;
        shared.last_success("restore-test").await
    };
    match asked.await {
        Ok(Some(success)) => Ok(success),
        Ok(None) => Err("no restore test has passed yet".to_owned()),
        Err(error) => Err(format!(
            "the last restore test is not known: {}",
            crate::log::chain(&error)
        )),
    }
}

fn named(test: &Success) -> String {
    let at = test.started_at.strftime("%F %T UTC");
    format!("the restore test of {at} on {}", test.node)
}

/// Read from the steps of its report; `None` where they are not there, or moved nothing.
fn pace_of(test: &Success) -> Option<Pace> {
    let steps = test.detail["steps"].as_array()?;
    let rate = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name)?;
        let (bytes, secs) = (step["bytes"].as_f64()?, step["secs"].as_f64()?);
        (bytes > 0.0 && secs > 0.0).then(|| bytes / secs)
    };
    Some(Pace {
        fetch: rate("fetch")?,
        replay: rate("recover")?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn expect(pace: &Pace, fetch_bytes: u64, replay_bytes: u64) -> f64 {
    let secs = fetch_bytes as f64 / pace.fetch + replay_bytes as f64 / pace.replay;
    (secs * 10.0).round() / 10.0
}

/// What will not come back: measured against this node's server, else against the high-water mark.
async fn lost(config: &Config, found: &Found) -> String {
    let (plan, size) = (&found.plan, found.catalog.wal.size);
    let Some(last) = plan.path.reachable else {
        return "everything: the archive holds no WAL for this backup".to_owned();
    };
    let end = last.end(size);
    if let Some(until) = &plan.until {
        return format!("all that was done after {until}; the archive goes on to {end}");
    }
    if let Ok(live) = &found.live {
        let measured = live::measure_rpo(config, live, plan.path.timeline, end).await;
        return match measured {
            Ok(0.0) => "nothing that this node's server has committed by now".to_owned(),
            Ok(secs) => format!(
                "the last {secs:.1} s of what this node's server has committed: the archive does not hold them yet"
            ),
            Err(reason) => format!("unknown: {reason}"),
        };
    }
    let silent = found
        .live
        .as_ref()
        .err()
        .map_or("", |silent| silent.reason());
    match found.catalog.lost_end() {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_duration_is_what_the_last_test_would_take_for_as_much() {
        let test = |detail| {
            let at = Timestamp::UNIX_EPOCH;
            Success::new("restore-test", "db2", at, at, detail)
        };
        let steps = json!({ "steps": [
            { "name": "preflight", "secs": 0.2, "bytes": null },
            { "name": "fetch", "secs": 2.0, "bytes": 200 },
            { "name": "recover", "secs": 1.0, "bytes": 50 },
        ]});
        let pace = pace_of(&test(steps)).unwrap();
        assert!((expect(&pace, 1000, 500) - 20.0).abs() < 0.01);
        // What an older xdb kept, and a test that replayed nothing.
        for detail in [
            json!({ "rto_secs": 1.0 }),
            json!({ "steps": [{ "name": "fetch", "secs": 0.0, "bytes": 0 }] }),
        ] {
            assert_eq!(pace_of(&test(detail)), None);
        }
    }
}
