//! Asks for the numbers of the kinds that a file describes: `sql` and `pgbouncer`.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Deadline, timeout_at};

use super::round::Round;
use super::sample::{CheckResult, Sampler};
use super::server::{ask, databases};
use super::sql::{Databases, read_values};
use super::trace::{Answer, Asked};
use super::values::{Judgement, Measure, Sampled};
use super::{Definition, SampleError, ShowCheck, SqlCheck};
use crate::log;
use crate::model::Severity;
use crate::postgres::{self, Target};

/// For one statement where each database is asked.
const STATEMENT_OF_EACH: Duration = Duration::from_secs(2);

/// For all databases together: less than a check has.
const ALL_DATABASES: Duration = Duration::from_secs(12);

impl Sampler {
    /// Whether the check's query was slow when it was last asked.
    pub(crate) fn is_slow(&self, definition: &Definition) -> bool {
        self.slow.contains(&definition.name)
    }

    pub(super) fn judge_values(
        &self,
        definition: &Definition,
        measure: &Measure,
        values: Vec<Sampled>,
        round: &Round,
    ) -> CheckResult {
        let count = values.len();
        let values = match measure.increase {
            None => values,
            Some(within) => {
                let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
                counters.increases(&definition.name, values, within, Instant::now())
            }
        };
        if count > 0 && values.is_empty() {
            let reason = "judges an increase: xdb's daemon measures it from its second sample on";
            return CheckResult::NotYet(reason.to_owned());
        }
        let scope = self.scope(definition);
        let standing = |object: &str| round.standing(&definition.name, &scope, object);
        let judged = measure.judge_all(&values, standing);
        // What grew before this process began is forgotten, and no reason to end an alert.
        let is_bad = |one: &Judgement| Severity::of(&one.verdict).is_some();
        if let Some(within) = measure.increase
            && self.began.elapsed() < within
            && round.has_standing(&definition.name, &scope)
            && !judged.iter().any(is_bad)
        {
            let reason = "judges an increase, and has not watched for long enough to end its alert";
            return CheckResult::NotYet(reason.to_owned());
        }
        self.findings(definition, judged)
    }

    /// The values of a check's query.
    pub(super) async fn query(
        &self,
        definition: &Definition,
        sql: &SqlCheck,
        round: &Round,
    ) -> Result<Vec<Sampled>, SampleError> {
        let facts = self.server_facts(round).await?;
        let query = sql.query(facts.version)?;
        let asked = |database: &str, answer: &Result<Answer, SampleError>| {
            round.trace.saw(|| Asked {
                of: format!("PostgreSQL {}, database {database}", facts.version / 10_000),
                question: query.to_owned(),
                answer: answer.as_ref().map_err(|it| log::chain(it)).cloned(),
            });
        };
        match &sql.databases {
            Databases::Instance => {
                let answer = self.ask_here(definition, query).await;
                asked(&self.target.database, &answer);
                read_values(&answer?, None)
            }
            Databases::Named(database) => {
                let _turn = self.elsewhere.lock().await;
                let _timed = self.slow.timed(definition.name.clone());
                let answer = self.ask_in(database, query).await;
                asked(database, &answer);
                read_values(&answer?, None)
            }
            Databases::Each => self.ask_each(definition, sql, query, asked).await,
        }
    }

    /// Asks over the kept connection. What an operator's query leaves in its session is taken back.
    async fn ask_here(&self, definition: &Definition, query: &str) -> Result<Answer, SampleError> {
        if definition.is_trusted() {
            let client = self.postgres.get().await?;
            let _timed = self.slow.timed(definition.name.clone());
            return ask(&client, query).await;
        }
        let client = self.postgres.borrow().await?;
        let _timed = self.slow.timed(definition.name.clone());
        let asked = ask(&client, query).await;
        if !matches!(asked, Err(SampleError::TooManyRows { .. })) {
            client.give_back().await;
        }
        asked
    }

    /// Asks in another database, over a connection that ends with the answer.
    async fn ask_in(&self, database: &str, query: &str) -> Result<Answer, SampleError> {
        let target = Target {
            database: database.to_owned(),
            connect_timeout: self.target.connect_timeout.min(STATEMENT_OF_EACH),
            ..self.target.clone()
        };
        let connection = postgres::connect_read_only(&target, STATEMENT_OF_EACH).await?;
        ask(&connection, query).await
    }

    /// Asks in one database after the other. What hangs or fails in one is unknown there, and the others are judged.
    async fn ask_each(
        &self,
        definition: &Definition,
        sql: &SqlCheck,
        query: &str,
        asked: impl Fn(&str, &Result<Answer, SampleError>),
    ) -> Result<Vec<Sampled>, SampleError> {
        let mut names = {
            let client = self.postgres.get().await?;
            databases(&client).await?
        };
        let name_of = |database: &str| format!("{}/{database}", definition.name);
        names.sort_by_key(|database| self.slow.contains(&name_of(database)));
        let _turn = self.elsewhere.lock().await;
        let deadline = Deadline::now() + ALL_DATABASES;
        let mut values = Vec::new();
        for database in names {
            let timed = self.slow.timed(name_of(&database));
            let answer = timeout_at(deadline, self.ask_in(&database, query)).await;
            let secs = ALL_DATABASES.as_secs();
            let answer = answer.unwrap_or(Err(SampleError::Deadline { secs }));
            drop(timed);
            asked(&database, &answer);
            let read = answer.and_then(|answer| read_values(&answer, Some(&database)));
            match read {
                Ok(read) if read.is_empty() && !sql.measure.may_be_empty => {
                    values.push(unknown(database, "the answer has no row".to_owned()));
                }
                Ok(read) => values.extend(read),
                Err(error) => values.push(unknown(database, log::chain(&error))),
            }
        }
        Ok(values)
    }

    /// The values of PgBouncer's console.
    pub(super) async fn show(
        &self,
        check: &ShowCheck,
        round: &Round,
    ) -> Result<Vec<Sampled>, SampleError> {
        let settings = &self.loaded.config.pgbouncer;
        let mut answers = Vec::new();
        for show in check.shows() {
            answers.push(round.show(settings, show).await?);
        }
        let mut answers = answers.iter();
        let own = answers.next().ok_or(SampleError::NoValue)?;
        check.values(own, answers.next())
    }
}

fn unknown(database: String, reason: String) -> Sampled {
    Sampled {
        object: Some(database),
        number: Err(reason),
        detail: None,
    }
}
