//! One run by hand of what the daemon does by schedule: the same lock, history, alerts and keys, with or without a daemon.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Node, RunnerError, belongs_here, node, peers, publish};
use crate::cluster::{Knowledge, ServerSampler, View};
use crate::config::{Config, Loaded, RestoreTest};
use crate::jobs::{Job, JobRun};
use crate::log;
use crate::model::Outcome;
use crate::repository::{RepositoryHandle, Timelines, own_history, superseded};
use crate::store::{StateFiles, Store};

/// Runs `work`, publishes its outcome as the daemon would, and returns its result.
///
/// The work comes first: a store or a Redis that is away costs history or alerts, which is logged, and nothing else.
pub(crate) async fn run_once<T>(
    (loaded, repository): (&Loaded, &RepositoryHandle),
    job: &'static Job,
    work: impl Future<Output = (T, JobRun)>,
) -> T {
    let opened = open(loaded, repository);
    let (gave, run) = work.await;
    match opened {
        Ok(node) => publish::publish_last(&node, job, run).await,
        Err(error) => {
            let hint = error.hint();
            let hint = hint
                .map(|hint| format!(" (HINT: {hint})"))
                .unwrap_or_default();
            tracing::warn!(
                "the {} leaves no history and no alert: {}{hint}",
                job.name,
                log::chain(&error)
            );
        }
    }
    gave
}

fn open(loaded: &Loaded, repository: &RepositoryHandle) -> Result<Arc<Node>, RunnerError> {
    let opened = Store::open(&loaded.config.node.state_directory, Timestamp::now())?;
    if let Some(aside) = opened.set_aside {
        tracing::warn!(
            "the state was damaged and is empty now; the old file is {}",
            aside.display()
        );
    }
    // The role is not sampled here: what is published does not depend on it.
    let (_, view) = watch::channel(View::default());
    let (_, known) = watch::channel(Knowledge::default());
    Node::open(loaded, repository, opened.store, view, known)
}

/// Why a job cannot be run here by hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    #[error("refused: {job} runs on the {place}, and {reason}")]
    Elsewhere {
        job: &'static str,
        place: &'static str,
        reason: String,
    },
    #[error("the role of this node is not known: {reason}")]
    UnknownRole { reason: String },
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl NotRun {
    /// What the operator can do.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Elsewhere { .. } => Some("run it there; `xdb jobs` shows what runs where"),
            Self::UnknownRole { .. } => Some(
                "is PostgreSQL up? postgres.host and postgres.port lead to this node's own server",
            ),
            Self::Runner(error) => error.hint(),
        }
    }
}

/// Runs `job` now, as the daemon does when it is due; returns its outcome, and whether it was put off.
///
/// # Errors
/// When the job belongs to another role than this node's, or the role is unknown.
pub(crate) async fn run_job(
    (loaded, repository): (&Loaded, &RepositoryHandle),
    job: &'static Job,
) -> Result<(Outcome, bool), NotRun> {
    let config = &loaded.config;
    let view = match own_view(config, repository).await {
        Ok(view) => view,
        // What runs everywhere runs without a role, too.
        Err(_) if !job.is_cluster_wide => View::default(),
        Err(reason) => return Err(NotRun::UnknownRole { reason }),
    };
    refuse_elsewhere(job, &config.restore_test, &view)?;
    let known = peers::look_around(config).await;
    let (view, known) = (watch::channel(view).1, watch::channel(known).1);
    let tools = node::tools(loaded, repository, view, known)?;
    let work = async {
        let run = job.run(&tools).await;
        ((run.outcome.clone(), run.not_now), run)
    };
    Ok(run_once((loaded, repository), job, work).await)
}

/// What the daemon would know of the role.
async fn own_view(config: &Config, repository: &RepositoryHandle) -> Result<View, String> {
    let sampled = ServerSampler::new(&config.postgres).sample().await;
    let sample = sampled.map_err(|failure| failure.reason)?;
    let mut view = View::default();
    view.record_sample(sample);
    view.descends(own_history(
        &config.postgres.data_directory,
        sample.timeline,
    ));
    if let Some(own) = view.position() {
        let asked = async {
            let state = StateFiles::of(&config.node.state_directory);
            let timelines = Timelines::of(&repository.get().await?, state.clone());
            superseded(&timelines, &state, &own).await
        };
        if let Some(proof) = asked.await.map_err(|error| log::chain(&error))? {
            view.record_supersession(proof);
        }
    }
    Ok(view)
}

fn refuse_elsewhere(job: &Job, settings: &RestoreTest, view: &View) -> Result<(), NotRun> {
    // By the time that it was sampled: a slow look at S3 since then makes the role no less known.
    let now = view.sample.map_or_else(Timestamp::now, |sample| sample.at);
    if belongs_here(job, settings, view, now) {
        return Ok(());
    }
    let reason = match view.superseded_by {
        Some(timeline) => format!("another node was promoted to timeline {timeline}"),
        None => {
            let replica = view.sample.is_some_and(|sample| sample.in_recovery);
            format!(
                "this node is the {}",
                if replica { "replica" } else { "primary" }
            )
        }
    };
    Err(NotRun::Elsewhere {
        job: job.name,
        place: job.runs_on(settings).word(),
        reason,
    })
}
