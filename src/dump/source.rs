//! The server that a database is dumped from: this node's own, or the primary where recovery conflicts leave no other way.

use std::time::Duration;

use bytesize::ByteSize;

use super::DumpError;
use crate::config::Postgres;
use crate::postgres::{self, PostgresError, ServerIdentity};

/// How often the replay of a standby is looked at while it is dumped.
const INTERVAL: Duration = Duration::from_secs(2);

/// A server to dump from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub postgres: Postgres,
    pub in_recovery: bool,
    /// `host:port` where it is not this node's own server.
    pub primary: Option<String>,
}

/// The primary that the standby of `settings` streams from, reached with the same role and password.
///
/// # Errors
/// Why there is none to dump from, as a sentence's second half.
pub(super) async fn primary_of(
    settings: &Postgres,
    standby: &ServerIdentity,
) -> Result<Source, String> {
    let sender = sender(settings).await.map_err(|error| error.to_string())?;
    let Some((host, port)) = sender else {
        return Err("the standby streams from no server (pg_stat_wal_receiver)".to_owned());
    };
    let primary = Postgres {
        host,
        port,
        ..settings.clone()
    };
    let connection = postgres::connect(&(&primary).into(), primary.connect_timeout).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let server = postgres::server(&connection).await;
    let server = server.map_err(|error| error.to_string())?;
    let name = format!("{}:{}", primary.host, primary.port);
    if server.system_identifier != standby.system_identifier {
        return Err(format!("{name} is another cluster"));
    }
    if server.in_recovery {
        return Err(format!("{name}, which it streams from, is a standby too"));
    }
    Ok(Source {
        postgres: primary,
        in_recovery: false,
        primary: Some(name),
    })
}

/// Address and port of the server that the standby streams from.
async fn sender(settings: &Postgres) -> Result<Option<(String, u16)>, PostgresError> {
    const QUERY: &str = "
        SELECT sender_host AS host, sender_port AS port FROM pg_catalog.pg_stat_wal_receiver
         WHERE sender_host IS NOT NULL AND sender_port IS NOT NULL";
    let failed = |error| PostgresError::Query {
        what: "for its primary",
        error,
    };
    let connection = postgres::connect(&settings.into(), settings.connect_timeout).await?;
    let row = connection.query_opt(QUERY, &[]).await.map_err(failed)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let port: i32 = row.try_get("port").map_err(failed)?;
    let port = u16::try_from(port).map_err(|_| PostgresError::Answer { what: "port" })?;
    Ok(Some((row.try_get("host").map_err(failed)?, port)))
}

/// Watches the standby of `settings` while it is dumped; ends where it has more than `limit` bytes of WAL to replay.
///
/// The snapshot of a dump can be what holds the replay up (`max_standby_streaming_delay`).
pub(super) async fn watch_replay(settings: &Postgres, limit: u64) -> DumpError {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // A server that does not answer ends no dump; the dump itself finds out.
        let Ok(connection) = postgres::connect(&settings.into(), settings.connect_timeout).await
        else {
            continue;
        };
        while let Ok(server) = postgres::server(&connection).await {
            if let Some(behind) = judge_replay(&server, limit) {
                return DumpError::StandbyBehind {
                    behind: ByteSize(behind),
                    limit: ByteSize(limit),
                };
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The bytes that are received and not replayed, where they are above `limit`.
fn judge_replay(server: &ServerIdentity, limit: u64) -> Option<u64> {
    let (received, replayed) = (server.wal_end?, server.position?);
    let behind = received.0.saturating_sub(replayed.0);
    (server.in_recovery && behind > limit).then_some(behind)
}

/// The sessions that hold a table of `database` exclusively, or wait to do so, for an error; empty where none is seen.
pub(super) async fn lock_holders(settings: &Postgres, database: &str) -> String {
    match read_holders(settings, database).await {
        Ok(holders) => holders.join(", "),
        Err(error) => {
            tracing::debug!("the holders of the lock are unknown: {error}");
            String::new()
        }
    }
}

async fn read_holders(settings: &Postgres, database: &str) -> Result<Vec<String>, PostgresError> {
    // No statement: it may hold a password. Without a process: a prepared transaction.
    const QUERY: &str = "
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, l.granted, l.pid,
               a.usename::text AS role, a.application_name AS application, a.state, a.backend_type AS kind,
               pg_catalog.host(a.client_addr) AS address,
               extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint AS secs
          FROM pg_catalog.pg_locks AS l
          JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
         WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p')
           AND n.nspname !~ '^pg_'
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
         ORDER BY l.granted DESC, a.xact_start LIMIT 3";
    let failed = |error| PostgresError::Query {
        what: "who holds its tables",
        error,
    };
    let target = postgres::Target {
        database: database.to_owned(),
        ..settings.into()
    };
    let connection = postgres::connect(&target, settings.connect_timeout).await?;
    let rows = connection.query(QUERY, &[]).await.map_err(failed)?;
    let holders = rows.iter().map(|row| {
        Ok(LockHolder {
            table: row.try_get("name")?,
            granted: row.try_get("granted")?,
            pid: row.try_get("pid")?,
            role: row.try_get("role")?,
            application: row.try_get("application")?,
            address: row.try_get("address")?,
            state: row.try_get("state")?,
            kind: row.try_get("kind")?,
            secs: row.try_get("secs")?,
        })
    });
    let holders: Result<Vec<LockHolder>, _> = holders.collect();
    Ok(holders
        .map_err(failed)?
        .iter()
        .map(ToString::to_string)
        .collect())
}

#[derive(Debug, Clone, Default)]
struct LockHolder {
    table: String,
    granted: bool,
    /// `None` for a prepared transaction.
    pid: Option<i32>,
    role: Option<String>,
    application: Option<String>,
    address: Option<String>,
    state: Option<String>,
    /// `backend_type`.
    kind: Option<String>,
    secs: Option<i64>,
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.granted { "holds" } else { "waits for" };
        let table = &self.table;
        let Some(pid) = self.pid else {
            return write!(
                f,
                "a prepared transaction {verb} {table} (pg_prepared_xacts)"
            );
        };
        if self.kind.as_deref() == Some("startup") {
            return write!(
                f,
                "the replay of WAL {verb} {table}: a session on the primary locked it"
            );
        }
        let role = self.role.as_deref().unwrap_or("unknown");
        write!(f, "session {pid} of role {role}")?;
        if let Some(application) = self.application.as_deref().filter(|it| !it.is_empty()) {
            write!(f, ", application {application}")?;
        }
        if let Some(address) = &self.address {
            write!(f, ", from {address}")?;
        }
        if let (Some(state), Some(secs)) = (&self.state, self.secs) {
            write!(f, ", {state}, in its transaction for {secs} s")?;
        }
        write!(f, " {verb} {table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_named_as_far_as_it_is_known() {
        let session = LockHolder {
            table: "public.orders".to_owned(),
            granted: true,
            pid: Some(77),
            role: Some("app".to_owned()),
            application: Some("psql".to_owned()),
            address: Some("10.0.2.10".to_owned()),
            state: Some("idle in transaction".to_owned()),
            secs: Some(90),
            ..LockHolder::default()
        };
        assert_eq!(
            session.to_string(),
            "session 77 of role app, application psql, from 10.0.2.10, idle in transaction, in its transaction for 90 s holds public.orders"
        );
        let waits = LockHolder {
            granted: false,
            address: None,
            application: Some(String::new()),
            state: None,
            ..session.clone()
        };
        assert_eq!(
            waits.to_string(),
            "session 77 of role app waits for public.orders"
        );
        let prepared = LockHolder {
            pid: None,
            ..session.clone()
        };
        assert!(prepared.to_string().starts_with("a prepared transaction"));
        let replay = LockHolder {
            kind: Some("startup".to_owned()),
            ..session
        };
        assert!(replay.to_string().starts_with("the replay of WAL holds"));
    }
}
