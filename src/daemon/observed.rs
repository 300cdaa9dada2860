//! Keeps what the metrics and the page show of this node's own work.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{every, judge};
use crate::archive::archiver::{PUSH_CLASSES, push_times};
use crate::cluster::{Status, View};
use crate::http::{JobState, LastRun, LastSuccess, Observed, Plots, Pushes, Requests, WaitingWal};
use crate::jobs::{JOBS, Job};
use crate::model::JobDetail;
use crate::postgres::wal_directory;
use crate::process;
use crate::repository::Success;
use crate::runner::{Attempt, JobHistory, Node, belongs_here, job_history, next_run, schedule_of};
use crate::storage::request_counts;
use crate::store::{Reading, Writing};

/// Between two values of the plots.
const PLOTTED: Duration = Duration::from_secs(30);
/// Seconds between two looks.
const PERIOD_SECS: u64 = 5;
const VERDICTS: [&str; 4] = ["ok", "warning", "unknown", "critical"];

/// Looks every few seconds. A store that does not answer leaves the last known state of the jobs.
pub(super) async fn keep(node: &Node, shown: &watch::Sender<Observed>) {
    let data = &node.tools.loaded.config.postgres.data_directory;
    let mut plots: Option<Plots> = None;
    let mut plotted: Option<Instant> = None;
    let mut ticks = every(PERIOD_SECS);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let waiting_wal = waiting_wal(data, now).await;
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
            jobs.extend(job_state(node, job, now).await.or_else(before));
        }
        if plots.is_none() {
            // Those of before this daemon; a store that cannot be read now is asked again.
            let stored = node.store.read(|reading| reading.samples()).await;
            plots = stored.ok().map(|stored| Plots::of(&stored, now));
        }
        if plotted.is_none_or(|at| at.elapsed() >= PLOTTED) {
            plotted = Some(Instant::now());
            let values = values(node, waiting_wal.as_ref(), now);
            plot(node, plots.get_or_insert_default(), &values, now).await;
        }
        shown.send_replace(Observed {
            plots: plots.clone().unwrap_or_default(),
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

async fn waiting_wal(data_directory: &Path, now: Timestamp) -> Option<WaitingWal> {
    let data = data_directory.to_owned();
    let wal = process::on_a_thread(move || wal_directory(&data)).await;
    let wal = wal.ok()?;
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
    let next = job
        .is_cluster_wide
        .then(|| next_run(&schedule, &history.last_runs, now));
    let run = history.last_run.as_ref();
    let activity = &node.activity;
    Some(JobState {
        name: job.name,
        schedule: job.schedule(&config.schedule).to_owned(),
        runs_on: job.runs_on(&config.restore_test).word(),
        is_here: belongs_here(job, &config.restore_test, &view, now),
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
