//! The history of a job, as far as this node knows it: its own runs, the last success of any node, the role's last change.

use jiff::Timestamp;

use super::LastRuns;
use crate::jobs::Job;
use crate::model::{JobDetail, Run, Verdict};
use crate::repository::Success;
use crate::store::{Reading, StoreError};

/// Runs that are read back to count the unknown ones in a row.
const REMEMBERED: u32 = 20;

/// The history of a job, as this node knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct JobHistory {
    /// Its last run here, whatever came of it.
    pub last_run: Option<Run>,
    /// Its last success, here or on another node.
    pub last_success: Option<Success>,
    pub last_runs: LastRuns,
}

/// What is known of `job`: from this node's store, and from `success`, its last one in the bucket.
///
/// `reading` is `None` where nothing ran yet. `system_identifier` is the live server's; the role's last change counts only
/// for what is done once for the cluster.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn job_history(
    reading: Option<&Reading<'_>>,
    job: &Job,
    hostname: &str,
    success: Option<Success>,
    system_identifier: Option<u64>,
) -> Result<JobHistory, StoreError> {
    let this_cluster = |detail: Option<&JobDetail>| {
        is_of(
            detail.and_then(JobDetail::system_identifier),
            system_identifier,
        )
    };
    let success = success.filter(|success| this_cluster(Some(&success.detail)));
    let Some(reading) = reading else {
        return Ok(JobHistory {
            last_runs: last_runs_of(&[], success.as_ref()),
            last_run: None,
            last_success: success,
        });
    };
    let mut runs = reading.runs(Some(job.name), REMEMBERED)?;
    runs.retain(|run| this_cluster(run.detail.as_ref()));
    let own = reading.last_good_run(job.name)?;
    let own = own.filter(|run| this_cluster(run.detail.as_ref()));
    let own = own.and_then(|run| success_of(hostname, &run));
    let last_success = [own, success]
        .into_iter()
        .flatten()
        .max_by_key(Success::finished_at);
    let role_changed_at = match system_identifier.filter(|_| job.is_cluster_wide) {
        Some(identifier) => reading.role_changed_at(identifier)?,
        None => None,
    };
    let last_runs = LastRuns {
        role_changed_at,
        ..last_runs_of(&runs, last_success.as_ref())
    };
    Ok(JobHistory {
        last_run: runs.into_iter().next(),
        last_success,
        last_runs,
    })
}

/// Whether a run that was about the cluster `told` counts for the live one; it does where either is unknown. After an upgrade
/// to another major version the work of the old cluster is nothing to rest on.
fn is_of(told: Option<u64>, live: Option<u64>) -> bool {
    told.is_none() || live.is_none() || told == live
}

/// A good run as the other nodes are told of it; `None` where it left nothing to tell.
pub(super) fn success_of(hostname: &str, run: &Run) -> Option<Success> {
    let detail = run.detail.as_ref()?.summary();
    let (started_at, finished_at) = (run.started_at, run.finished_at);
    Some(Success::new(hostname, started_at, finished_at, detail))
}

/// What the schedule needs of a job's last runs, newest first, and of its last success on any node.
fn last_runs_of(runs: &[Run], success: Option<&Success>) -> LastRuns {
    let judged = |run: &&Run| !matches!(run.verdict, Verdict::Unknown(_));
    let here: Option<Timestamp> = runs.iter().find(judged).map(|run| run.started_at);
    let anywhere = success.map(|success| success.started_at);
    let last_judged = here.max(anywhere);
    // Those before a success elsewhere are over.
    let since = |run: &&Run| !judged(run) && Some(run.started_at) > last_judged;
    let unknown = runs.iter().take_while(since).count();
    LastRuns {
        last_run: runs.first().map(|run| run.started_at),
        last_judged,
        unknown_in_a_row: u32::try_from(unknown).unwrap_or(u32::MAX),
        ..LastRuns::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DumpDetail;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(second: i64, verdict: Verdict) -> Run {
        Run {
            job: "dump".to_owned(),
            target: String::new(),
            started_at: at(second),
            finished_at: at(second + 1),
            succeeded: verdict == Verdict::Ok,
            verdict,
            detail: None,
        }
    }

    fn elsewhere(second: i64) -> Success {
        let detail = JobDetail::Dump(DumpDetail::default());
        Success::new("db1", at(second), at(second + 1), detail)
    }

    #[test]
    fn what_was_done_for_another_cluster_of_the_same_name_does_not_count() {
        for (told, live, counts) in [
            (Some(8), Some(8), true),
            (Some(8), Some(7), false),
            (Some(8), None, true),
            (None, Some(7), true),
        ] {
            assert_eq!(is_of(told, live), counts, "{told:?} {live:?}");
        }
    }

    #[test]
    fn the_later_of_this_nodes_run_and_the_clusters_success_counts() {
        let unknown = || Verdict::Unknown("S3 does not answer".to_owned());
        let bad = Verdict::Critical("pg_dump failed".to_owned());
        for (what, runs, success, last_judged, unknown_in_a_row) in [
            ("nothing", vec![], None, None, 0),
            (
                "only the other node",
                vec![],
                Some(elsewhere(50)),
                Some(50),
                0,
            ),
            (
                "here, later",
                vec![run(60, bad.clone())],
                Some(elsewhere(50)),
                Some(60),
                0,
            ),
            (
                "there, later",
                vec![run(40, Verdict::Ok)],
                Some(elsewhere(50)),
                Some(50),
                0,
            ),
            (
                "failing since",
                vec![run(70, unknown()), run(60, unknown()), run(40, bad)],
                None,
                Some(40),
                2,
            ),
            (
                "failing before the other node did it",
                vec![run(30, unknown())],
                Some(elsewhere(50)),
                Some(50),
                0,
            ),
            (
                "failing after it, too",
                vec![run(60, unknown()), run(30, unknown())],
                Some(elsewhere(50)),
                Some(50),
                1,
            ),
        ] {
            let last = last_runs_of(&runs, success.as_ref());
            let expected = (last_judged.map(at), unknown_in_a_row);
            assert_eq!(
                (last.last_judged, last.unknown_in_a_row),
                expected,
                "{what}"
            );
        }
    }
}
