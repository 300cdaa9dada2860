//! Looks: asks PostgreSQL, PgBouncer and the bucket, and hands what they say to the judges.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::pgbouncer::{saturation, waiting};
use super::pgbouncer_up::{PgBouncerWatch, judge_pgbouncer_up};
use super::program::{self, FAILURES_WITHIN, ProgramCheck};
use super::server::{archiving, ask, in_recovery, read_values, standby, standbys};
use super::values::Value;
use super::{
    Definition, Kind, Metric, Role, SampleError, age, archiver, configuration, wal_volume,
};
use crate::cluster::LsnRing;
use crate::config::Loaded;
use crate::log;
use crate::model::{Finding, Scope, Verdict};
use crate::pgbouncer::Console;
use crate::postgres::{self, PostgresError, Target, wal_directory};
use crate::process;
use crate::repository::{RepositoryHandle, Success};
use crate::store::{Reader, StoreError};

/// For one statement, and for one read of the bucket; the wait for a lock is shorter.
const STATEMENT: Duration = Duration::from_secs(5);

/// Runs the checks. It holds at most two connections to PostgreSQL, whatever the number of checks.
#[derive(Debug)]
pub(crate) struct Sampler {
    target: Target,
    postgres: postgres::Pool,
    loaded: Loaded,
    /// Made when the first check needs it.
    repository: RepositoryHandle,
    program: ProgramCheck,
    /// Taken while the state store is read.
    history: Arc<Mutex<()>>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CheckResult {
    /// At least one.
    Findings(Vec<Finding>),
    /// The check belongs to another role than this server's.
    OtherRole,
}

impl Sampler {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the settings make no pool.
    pub(crate) fn new(
        loaded: &Loaded,
        repository: RepositoryHandle,
    ) -> Result<Self, PostgresError> {
        let target = Target::from(&loaded.config.postgres);
        Ok(Self {
            postgres: postgres::Pool::new(&target, STATEMENT)?,
            target,
            loaded: loaded.clone(),
            repository,
            program: ProgramCheck::default(),
            history: Arc::default(),
        })
    }

    /// The finding of `definition` about `object`.
    pub(crate) fn found(
        &self,
        definition: &Definition,
        object: Option<String>,
        verdict: Verdict,
    ) -> Finding {
        let scope = if definition.kind.is_about_cluster() {
            Scope::Cluster
        } else {
            Scope::Node(self.loaded.config.node.hostname.clone())
        };
        let mut finding =
            Finding::new(&definition.name, scope, object.unwrap_or_default(), verdict);
        finding.runbook.clone_from(&definition.runbook);
        finding
    }

    /// Runs one check; an error to sample becomes one unknown finding.
    ///
    /// `primary` is where the primary was when, for a replica's lag.
    pub(crate) async fn run(
        &self,
        definition: &Definition,
        primary: &LsnRing,
        now: Timestamp,
    ) -> CheckResult {
        // For everything that one check asks; more than any one login and statement take.
        let deadline = (self.target.connect_timeout + STATEMENT) * 2;
        let sampled = timeout(deadline, self.sample_kind(definition, primary, now)).await;
        let outcome = sampled.unwrap_or_else(|_| {
            let secs = deadline.as_secs();
            Err(SampleError::Deadline { secs })
        });
        outcome.unwrap_or_else(|error| {
            let verdict = Verdict::Unknown(log::chain(&error));
            CheckResult::Findings(vec![self.found(definition, None, verdict)])
        })
    }

    async fn sample_kind(
        &self,
        definition: &Definition,
        primary: &LsnRing,
        now: Timestamp,
    ) -> Result<CheckResult, SampleError> {
        let findings = |verdicts: Vec<(Option<String>, Verdict)>| {
            let found = verdicts.into_iter();
            let findings = found.map(|(object, verdict)| self.found(definition, object, verdict));
            CheckResult::Findings(findings.collect())
        };
        if definition.role != Role::Any {
            let client = self.postgres.get().await?;
            if !definition.role.is(in_recovery(&client).await?) {
                return Ok(CheckResult::OtherRole);
            }
        }
        Ok(findings(match &definition.kind {
            Kind::PostgresqlUp => vec![(None, self.check_postgresql_up().await)],
            Kind::Configuration => configuration::check(&self.loaded),
            Kind::PgBouncerUp => vec![(None, self.check_pgbouncer_up().await)],
            Kind::Sql {
                query,
                unit,
                limits,
            } => judged(&self.query(query).await?, limits, unit),
            Kind::PgBouncer { metric, limits } => {
                let (values, unit) = self.pgbouncer(metric).await?;
                judged(&values, limits, unit)
            }
            Kind::Archiver { limits } => {
                let client = self.postgres.get().await?;
                vec![(
                    None,
                    archiver::judge(&archiving(&client).await?, limits, now),
                )]
            }
            Kind::Age { job, limits } => {
                let success = timeout(STATEMENT, self.last_success(job)).await;
                let secs = STATEMENT.as_secs();
                let success = success.unwrap_or(Err(SampleError::Deadline { secs }))?;
                vec![(None, age::judge(success.as_ref(), limits, now))]
            }
            Kind::WalVolume { limits } => {
                let wal = wal_directory(&self.loaded.config.postgres.data_directory)?;
                vec![(None, wal_volume::judge(&wal, limits, now))]
            }
            Kind::Program { oldest } => self.check_program(oldest, now).await?,
            Kind::ReplicationLag { limits } => {
                let client = self.postgres.get().await?;
                if in_recovery(&client).await? {
                    vec![(None, standby(&client, primary, limits, now).await?)]
                } else {
                    standbys(&client, limits).await?
                }
            }
        }))
    }

    /// The program itself, and whether its daemon has failed.
    async fn check_program(
        &self,
        oldest: &[program::Oldest],
        now: Timestamp,
    ) -> Result<Vec<(Option<String>, Verdict)>, SampleError> {
        let daemon = match self.program_failures(now).await {
            Ok(failures) => program::judge_daemon(failures),
            Err(error) => Verdict::Unknown(log::chain(&error)),
        };
        let settings = self.repository.settings().into();
        let state = &self.loaded.config.node.state_directory;
        let own = self.program.check(&settings, state, oldest).await?;
        Ok(vec![(None, own), (Some("daemon".to_owned()), daemon)])
    }

    async fn check_pgbouncer_up(&self) -> Verdict {
        let config = &self.loaded.config;
        let mut watch = PgBouncerWatch::new(&config.pgbouncer, &config.postgres);
        judge_pgbouncer_up(&watch.observe().await)
    }

    /// The values of a check's query. What the query leaves in its session is taken back.
    async fn query(&self, query: &str) -> Result<Vec<Value>, SampleError> {
        let client = self.postgres.borrow().await?;
        let asked = ask(&client, query).await;
        if !matches!(asked, Err(SampleError::TooManyRows { .. })) {
            client.give_back().await;
        }
        read_values(&asked?)
    }

    /// The values of `metric`, with their unit.
    async fn pgbouncer(&self, metric: &Metric) -> Result<(Vec<Value>, &'static str), SampleError> {
        let console = Console::open(&self.loaded.config.pgbouncer).await?;
        Ok(match metric {
            Metric::ClientsWaiting => (waiting(&console.pools().await?), "waiting"),
            Metric::Saturation => {
                let (pools, databases) = (console.pools().await?, console.databases().await?);
                let values = saturation(console.clients().await?, &pools, &databases);
                (values, "%")
            }
        })
    }

    /// On a thread of its own: a volume that hangs must not hold up the other checks. One thread at most: each look would
    /// leave another behind, until the runtime has none left for what serving needs.
    async fn program_failures(&self, now: Timestamp) -> Result<usize, StoreError> {
        let secs = STATEMENT.as_secs();
        let turn = timeout(STATEMENT, self.history.clone().lock_owned()).await;
        let turn = turn.map_err(|_| StoreError::NoAnswer { secs })?;
        let directory = self.loaded.config.node.state_directory.clone();
        let read = move || {
            let _turn = turn;
            let reader = Reader::open(&directory)?;
            let failures = reader.map(|it| it.reading().program_failures(now - FAILURES_WITHIN));
            Ok(failures.transpose()?.unwrap_or_default())
        };
        let read = timeout(STATEMENT, process::on_a_thread(read)).await;
        read.unwrap_or(Err(StoreError::NoAnswer { secs }))
    }

    async fn last_success(&self, job: &str) -> Result<Option<Success>, SampleError> {
        Ok(self.repository.shared().await?.last_success(job).await?)
    }

    /// The one check for which "could not connect" is no unknown.
    ///
    /// It makes a new connection: a kept one may answer while no other client can log in.
    pub(crate) async fn check_postgresql_up(&self) -> Verdict {
        let asked = async {
            let connection = postgres::connect(&self.target, STATEMENT).await?;
            in_recovery(&connection).await
        };
        match timeout(self.target.connect_timeout + STATEMENT, asked).await {
            Ok(Ok(_)) => Verdict::Ok,
            Ok(Err(error)) => Verdict::Critical(log::chain(&error)),
            Err(_) => Verdict::Critical("logged in, but a query was not answered".to_owned()),
        }
    }
}

/// Judges each value; no value at all is ok: there is nothing to object to.
fn judged(values: &[Value], limits: &super::Limits, unit: &str) -> Vec<(Option<String>, Verdict)> {
    if values.is_empty() {
        return vec![(None, Verdict::Ok)];
    }
    let judge = |value: &Value| (value.object.clone(), value.judge(limits, unit));
    values.iter().map(judge).collect()
}
