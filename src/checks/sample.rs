//! Looks: asks PostgreSQL, PgBouncer and the bucket, and hands what they say to the judges.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::certificate::CertificateFile;
use super::disk::Growth;
use super::increase::Counters;
use super::pgbouncer_up::{PgBouncerWatch, judge_pgbouncer_up};
use super::program::{self, FAILURES_WITHIN, ProgramCheck};
use super::round::Round;
use super::server::{self, ServerFacts, archiving, standby, standbys};
use super::slow_queries::SlowQueries;
use super::values::Judgement;
use super::version_watch::VersionWatch;
use super::{Definition, Kind, Role, SampleError, age, archiver, configuration, wal_volume};
use crate::config::Loaded;
use crate::log;
use crate::model::{Finding, Scope, Verdict};
use crate::postgres::{self, PostgresError, Target, wal_directory};
use crate::process;
use crate::repository::{RepositoryHandle, Success};
use crate::store::{Reader, StoreError};

/// For one statement, and for one read of the bucket; the wait for a lock is shorter.
pub(super) const STATEMENT: Duration = Duration::from_secs(5);

/// After this a check that could not look is made again, whatever its interval is.
const AGAIN: Duration = Duration::from_secs(60);

/// Runs the checks. It holds one connection to PostgreSQL, whatever the number of checks, and one more while it asks in
/// another database.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(super) target: Target,
    pub(super) postgres: postgres::Pool,
    pub(super) loaded: Loaded,
    /// Made when the first check needs it.
    repository: RepositoryHandle,
    program: ProgramCheck,
    /// Taken while the state store is read.
    pub(super) history: Arc<Mutex<()>>,
    /// Taken while another database is asked.
    pub(super) elsewhere: Mutex<()>,
    pub(super) slow: SlowQueries,
    pub(super) counters: StdMutex<Counters>,
    pub(super) growth: StdMutex<Growth>,
    pub(super) began: Instant,
    /// The last results of checks with an interval.
    kept: StdMutex<HashMap<String, Kept>>,
    /// The checks that have watched too little to judge; their alerts stand meanwhile.
    waiting: StdMutex<BTreeSet<String>>,
    pub(super) pgbouncer_version: StdMutex<VersionWatch>,
    /// The files of certificates as PostgreSQL and PgBouncer last named them.
    pub(super) known_certificates: StdMutex<BTreeMap<&'static str, Vec<CertificateFile>>>,
}

/// A result that is valid for the interval of its check.
#[derive(Debug)]
struct Kept {
    at: Instant,
    in_recovery: bool,
    definition: Definition,
    findings: Vec<Finding>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CheckResult {
    /// At least one.
    Findings(Vec<Finding>),
    /// The check belongs to another role than this server's.
    OtherRole,
    /// There is nothing to judge yet, and why.
    NotYet(String),
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
            elsewhere: Mutex::default(),
            slow: SlowQueries::default(),
            counters: StdMutex::default(),
            growth: StdMutex::default(),
            began: Instant::now(),
            kept: StdMutex::default(),
            waiting: StdMutex::default(),
            pgbouncer_version: StdMutex::default(),
            known_certificates: StdMutex::default(),
        })
    }

    /// The finding of `definition` about `object`.
    pub(crate) fn found(
        &self,
        definition: &Definition,
        object: Option<String>,
        verdict: Verdict,
    ) -> Finding {
        self.finding(definition, (object, verdict).into())
    }

    pub(super) fn scope(&self, definition: &Definition) -> Scope {
        match definition.kind.is_about_cluster() {
            true => Scope::Cluster,
            false => Scope::Node(self.loaded.config.node.hostname.clone()),
        }
    }

    fn finding(&self, definition: &Definition, judged: Judgement) -> Finding {
        Finding {
            value: judged.value,
            threshold: judged.threshold,
            runbook: definition.runbook.clone(),
            ..Finding::new(
                &definition.name,
                self.scope(definition),
                judged.object.unwrap_or_default(),
                judged.verdict,
            )
        }
    }

    /// Runs one check; an error to sample becomes one unknown finding.
    ///
    /// One with an interval that has not passed yet keeps its last result.
    pub(crate) async fn run(&self, definition: &Definition, round: &Round) -> CheckResult {
        if definition.interval.is_zero() {
            return self.run_now(definition, round).await;
        }
        let began = Instant::now();
        let role = self
            .server_facts(round)
            .await
            .map(|facts| facts.in_recovery);
        if let Ok(in_recovery) = role
            && let Some(findings) = self.kept(definition, in_recovery, began)
        {
            return CheckResult::Findings(findings);
        }
        let result = self.run_now(definition, round).await;
        if let (Ok(in_recovery), CheckResult::Findings(findings)) = (role, &result) {
            let kept = Kept {
                at: began,
                in_recovery,
                definition: definition.clone(),
                findings: findings.clone(),
            };
            let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(definition.name.clone(), kept);
        }
        result
    }

    /// The result that is still valid: of the same file, in the same role.
    fn kept(
        &self,
        definition: &Definition,
        in_recovery: bool,
        now: Instant,
    ) -> Option<Vec<Finding>> {
        let all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(&definition.name)?;
        let unknown = |finding: &Finding| matches!(finding.verdict, Verdict::Unknown(_));
        let interval = match kept.findings.iter().any(unknown) {
            true => definition.interval.min(AGAIN),
            false => definition.interval,
        };
        let same = kept.in_recovery == in_recovery && kept.definition == *definition;
        (same && now.duration_since(kept.at) < interval).then(|| kept.findings.clone())
    }

    async fn run_now(&self, definition: &Definition, round: &Round) -> CheckResult {
        // For everything that one check asks; more than any one login and statement take.
        let deadline = (self.target.connect_timeout + STATEMENT) * 2;
        let sampled = timeout(deadline, self.sample_kind(definition, round)).await;
        let outcome = sampled.unwrap_or_else(|_| {
            let secs = deadline.as_secs();
            Err(SampleError::Deadline { secs })
        });
        let result = outcome.unwrap_or_else(|error| {
            let verdict = Verdict::Unknown(log::chain(&error));
            CheckResult::Findings(vec![self.found(definition, None, verdict)])
        });
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            CheckResult::NotYet(_) => waiting.insert(definition.name.clone()),
            _ => waiting.remove(&definition.name),
        };
        result
    }

    /// Whether the check called `name` has watched too little to judge: an alert that a former process raised still stands.
    pub(crate) fn is_waiting(&self, name: &str) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.contains(name)
    }

    /// What the server is, asked once a run.
    pub(super) async fn server_facts(&self, round: &Round) -> Result<ServerFacts, SampleError> {
        let ask = async {
            let client = self.postgres.get().await?;
            server::server_facts(&client).await
        };
        let facts = round
            .server
            .get_or_init(|| async { ask.await.map_err(|error: SampleError| log::chain(&error)) });
        facts.await.clone().map_err(SampleError::Before)
    }

    async fn sample_kind(
        &self,
        definition: &Definition,
        round: &Round,
    ) -> Result<CheckResult, SampleError> {
        if definition.role != Role::Any {
            let facts = self.server_facts(round).await?;
            if !definition.role.is(facts.in_recovery) {
                return Ok(CheckResult::OtherRole);
            }
        }
        let judged = match &definition.kind {
            Kind::Sql(sql) => {
                let values = self.query(definition, sql, round).await?;
                return Ok(self.judge_values(definition, &sql.measure, values, round));
            }
            Kind::PgBouncer(show) => {
                let values = self.show(show, round).await?;
                return Ok(self.judge_values(definition, &show.measure, values, round));
            }
            Kind::Measured { source, measure } => {
                return Ok(match self.measure(source, round).await? {
                    Some(values) => self.judge_values(definition, measure, values, round),
                    None => {
                        let reason =
                            "is judged by xdb's daemon alone, or once it has watched for a while";
                        CheckResult::NotYet(reason.to_owned())
                    }
                });
            }
            other => self.sample_other(other, round).await?,
        };
        let judged = judged.into_iter().map(Judgement::from);
        Ok(self.findings(definition, judged.collect()))
    }

    pub(super) fn findings(&self, definition: &Definition, judged: Vec<Judgement>) -> CheckResult {
        let judged = judged.into_iter();
        CheckResult::Findings(judged.map(|one| self.finding(definition, one)).collect())
    }

    /// The kinds that xdb measures itself.
    async fn sample_other(
        &self,
        kind: &Kind,
        round: &Round,
    ) -> Result<Vec<(Option<String>, Verdict)>, SampleError> {
        let now = Timestamp::now();
        Ok(match kind {
            Kind::Sql(_) | Kind::PgBouncer(_) | Kind::Measured { .. } => Vec::new(),
            Kind::PostgresqlUp => vec![(None, self.check_postgresql_up().await)],
            Kind::Configuration => configuration::check(&self.loaded),
            Kind::PgBouncerUp => vec![(None, self.check_pgbouncer_up().await)],
            Kind::Archiver { limits } => {
                self.server_facts(round).await?;
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
            Kind::ReplicationLag { limits, delayed } => {
                let facts = self.server_facts(round).await?;
                let client = self.postgres.get().await?;
                if facts.in_recovery {
                    vec![(None, standby(&client, &round.primary, limits, now).await?)]
                } else {
                    standbys(&client, limits, delayed).await?
                }
            }
        })
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
            server::server_facts(&connection).await
        };
        match timeout(self.target.connect_timeout + STATEMENT, asked).await {
            Ok(Ok(_)) => Verdict::Ok,
            Ok(Err(error)) => Verdict::Critical(log::chain(&error)),
            Err(_) => Verdict::Critical("logged in, but a query was not answered".to_owned()),
        }
    }
}
