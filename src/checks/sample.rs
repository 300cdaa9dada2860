//! Looks: asks PostgreSQL and PgBouncer, and hands what they say to the judges.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::archiver::{self, Archiving};
use super::replication_lag::judge_bytes;
use super::values::Value;
use super::{
    Definition, Kind, LagLimits, Metric, Role, SampleError, Standby, judge_replication_lag,
};
use crate::cluster::LsnRing;
use crate::config::Config;
use crate::log;
use crate::model::{Finding, Lsn, Scope, Verdict};
use crate::pgbouncer::{Clients, Console, Database, Pool};
use crate::postgres::{self, PostgresError, Target};

/// For one statement; a lock is waited for less long.
const STATEMENT: Duration = Duration::from_secs(5);

/// What looks; it holds at most two connections to PostgreSQL, whatever the number of checks.
#[derive(Debug)]
pub struct Sampler {
    target: Target,
    postgres: postgres::Pool,
    pgbouncer: crate::config::PgBouncer,
    hostname: String,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Looked {
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
    pub fn new(config: &Config) -> Result<Self, PostgresError> {
        let target = Target::from(&config.postgres);
        Ok(Self {
            postgres: postgres::Pool::new(&target, STATEMENT)?,
            target,
            pgbouncer: config.pgbouncer.clone(),
            hostname: config.node.hostname.clone(),
        })
    }

    fn found(&self, definition: &Definition, object: Option<String>, verdict: Verdict) -> Finding {
        let scope = Scope::Node(self.hostname.clone());
        let mut finding =
            Finding::new(&definition.name, scope, object.unwrap_or_default(), verdict);
        finding.runbook = Some(definition.runbook.clone());
        finding
    }

    /// Runs one check; an error to sample becomes one unknown finding.
    ///
    /// `primary` is where the primary was when, for a replica's lag.
    pub async fn look(&self, definition: &Definition, primary: &LsnRing, now: Timestamp) -> Looked {
        // For everything that one check asks; more than any one login and statement take.
        let deadline = (self.target.connect_timeout + STATEMENT) * 2;
        let looked = timeout(deadline, self.try_to_look(definition, primary, now)).await;
        let outcome = looked.unwrap_or_else(|_| {
            let secs = deadline.as_secs();
            Err(SampleError::Deadline { secs })
        });
        outcome.unwrap_or_else(|error| {
            let verdict = Verdict::Unknown(log::chain(&error));
            Looked::Findings(vec![self.found(definition, None, verdict)])
        })
    }

    async fn try_to_look(
        &self,
        definition: &Definition,
        primary: &LsnRing,
        now: Timestamp,
    ) -> Result<Looked, SampleError> {
        let findings = |verdicts: Vec<(Option<String>, Verdict)>| {
            let found = verdicts.into_iter();
            let findings = found.map(|(object, verdict)| self.found(definition, object, verdict));
            Looked::Findings(findings.collect())
        };
        if definition.role != Role::Any {
            let client = self.postgres.get().await?;
            if !definition.role.is(in_recovery(&client).await?) {
                return Ok(Looked::OtherRole);
            }
        }
        Ok(findings(match &definition.kind {
            Kind::PostgresqlUp => vec![(None, self.up().await)],
            Kind::Sql {
                query,
                unit,
                limits,
            } => {
                let client = self.postgres.get().await?;
                let values = ask(&client, query).await?;
                judged(&read_values(&values)?, limits, unit)
            }
            Kind::PgBouncer { metric, limits } => {
                let console = Console::open(&self.pgbouncer).await?;
                let (values, unit) = match metric {
                    Metric::ClientsWaiting => (waiting(&console.pools().await?), "waiting"),
                    Metric::Saturation => {
                        let (pools, databases) =
                            (console.pools().await?, console.databases().await?);
                        (
                            saturation(console.clients().await?, &pools, &databases),
                            "%",
                        )
                    }
                };
                judged(&values, limits, unit)
            }
            Kind::Archiver { limits } => {
                let client = self.postgres.get().await?;
                vec![(
                    None,
                    archiver::judge(&archiving(&client).await?, limits, now),
                )]
            }
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

    /// The one check for which "could not connect" is no unknown.
    ///
    /// It logs in anew: a connection that is kept may answer while nobody else gets in.
    async fn up(&self) -> Verdict {
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

/// The simple protocol: an operator's query may hold what cannot be prepared.
async fn ask(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, PostgresError> {
    let messages = client.simple_query(query).await;
    let messages = messages.map_err(|error| PostgresError::Query {
        what: "for a check",
        error,
    })?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

async fn in_recovery(client: &Client) -> Result<bool, PostgresError> {
    let rows = ask(
        client,
        "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery",
    )
    .await?;
    let row = rows.first();
    match row.and_then(|row| column(row, "in_recovery")) {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        _ => Err(PostgresError::Answer {
            what: "in_recovery",
        }),
    }
}

/// A column's text; `None` when it is missing or NULL.
fn column<'a>(row: &'a SimpleQueryRow, name: &str) -> Option<&'a str> {
    row.try_get(name).ok().flatten()
}

fn read_values(rows: &[SimpleQueryRow]) -> Result<Vec<Value>, SampleError> {
    let read = |row: &SimpleQueryRow| {
        let text = row.try_get("value").map_err(|_| SampleError::NoValue)?;
        Ok(Value {
            object: column(row, "object").map(str::to_owned),
            number: text.and_then(|text| text.parse().ok()),
            detail: None,
        })
    };
    rows.iter().map(read).collect()
}

async fn archiving(client: &Client) -> Result<Archiving, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.current_setting('archive_mode') AS archive_mode,
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir()
                 WHERE name LIKE '%.ready') AS pending";
    let rows = ask(client, QUERY).await?;
    let text = |name: &'static str| {
        let value = rows.first().and_then(|row| column(row, name));
        value.ok_or(PostgresError::Answer { what: name })
    };
    Ok(Archiving {
        enabled: text("archive_mode")? != "off",
        pending: text("pending")?
            .parse()
            .map_err(|_| PostgresError::Answer { what: "pending" })?,
        archiver: postgres::archiver(client).await?,
    })
}

/// On a replica: whether WAL comes, and how far the replay is behind where the primary was when.
async fn standby(
    client: &Client,
    primary: &LsnRing,
    limits: &LagLimits,
    now: Timestamp,
) -> Result<Verdict, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.pg_last_wal_replay_lsn() AS replayed,
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS streaming";
    let rows = ask(client, QUERY).await?;
    let get = |name| rows.first().and_then(|row| column(row, name));
    let standby = Standby {
        primary,
        replayed: get("replayed").and_then(|lsn| lsn.parse::<Lsn>().ok()),
        streaming: get("streaming") == Some("t"),
    };
    Ok(judge_replication_lag(&standby, limits, now))
}

/// On a primary: each standby's bytes. How many seconds they are behind it does not know while it idles.
async fn standbys(
    client: &Client,
    limits: &LagLimits,
) -> Result<Vec<(Option<String>, Verdict)>, PostgresError> {
    // pg_basebackup and pg_receivewal replay nothing and are no standbys.
    const QUERY: &str = "
        SELECT application_name AS object, state,
               GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn), 0) AS bytes,
               replay_lsn IS NOT NULL AS replays
          FROM pg_catalog.pg_stat_replication
         WHERE state <> 'backup' AND application_name NOT IN ('pg_basebackup', 'pg_receivewal')
         ORDER BY application_name, pid";
    let rows = ask(client, QUERY).await?;
    if rows.is_empty() {
        let verdict = Verdict::Critical("no standby is connected to this primary".to_owned());
        return Ok(vec![(None, verdict)]);
    }
    let judge = |row: &SimpleQueryRow| {
        // NULL until a standby has reported; GREATEST would make 0 of it.
        let replays = column(row, "replays") == Some("t");
        let bytes = column(row, "bytes").filter(|_| replays);
        let verdict = match bytes.and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) => judge_bytes(bytes, &limits.bytes),
            None => Verdict::Unknown(format!(
                "the standby has reported no position yet (state {})",
                column(row, "state").unwrap_or("unknown")
            )),
        };
        (column(row, "object").map(str::to_owned), verdict)
    };
    Ok(rows.iter().map(judge).collect())
}

/// Clients that wait, by pool; the console's own pool is left out.
fn waiting(pools: &[Pool]) -> Vec<Value> {
    let pools = pools.iter().filter(|pool| pool.database != "pgbouncer");
    let value = |pool: &Pool| Value {
        object: Some(pool_name(pool)),
        number: Some(number(pool.cl_waiting)),
        // 0 for a client that is stuck at its login.
        detail: (!pool.maxwait.is_zero())
            .then(|| format!("the first waits for {:.1} s", pool.maxwait.as_secs_f64())),
    };
    pools.map(value).collect()
}

/// What is used, in percent of what may be.
fn saturation(clients: Clients, pools: &[Pool], databases: &[Database]) -> Vec<Value> {
    let value = |object: String, used: u64, most: u64| Value {
        object: Some(object),
        number: (most > 0).then(|| 100.0 * number(used) / number(most)),
        detail: Some(format!("{used} of {most}")),
    };
    let named: HashMap<&str, &Database> = databases
        .iter()
        .map(|database| (database.name.as_str(), database))
        .collect();
    let mut values = vec![value("clients".to_owned(), clients.used, clients.max)];
    for pool in pools.iter().filter(|pool| pool.database != "pgbouncer") {
        // One that was forgotten since SHOW POOLS has no limit to be near.
        if let Some(database) = named.get(pool.database.as_str()) {
            let most = database.pool_size + database.reserve_pool_size;
            values.push(value(pool_name(pool), pool.sv_active, most));
        }
    }
    let limited = databases
        .iter()
        .filter(|database| database.max_connections > 0);
    values.extend(limited.map(|database| {
        let object = format!("database {}", database.name);
        value(
            object,
            database.current_connections,
            database.max_connections,
        )
    }));
    values
}

fn pool_name(pool: &Pool) -> String {
    format!("pool {}/{}", pool.database, pool.user)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(database: &str, cl_waiting: u64, sv_active: u64, maxwait: u64) -> Pool {
        Pool {
            database: database.to_owned(),
            user: "app".to_owned(),
            cl_active: 0,
            cl_waiting,
            sv_active,
            sv_idle: 0,
            sv_login: 0,
            maxwait: Duration::from_millis(maxwait),
        }
    }

    #[test]
    fn waiting_clients_are_told_by_pool_without_the_consoles_own() {
        let values = waiting(&[
            pool("pgbouncer", 9, 0, 0),
            pool("shop", 2, 0, 1500),
            pool("login", 1, 0, 0),
        ]);
        let shown: Vec<_> = values
            .iter()
            .map(|value| {
                (
                    value.object.as_deref(),
                    value.number,
                    value.detail.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    Some("pool shop/app"),
                    Some(2.0),
                    Some("the first waits for 1.5 s")
                ),
                (Some("pool login/app"), Some(1.0), None),
            ]
        );
    }

    #[test]
    fn saturation_is_what_is_used_of_what_may_be() {
        let database = |name: &str, max_connections| Database {
            name: name.to_owned(),
            pool_size: 8,
            reserve_pool_size: 2,
            current_connections: 3,
            max_connections,
            paused: false,
            disabled: false,
        };
        let clients = Clients { used: 50, max: 100 };
        let pools = [pool("shop", 0, 9, 0), pool("gone", 0, 1, 0)];
        let values = saturation(
            clients,
            &pools,
            &[database("shop", 0), database("small", 4)],
        );
        let shown: Vec<_> = values
            .iter()
            .map(|value| (value.object.as_deref().unwrap(), value.number.unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                ("clients", 50.0),
                ("pool shop/app", 90.0),
                ("database small", 75.0)
            ]
        );
    }
}
