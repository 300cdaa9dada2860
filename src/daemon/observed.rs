//! Keeps what the metrics and the page show of this node's own work.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::{every, judge};
use crate::archive::archiver::{PUSH_CLASSES, push_times};
use crate::cluster::{Status, View};
use crate::http::{JobState, LastRun, LastSuccess, Observed, Plots, Pushes, Requests, WaitingWal};
use crate::jobs::{JOBS, Job, checks};
use crate::model::JobDetail;
use crate::postgres::wal_directory;
use crate::repository::Success;
use crate::runner::{
    Activity, Attempt, JobHistory, Node, belongs_here, job_history, next_run, schedule_of,
};
use crate::storage::request_counts;
use crate::store::{Reading, Store, Writing};

/// Seconds of the shortest step of the plots: each gets one value.
const PLOTTED_SECS: i64 = 30;
/// A volume that does not answer for so long is not waited for.
const WAL_LIMIT: Duration = Duration::from_secs(3);
/// Seconds between two looks.
const PERIOD_SECS: u64 = 5;
const VERDICTS: [&str; 4] = ["ok", "warning", "unknown", "critical"];

/// Looks every few seconds. A store that does not answer leaves the last known state of the jobs.
pub(super) async fn keep(node: &Node, shown: &watch::Sender<Observed>) {
    let data = &node.tools.loaded.config.postgres.data_directory;
    let (mut plots, mut are_restored) = (Plots::default(), false);
    let mut plotted: Option<i64> = None;
    let mut wal = OneReader::default();
    let mut ticks = every(PERIOD_SECS);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let read = || {
            let data = data.clone();
            move || waiting_wal(&data, now)
        };
        let waiting_wal = wal.read(read, WAL_LIMIT).await.flatten();
        let outbox = node.store.read(|reading| reading.queued_events()).await;
        let mut jobs = Vec::new();
        for job in JOBS {
            let before = || {
                shown
                    .borrow()
                    .jobs
                    .iter()
                    .find(|it| it.name == job.name)
                    .cloned()
            };
            // A store that hangs is not waited for once more for each job.
            let state = match outbox {
                Ok(_) => job_state(node, job, now).await,
                Err(_) => None,
            };
            jobs.extend(state.or_else(before));
        }
        if !are_restored {
            are_restored = restore(&node.store, &mut plots, now).await;
        }
        // By the steps of the clock: a pause that is a little longer than one must leave no hole.
        let step = now.as_second().div_euclid(PLOTTED_SECS);
        if plotted != Some(step) {
            plotted = Some(step);
            let values = values(node, waiting_wal.as_ref(), now);
            plot(node, &mut plots, &values, now).await;
        }
        shown.send_replace(Observed {
            at: Some(now),
            checked_at: judged_at(&node.activity),
            plots: plots.clone(),
            findings: node.activity.findings(),
            jobs,
            waiting_wal,
            pushes: pushes(),
            requests: requests(),
            services: services(node),
            outbox: outbox.ok(),
        });
    }
}

/// The older of the last run of the checks, and of the last look at what this node depends on, which raises alerts too.
fn judged_at(activity: &Activity) -> Option<Timestamp> {
    let checks = activity.last_found(checks::JOB.name)?;
    Some(checks.min(activity.last_found(judge::OUTAGES)?))
}

/// What is plotted, as the verdict shows it now.
fn values(
    node: &Node,
    wal: Option<&WaitingWal>,
    now: Timestamp,
) -> [(&'static str, Option<f64>); 4] {
    let view: View = node.view.borrow().clone();
    let status: Status = judge::status(node, &view, &node.tools.known.borrow(), now);
    let lags = status.nodes.iter().filter_map(|line| line.lag_secs);
    #[expect(clippy::cast_precision_loss, reason = "a plot needs no exact byte")]
    let bytes = wal.map(|wal| wal.bytes as f64);
    [
        ("rpo", status.rpo.secs),
        ("rto", status.rto.secs),
        ("lag", lags.reduce(f64::max)),
        ("waiting-wal", bytes),
    ]
}

/// Takes in the values of now. What cannot be stored is lost with a restart, and shown until then.
async fn plot(
    node: &Node,
    plots: &mut Plots,
    values: &[(&'static str, Option<f64>)],
    now: Timestamp,
) {
    let (taken, oldest) = (plots.take(values, now), Plots::oldest(now));
    let keep = move |writing: &Writing<'_>| writing.keep_samples(&taken, &oldest);
    // That the store fails is an alert of its own.
    let _ = node.store.write(keep).await;
}

/// Takes in the plots of before this daemon, and gives whether that is done: while the file cannot be used, memory has none.
async fn restore(store: &Store, plots: &mut Plots, now: Timestamp) -> bool {
    if store.fault().is_some() {
        return false;
    }
    let stored = store.read(|reading| reading.samples()).await;
    // It may have failed meanwhile, and memory answered.
    let (Ok(stored), None) = (stored, store.fault()) else {
        return false;
    };
    plots.restore(&stored, now);
    true
}

/// Reads on a thread, one at a time: a volume that hangs holds up neither the caller nor, by a thread more for each look, the daemon.
#[derive(Debug)]
struct OneReader<T>(Option<JoinHandle<T>>);

impl<T> Default for OneReader<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> OneReader<T> {
    /// What the thread read; `None` where it takes longer than `limit`. Then the next call waits for the same thread.
    async fn read<F>(&mut self, work: impl FnOnce() -> F, limit: Duration) -> Option<T>
    where
        F: FnOnce() -> T + Send + 'static,
    {
        // What it read is of then.
        self.0.take_if(|running| running.is_finished());
        let running = self.0.get_or_insert_with(|| spawn_blocking(work()));
        let read = timeout(limit, running).await.ok()?;
        self.0 = None;
        read.ok()
    }
}

fn waiting_wal(data_directory: &Path, now: Timestamp) -> Option<WaitingWal> {
    let wal = wal_directory(data_directory).ok()?;
    Some(WaitingWal {
        files: wal.pending,
        bytes: wal.pending_bytes,
        oldest: wal.oldest_pending,
        full_in: wal.until_full(now),
        free_bytes: wal.free_bytes,
    })
}

/// `None` while the store cannot be read, or for a job whose schedule is wrong.
async fn job_state(node: &Node, job: &'static Job, now: Timestamp) -> Option<JobState> {
    let config = &node.tools.loaded.config;
    let view = node.view.borrow().clone();
    let identifier = view.sample.map(|sample| sample.system_identifier);
    let history = if job.is_cluster_wide {
        let (hostname, success) = (config.node.hostname.clone(), node.successes.get(job));
        let read = move |reading: &Reading<'_>| {
            job_history(Some(reading), job, &hostname, success.clone(), identifier)
        };
        node.store.read(read).await.ok()?
    } else {
        JobHistory::default()
    };
    let schedule = schedule_of(job, &config.schedule).ok()?;
    let is_here = belongs_here(job, &config.restore_test, &view, now);
    let next =
        (job.is_cluster_wide && is_here).then(|| next_run(&schedule, &history.last_runs, now));
    let run = history.last_run.as_ref();
    let activity = &node.activity;
    Some(JobState {
        name: job.name,
        schedule: job.schedule(&config.schedule).to_owned(),
        runs_on: job.runs_on(&config.restore_test).word(),
        is_here,
        running_since: activity.running_since(job),
        last_run: run.map(|run| LastRun {
            finished_at: run.finished_at,
            verdict: run.verdict.word(),
            reason: run.verdict.reason().map(str::to_owned),
        }),
        last_success: history.last_success.as_ref().map(last_success),
        next_run: next.flatten(),
        ended: VERDICTS.map(|verdict| (verdict, activity.ended_with(job, verdict))),
    })
}

fn last_success(success: &Success) -> LastSuccess {
    LastSuccess {
        finished_at: success.finished_at(),
        elapsed_secs: success.elapsed_secs,
        node: success.node.clone(),
        bytes: match &success.detail {
            JobDetail::Dump(dump) => dump.bytes,
            JobDetail::BaseBackup(backup) => backup.compressed_bytes,
            _ => None,
        },
    }
}

fn pushes() -> Pushes {
    let times = push_times();
    let ends = PUSH_CLASSES.into_iter().chain([f64::INFINITY]);
    Pushes {
        classes: ends.zip(times.classes).collect(),
        total_secs: times.total_secs,
        refused: times.refused,
    }
}

fn requests() -> Vec<Requests> {
    let counts = request_counts().into_iter();
    let of = counts.map(|count| Requests {
        operation: count.operation,
        job: count.job,
        requests: count.requests,
        sent_bytes: count.sent_bytes,
        received_bytes: count.received_bytes,
    });
    of.collect()
}

fn services(node: &Node) -> Vec<(&'static str, bool)> {
    let tried = |name, attempt| match attempt {
        Attempt::Missing => None,
        Attempt::Answered => Some((name, true)),
        Attempt::Failed(..) => Some((name, false)),
    };
    let outages = &node.outages;
    let services = [
        tried("s3", outages.s3.last()),
        tried("redis", outages.redis.last()),
        Some(("state-store", node.store.fault().is_none())),
    ];
    services.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use tempfile::TempDir;

    use super::*;
    use crate::model::{Finding, Scope, Verdict};
    use crate::store::StoredSample;

    #[test]
    fn a_node_judges_only_while_both_its_checks_and_its_alerts_are_looked_at() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let finding = [Finding::new("a", Scope::Cluster, "", Verdict::Ok)];
        let activity = Activity::default();
        activity.found_all(checks::JOB.name, &finding, at(5));
        assert_eq!(judged_at(&activity), None);
        let finding = [Finding::new("s3", Scope::Cluster, "", Verdict::Ok)];
        activity.found(judge::OUTAGES, &finding, at(3));
        assert_eq!(judged_at(&activity), Some(at(3)));
    }

    #[tokio::test]
    async fn a_volume_that_hangs_holds_one_thread_and_no_look() {
        let started = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let mut released = Some(released);
        let mut reader = OneReader::default();
        let mut read = async |limit| {
            let (started, released) = (started.clone(), released.take());
            let work = || {
                started.fetch_add(1, Ordering::SeqCst);
                move || {
                    if let Some(hangs) = released {
                        let _ = hangs.recv();
                    }
                    7
                }
            };
            reader.read(work, limit).await
        };
        for _ in 0..3 {
            assert_eq!(read(Duration::from_millis(20)).await, None);
        }
        assert_eq!(started.load(Ordering::SeqCst), 1);
        drop(release);
        assert_eq!(read(Duration::from_secs(60)).await, Some(7));
        assert_eq!(read(Duration::from_secs(60)).await, Some(7));
        assert!(started.load(Ordering::SeqCst) >= 2);
    }

    #[tokio::test]
    async fn the_plots_of_before_are_taken_in_once_the_file_can_be_read() {
        let directory = TempDir::new().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let sample = |at_secs, value| StoredSample {
            series: "rpo".to_owned(),
            step_secs: 30,
            at_secs,
            value,
        };
        let opened = Store::open(directory.path(), now).unwrap();
        let stored = [sample(-60, 5.0), sample(0, 1.0)];
        let keep = move |writing: &Writing<'_>| writing.keep_samples(&stored, &[]);
        opened.store.write(keep).await.unwrap();
        let mut plots = Plots::default();
        plots.take(&[("rpo", Some(3.0))], now);

        let broken = TempDir::new().unwrap();
        std::fs::create_dir(broken.path().join("xdb.db")).unwrap();
        let unusable = Store::serve(broken.path());
        assert!(unusable.read(|reading| reading.samples()).await.is_ok());
        assert!(!restore(&unusable, &mut plots, now).await);

        assert!(restore(&opened.store, &mut plots, now).await);
        let points: Vec<_> = plots.points("rpo", crate::http::SPANS[0]).collect();
        assert_eq!(points, [(-60, 5.0), (0, 3.0)]);
    }
}
