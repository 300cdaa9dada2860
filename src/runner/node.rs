//! The handles of a node, opened once.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::last_successes::LastSuccesses;
use super::{Activity, Outages, RunnerError};
use crate::alerts::{Alerts, Covers, Inhibition, Receiver, Reminders, Rules};
use crate::checks::{self, Definition, Kind, LiveDefinitions, PGBOUNCER_DOWN, Sampler};
use crate::cluster::{Knowledge, View};
use crate::config::Loaded;
use crate::jobs::{JOBS, Tools};
use crate::redis::Redis;
use crate::repository::RepositoryHandle;
use crate::store::Store;

/// Alerts on the cluster that are judged by a look at the bucket: while that fails, they stand.
pub(crate) const JUDGED_BY_LOOK: [&str; 3] = ["wal-gap", "foreign-backup", "backup-incomplete"];

/// Checks whose alerts stand until the next run, or the next look, judges them.
fn judged_by_run() -> Vec<&'static str> {
    let jobs = JOBS.into_iter().filter(|job| job.is_cluster_wide);
    jobs.map(|job| job.name).chain(JUDGED_BY_LOOK).collect()
}

/// What follows from a PostgreSQL that is down: its checks cannot be made, and no login through PgBouncer works.
fn inhibitions(definitions: &[Definition]) -> Vec<Inhibition> {
    let vital = |kind: &Kind| match kind {
        Kind::PgBouncerUp => Some(Covers::AllBut(PGBOUNCER_DOWN)),
        _ => None,
    };
    let effects = definitions.iter().filter_map(|definition| {
        let unknown = definition.asks_postgresql().then_some(Covers::Unknown);
        let covers = vital(&definition.kind).or(unknown)?;
        Some((definition.name.clone(), covers))
    });
    effects
        .map(|(effect, covers)| Inhibition {
            cause: "postgresql-up",
            effect,
            covers,
        })
        .collect()
}

/// What the runs of a node share, and the loops of its daemon.
pub(crate) struct Node {
    pub tools: Arc<Tools>,
    pub store: Store,
    pub alerts: Alerts,
    pub redis: Redis,
    pub view: watch::Receiver<View>,
    pub successes: LastSuccesses,
    pub outages: Outages,
    pub activity: Activity,
}

impl Node {
    /// Opens what is local; nothing is asked of PostgreSQL, Redis or S3 yet.
    ///
    /// # Errors
    /// When a setting of them cannot be used.
    pub(crate) fn open(
        loaded: &Loaded,
        repository: &RepositoryHandle,
        store: Store,
        view: watch::Receiver<View>,
        known: watch::Receiver<Knowledge>,
    ) -> Result<Arc<Self>, RunnerError> {
        let tools = Tools {
            watches_vital: true,
            ..tools(loaded, repository, view.clone(), known)?
        };
        let config = &loaded.config;
        let rules = Rules {
            reminders: Reminders {
                critical: config.alerts.remind_critical,
                warning: config.alerts.remind_warning,
            },
            inhibitions: inhibitions(&tools.definitions.current()),
            subscriptions: config
                .notify
                .iter()
                .map(|notify| Receiver::new(notify).subscription())
                .collect(),
        };
        Ok(Arc::new(Self {
            alerts: Alerts::new(
                store.with_spare(),
                &config.cluster.name,
                &config.node.hostname,
            )
            .judged_by_run(&judged_by_run())
            .with_rules(rules),
            store,
            redis: Redis::new(&config.redis)?,
            tools: Arc::new(tools),
            view,
            successes: LastSuccesses::default(),
            outages: Outages::default(),
            activity: Activity::default(),
        }))
    }

    pub(crate) fn hostname(&self) -> &str {
        &self.tools.loaded.config.node.hostname
    }
}

/// The tools of the jobs of this node; `view` is its own state, `known` that of the other nodes.
pub(super) fn tools(
    loaded: &Loaded,
    repository: &RepositoryHandle,
    view: watch::Receiver<View>,
    known: watch::Receiver<Knowledge>,
) -> Result<Tools, RunnerError> {
    let (definitions, faults) = LiveDefinitions::read(Path::new(checks::DIRECTORY));
    for fault in &faults {
        tracing::warn!("a check is left out: {}", fault.with_line());
    }
    Ok(Tools {
        sampler: Sampler::new(loaded, repository.clone())?,
        repository: repository.clone(),
        definitions,
        watches_vital: false,
        loaded: loaded.clone(),
        view,
        known,
    })
}
