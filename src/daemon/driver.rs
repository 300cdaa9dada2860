//! Starts what is due: one run of a job at a time, and a panic in one leaves the others running.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::systemd::Liveness;
use crate::jobs::{JOBS, Job, JobRun, Tools};
use crate::log;
use crate::model::{AlertKey, Scope};
use crate::runner::{
    LastRuns, Node, RunnerError, Schedule, alerts, belongs_here, job_history, next_run, publish,
    schedule_of,
};
use crate::storage::counted_for;
use crate::store::{Reading, StoreError, Writing};

pub(super) struct Driver {
    node: Arc<Node>,
    liveness: Arc<Liveness>,
    schedules: Vec<(&'static Job, Schedule)>,
    /// Dropped with the driver, which ends every run.
    stop: watch::Sender<()>,
}

impl Driver {
    pub(super) fn new(node: &Arc<Node>, liveness: &Arc<Liveness>) -> Result<Self, RunnerError> {
        let settings = &node.tools.loaded.config.schedule;
        let schedule = |job| schedule_of(job, settings).map(|schedule| (job, schedule));
        let schedules = JOBS.into_iter().map(schedule).collect::<Result<_, _>>()?;
        Ok(Self {
            node: node.clone(),
            liveness: liveness.clone(),
            schedules,
            stop: watch::Sender::new(()),
        })
    }

    /// Runs until it is dropped, and its runs with it.
    pub(super) async fn drive(&self) {
        let mut role = None;
        let mut clock = Clock::new();
        let mut runs: JoinSet<Option<JobRun>> = JoinSet::new();
        let mut running: HashMap<tokio::task::Id, (&'static Job, Timestamp)> = HashMap::new();
        // Checks are kept in no history.
        let mut checks = LastRuns::default();
        let mut put_off: HashMap<&'static str, Timestamp> = HashMap::new();
        loop {
            tokio::select! {
                () = clock.tick() => {}
                Some(ended) = runs.join_next_with_id() => {
                    let (id, run) = match ended {
                        Ok((id, run)) => (id, Ok(run)),
                        Err(error) => (error.id(), Err(error.to_string())),
                    };
                    // Before the store is asked: several runs may end while its volume hangs.
                    self.liveness.driver.turned();
                    if let Some((job, started_at)) = running.remove(&id) {
                        self.node.activity.ended(job);
                        let run = run.unwrap_or_else(|reason| Some(broken(job, self.node.hostname(), started_at, &reason)));
                        if let Some(run) = run {
                            if run.not_now {
                                put_off.insert(job.name, Timestamp::now());
                            }
                            publish::publish(&self.node, job, run).await;
                        }
                    }
                    continue;
                }
            }
            self.liveness.driver.turned();
            let now = Timestamp::now();
            role = self.follow_role(role, now).await;
            for (job, schedule) in &self.schedules {
                let free = running.values().all(|(other, _)| job.tolerates(other));
                if !free || !self.belongs_here(job, now) {
                    continue;
                }
                let last = if job.is_cluster_wide {
                    self.last_runs(job).await
                } else {
                    Ok(checks)
                };
                let put_off_at = put_off.get(job.name).copied();
                let due = match last.map(|last| LastRuns { put_off_at, ..last }) {
                    Ok(last) => next_run(schedule, &last, now).is_some_and(|next| next <= now),
                    Err(error) => {
                        tracing::error!(job = job.name, "its history cannot be read: {error}");
                        false
                    }
                };
                if due {
                    if !job.is_cluster_wide {
                        checks = LastRuns {
                            last_run: Some(now),
                            last_judged: Some(now),
                            ..LastRuns::default()
                        };
                    }
                    let run = on_a_thread(job, self.node.tools.clone(), self.stop.subscribe());
                    let handle = runs.spawn_blocking(run);
                    running.insert(handle.id(), (job, now));
                    self.node.activity.began(job, now);
                }
            }
        }
    }

    /// The role as it is now, or was last known. A change ends the old role's alerts, also one that came while nothing ran.
    async fn follow_role(&self, before: Option<bool>, now: Timestamp) -> Option<bool> {
        let (role, identifier) = {
            let view = self.node.view.borrow();
            let identifier = view.sample.map(|sample| sample.system_identifier);
            (view.in_recovery(now), identifier)
        };
        let (Some(role), Some(identifier)) = (role, identifier) else {
            return before;
        };
        if before == Some(role) {
            return before;
        }
        let see = move |store: &Writing<'_>| store.see_role(identifier, role, now);
        let changed = self.node.store.write(see).await.unwrap_or_else(|error| {
            tracing::error!("the role cannot be kept: {}", log::chain(&error));
            before.is_some()
        });
        if changed {
            let definitions = self.node.tools.definitions.current();
            let alike = definitions
                .iter()
                .filter(|definition| definition.is_alike_in_both_roles());
            let alike: Vec<String> = alike.map(|definition| definition.name.clone()).collect();
            let own = move |key: &AlertKey| ends_with_role(key, &alike);
            let now = if role { "a replica" } else { "a primary" };
            let reason = format!("role changed: this server is {now} now");
            alerts::resolve(&self.node, own, &reason).await;
        }
        Some(role)
    }

    /// What is done once for the cluster waits for the first look at what others did.
    fn belongs_here(&self, job: &Job, now: Timestamp) -> bool {
        let asked = !job.is_cluster_wide || self.node.successes.were_asked_for();
        let settings = &self.node.tools.loaded.config.restore_test;
        asked && belongs_here(job, settings, &self.node.view.borrow(), now)
    }

    async fn last_runs(&self, job: &'static Job) -> Result<LastRuns, StoreError> {
        let hostname = self.node.tools.loaded.config.node.hostname.clone();
        let success = self.node.successes.get(job);
        let sample = self.node.view.borrow().sample;
        let identifier = sample.map(|sample| sample.system_identifier);
        let read = move |store: &Reading<'_>| {
            job_history(Some(store), job, &hostname, success.clone(), identifier)
        };
        Ok(self.node.store.read(read).await?.last_runs)
    }
}

/// What is judged in either role stands until its own judge ends it, and the cluster's own until the node that speaks for it does.
fn ends_with_role(key: &AlertKey, alike: &[String]) -> bool {
    let check = key.check.as_str();
    let is_alike = ["redis", "s3", "state-store", "alert-delivery"].contains(&check)
        || alike.iter().any(|name| name == check);
    key.scope != Scope::Cluster && !is_alike
}

/// One run, on a thread of its own: what it waits for may take hours, and a panic there stays there.
///
/// `None` when it was stopped; dropping it then ended its children and removed its files.
fn on_a_thread(
    job: &'static Job,
    tools: Arc<Tools>,
    mut stop: watch::Receiver<()>,
) -> impl FnOnce() -> Option<JobRun> {
    let runtime = Handle::current();
    move || {
        // What is logged in there belongs to the job's file, however little is logged.
        let _run = tracing::error_span!("run", job = job.name).entered();
        runtime.block_on(async {
            tokio::select! {
                run = counted_for(job.name, job.run(&tools)) => Some(run),
                // Nothing is ever sent: this is the sender's end.
                _ = stop.changed() => None,
            }
        })
    }
}

/// A run that panicked is a look that failed.
fn broken(job: &Job, hostname: &str, started_at: Timestamp, reason: &str) -> JobRun {
    let elapsed = Timestamp::now().duration_since(started_at);
    let elapsed = Duration::try_from(elapsed).unwrap_or_default();
    let reason = format!("xdb itself failed: {reason}");
    job.unknown(hostname, started_at, elapsed, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_role_ends_what_only_the_old_role_judged() {
        for (key, ends) in [
            ("replication-lag/db1/db2", true),
            ("archiver/db1/", true),
            ("postgresql-up/db1/", false),
            ("own/db1/", false),
            ("base-backup/db1/", true),
            ("s3/db1/", false),
            ("configuration/db1/xdb.toml", false),
            ("recoverability/cluster/", false),
        ] {
            let key = AlertKey::parse(key).unwrap();
            let alike = ["postgresql-up", "configuration", "own"].map(str::to_owned);
            assert_eq!(ends_with_role(&key, &alike), ends, "{key}");
        }
    }
}
