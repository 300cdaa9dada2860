//! `xdb jobs`: what runs by schedule, what came of it last, and when it runs next. Nothing is changed.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, table};
use crate::config::Config;
use crate::jobs::{JOBS, Job};
use crate::log;
use crate::model::{Run, ago};
use crate::postgres;
use crate::repository::{RepositoryHandle, Shared, Success};
use crate::runner::{self, JobHistory, next_run};
use crate::store::Reader;

/// For one object of the bucket.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// One job as it is printed.
#[derive(Debug, Serialize)]
struct JobLine {
    job: &'static str,
    schedule: String,
    /// `primary`, `replica` or `both`.
    runs_on: &'static str,
    /// Its last run on this node; `None` where it never ran, and for checks, which leave no history.
    last_run: Option<LastRun>,
    /// Its last success on any node.
    last_success: Option<Success>,
    /// At or before now: due. For another role's job, when it is planned there.
    next_run: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct LastRun {
    started_at: Timestamp,
    finished_at: Timestamp,
    verdict: &'static str,
    reason: Option<String>,
}

impl From<&Run> for LastRun {
    fn from(run: &Run) -> Self {
        Self {
            started_at: run.started_at,
            finished_at: run.finished_at,
            verdict: run.verdict.word(),
            reason: run.verdict.reason().map(str::to_owned),
        }
    }
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    let now = Timestamp::now();
    let mut in_bucket = InBucket::of(&handles.repository).await;
    let reader = Reader::open(&config.node.state_directory)?;
    let control = postgres::control_data(
        &config.postgres.bin_directory,
        &config.postgres.data_directory,
    );
    // Without a data directory there is no role that may have changed.
    let identifier = control.await.ok().map(|control| control.system_identifier);
    let mut listed = Vec::new();
    for job in JOBS {
        let success = if job.is_cluster_wide {
            in_bucket.last_success(job).await
        } else {
            None
        };
        let hostname = &config.node.hostname;
        let reading = reader.as_ref().map(Reader::reading);
        let history = runner::job_history(reading.as_ref(), job, hostname, success, identifier)?;
        listed.push(listed_of(job, config, history, now)?);
    }
    if arguments.json {
        say(serde_json::to_string_pretty(&listed)?)?;
    } else {
        print(&listed, now)?;
    }
    let Some(reason) = in_bucket.unknown else {
        return Ok(Exit::Good);
    };
    complain(
        &format!("what other nodes did is not known: {reason}"),
        Some("the times above are those that this node remembers"),
    );
    Ok(Exit::CouldNot)
}

fn listed_of(
    job: &Job,
    config: &Config,
    history: JobHistory,
    now: Timestamp,
) -> anyhow::Result<JobLine> {
    let schedule = runner::schedule_of(job, &config.schedule)?;
    // Runs of the checks are not kept, so the time of the last one is unknown.
    let next = job
        .is_cluster_wide
        .then(|| next_run(&schedule, &history.last_runs, now));
    Ok(JobLine {
        job: job.name,
        schedule: job.schedule(&config.schedule).to_owned(),
        runs_on: job.runs_on(&config.restore_test).word(),
        last_run: history.last_run.as_ref().map(LastRun::from),
        last_success: history.last_success,
        next_run: next.flatten(),
    })
}

/// Asks until the first failure: where one object cannot be read, the others would take as long.
struct InBucket {
    shared: Option<Shared>,
    unknown: Option<String>,
}

impl InBucket {
    async fn of(repository: &RepositoryHandle) -> Self {
        match repository.shared().await {
            Ok(shared) => Self {
                shared: Some(shared),
                unknown: None,
            },
            Err(error) => Self {
                shared: None,
                unknown: Some(log::chain(&error)),
            },
        }
    }

    async fn last_success(&mut self, job: &Job) -> Option<Success> {
        let shared = self.shared.as_ref()?;
        let reason = match timeout(LIMIT, shared.last_success(job.name)).await {
            Ok(Ok(success)) => return success,
            Ok(Err(error)) => log::chain(&error),
            Err(_) => format!("S3 did not answer within {} s", LIMIT.as_secs()),
        };
        (self.shared, self.unknown) = (None, Some(reason));
        None
    }
}

fn print(listed: &[JobLine], now: Timestamp) -> std::io::Result<()> {
    let none = || "-".to_owned();
    let rows = listed.iter().map(|job| {
        let run = job.last_run.as_ref();
        let success = job.last_success.as_ref();
        vec![
            job.job.to_owned(),
            job.schedule.clone(),
            job.runs_on.to_owned(),
            run.map_or_else(none, |run| {
                format!("{}, {}", run.verdict, ago(run.finished_at, now))
            }),
            success.map_or_else(none, |success| {
                format!("{}, {}", ago(success.finished_at(), now), success.node)
            }),
            match job.next_run {
                Some(next) if next <= now => "due".to_owned(),
                Some(next) => next.strftime("%F %T").to_string(),
                None => none(),
            },
        ]
    });
    let header = [
        "JOB",
        "SCHEDULE",
        "RUNS ON",
        "LAST RUN HERE",
        "LAST SUCCESS",
        "NEXT RUN (UTC)",
    ];
    say(table(&header, &[], rows).trim_fmt())?;
    for job in listed {
        let reason = job.last_run.as_ref().and_then(|run| run.reason.as_ref());
        if let Some(reason) = reason {
            say(format_args!("{}: {reason}", job.job))?;
        }
    }
    Ok(())
}
