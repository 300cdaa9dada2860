//! Starts what is due: one run of a job at a time, and a panic in one leaves the others running.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::schedule::{Past, Schedule, next_run};
use super::{DaemonError, Node, publish};
use crate::config::Config;
use crate::jobs::{Job, Ran, Tools, Where};
use crate::model::{Outcome, Run, Verdict};
use crate::store::StoreError;

/// Runs that are read back to count the unknown ones in a row.
const REMEMBERED: u32 = 20;

pub(super) struct Driver {
    node: Arc<Node>,
    schedules: Vec<(Job, Schedule)>,
    /// Dropped with the driver, which ends every run.
    stop: watch::Sender<()>,
}

impl Driver {
    pub(super) fn new(node: &Arc<Node>) -> Result<Self, DaemonError> {
        let config = &node.tools.loaded.config;
        let schedule = |job: Job| {
            let parsed = Schedule::parse(job.schedule(config), TimeZone::UTC);
            parsed
                .map(|schedule| (job, schedule))
                .map_err(|reason| DaemonError::Schedule {
                    job: job.name(),
                    reason,
                })
        };
        let schedules = Job::ALL
            .into_iter()
            .map(schedule)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            node: node.clone(),
            schedules,
            stop: watch::Sender::new(()),
        })
    }

    /// Runs until it is dropped, and its runs with it.
    pub(super) async fn drive(&self) {
        let config = &self.node.tools.loaded.config;
        let mut role = None;
        let mut clock = Clock::new();
        let mut runs: JoinSet<Option<Ran>> = JoinSet::new();
        let mut running: HashMap<tokio::task::Id, (Job, Timestamp)> = HashMap::new();
        // Checks are kept in no history: their past is this.
        let mut checks = Past::default();
        loop {
            tokio::select! {
                () = clock.tick() => {}
                Some(ended) = runs.join_next_with_id() => {
                    let (id, ran) = match ended {
                        Ok((id, ran)) => (id, Ok(ran)),
                        Err(error) => (error.id(), Err(error.to_string())),
                    };
                    if let Some((job, started_at)) = running.remove(&id) {
                        let ran = ran.unwrap_or_else(|reason| Some(broken(job, config, started_at, &reason)));
                        if let Some(ran) = ran {
                            publish::publish(&self.node, job, ran).await;
                        }
                    }
                    continue;
                }
            }
            self.node.pulse.driver.beat();
            let now = Timestamp::now();
            let before = role;
            role = self.node.view.borrow().in_recovery(now).or(role);
            if before.is_some() && before != role {
                publish::resolve_all(&self.node, "role changed").await;
            }
            for (job, schedule) in &self.schedules {
                let free = running.values().all(|(other, _)| job.tolerates(*other));
                if !free || !self.belongs_here(*job, now) {
                    continue;
                }
                let past = if *job == Job::Checks {
                    Ok(checks)
                } else {
                    self.past(*job).await
                };
                let due = match past {
                    Ok(past) => next_run(schedule, &past, now).is_some_and(|next| next <= now),
                    Err(error) => {
                        tracing::error!(job = job.name(), "its history cannot be read: {error}");
                        false
                    }
                };
                if due {
                    if *job == Job::Checks {
                        checks = Past {
                            last_run: Some(now),
                            last_judged: Some(now),
                            ..Past::default()
                        };
                    }
                    let run = on_a_thread(*job, self.node.tools.clone(), self.stop.subscribe());
                    let handle = runs.spawn_blocking(run);
                    running.insert(handle.id(), (*job, now));
                }
            }
        }
    }

    fn belongs_here(&self, job: Job, now: Timestamp) -> bool {
        let view = self.node.view.borrow();
        let in_recovery = view.in_recovery(now);
        match job.runs_on() {
            Where::Everywhere => true,
            Where::Primary => in_recovery == Some(false) && view.superseded_by.is_none(),
            Where::Replica => in_recovery == Some(true),
        }
    }

    async fn past(&self, job: Job) -> Result<Past, StoreError> {
        let runs = self
            .node
            .store
            .read(move |store| store.runs(Some(job.name()), REMEMBERED))
            .await?;
        Ok(past_of(&runs))
    }
}

/// One run, on a thread of its own: what it waits for may take hours, and a panic there stays there.
///
/// `None` when it was stopped; dropping it then ended its children and removed its files.
fn on_a_thread(
    job: Job,
    tools: Arc<Tools>,
    mut stop: watch::Receiver<()>,
) -> impl FnOnce() -> Option<Ran> {
    let runtime = Handle::current();
    move || {
        // What is logged in there belongs to the job's file, however little is logged.
        let _run = tracing::error_span!("run", job = job.name()).entered();
        runtime.block_on(async {
            tokio::select! {
                ran = job.run(&tools) => Some(ran),
                // Nothing is ever sent: this is the sender's end.
                _ = stop.changed() => None,
            }
        })
    }
}

/// What the schedule needs of a job's last runs, newest first.
fn past_of(runs: &[Run]) -> Past {
    let judged = |run: &&Run| !matches!(run.verdict, Verdict::Unknown(_));
    let unknown = runs.iter().take_while(|run| !judged(run)).count();
    Past {
        last_run: runs.first().map(|run| run.started_at),
        last_judged: runs.iter().find(judged).map(|run| run.started_at),
        unknown_in_a_row: u32::try_from(unknown).unwrap_or(u32::MAX),
        lacked_prerequisite: runs
            .first()
            .is_some_and(|run| run.detail["lacked_prerequisite"] == true),
    }
}

/// A run that panicked is a look that failed.
fn broken(job: Job, config: &Config, started_at: Timestamp, reason: &str) -> Ran {
    let finding = job.finding(
        config,
        Verdict::Unknown(format!("xdb itself failed: {reason}")),
    );
    let elapsed = std::time::Duration::try_from(Timestamp::now().duration_since(started_at))
        .unwrap_or_default();
    Ran {
        outcome: Outcome {
            job: job.name().to_owned(),
            target: String::new(),
            started_at,
            elapsed,
            findings: vec![finding],
        },
        holds: vec![std::time::Duration::ZERO],
        succeeded: false,
        lacked_prerequisite: false,
        detail: serde_json::Value::Null,
    }
}
