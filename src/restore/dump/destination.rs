//! The server that a dump is restored into: what it is, and what it has.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Postgres;
use crate::postgres::{self, Connection, PostgresError, Target};

/// A server, and the session that makes, renames and drops databases there.
pub(super) struct Destination {
    /// Its `database` is the one that the session is in: never the one that is made or replaced.
    pub settings: Postgres,
    pub connection: Connection,
    pub is_superuser: bool,
    /// `server_version_num`, such as 170011.
    pub version: u32,
    pub in_recovery: bool,
    pub system_identifier: u64,
    pub roles: BTreeSet<String>,
    /// Those that can be created.
    pub extensions: BTreeSet<String>,
    pub tablespaces: Vec<String>,
}

/// A database that is there under the wanted name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Existing {
    /// Its clients, such as `app from 10.0.2.10`.
    pub sessions: Vec<String>,
    /// What keeps it from being dropped.
    pub held_by: Vec<String>,
}

impl Destination {
    /// Logs in to the server of `settings`, in any database but the one called `into`.
    ///
    /// # Errors
    /// When the server does not let xdb in, or cannot be asked.
    pub(super) async fn open(settings: &Postgres, into: &str) -> Result<Self, PostgresError> {
        let configured = settings.database.as_str();
        let mut candidates = vec![configured, "postgres", "template1"];
        candidates.retain(|name| *name != into);
        let mut answer = None;
        for database in candidates {
            let settings = Postgres {
                database: database.to_owned(),
                ..settings.clone()
            };
            match postgres::connect(&Target::from(&settings), Duration::ZERO).await {
                Ok(connection) => return Self::look(settings, connection).await,
                Err(error) if is_no_database(&error) => answer = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(answer.expect("there is more than one candidate"))
    }

    async fn look(settings: Postgres, connection: Connection) -> Result<Self, PostgresError> {
        const QUERY: &str = "
            SELECT pg_catalog.current_setting('is_superuser') = 'on' AS is_superuser,
                   pg_catalog.current_setting('server_version_num')::bigint AS version,
                   pg_catalog.pg_is_in_recovery() AS in_recovery,
                   (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_identifier";
        let row = connection.query_one(QUERY, &[]).await.map_err(failed)?;
        let version: i64 = row.try_get("version").map_err(failed)?;
        let identifier: i64 = row.try_get("system_identifier").map_err(failed)?;
        let is_superuser = row.try_get("is_superuser").map_err(failed)?;
        if is_superuser {
            // Statements of the globals hold hashes of passwords, and no server log may.
            let quiet = "SET log_statement = none; SET log_min_error_statement = panic;
                SET log_min_duration_statement = -1; SET pgaudit.log = none;
                SET pg_stat_statements.track = none";
            connection.batch_execute(quiet).await.map_err(failed)?;
        }
        let roles = names(
            &connection,
            "SELECT rolname::text AS name FROM pg_catalog.pg_roles",
        );
        let roles = roles.await?;
        let extensions = "SELECT name::text AS name FROM pg_catalog.pg_available_extensions";
        let tablespaces = "SELECT spcname::text AS name FROM pg_catalog.pg_tablespace";
        Ok(Self {
            is_superuser,
            version: u32::try_from(version).map_err(|_| PostgresError::Answer {
                what: "its version",
            })?,
            in_recovery: row.try_get("in_recovery").map_err(failed)?,
            system_identifier: identifier.cast_unsigned(),
            roles: roles.into_iter().collect(),
            extensions: names(&connection, extensions).await?.into_iter().collect(),
            tablespaces: names(&connection, tablespaces).await?,
            settings,
            connection,
        })
    }

    /// The database `name`; `None` where there is none.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(super) async fn database(&self, name: &str) -> Result<Option<Existing>, PostgresError> {
        const THERE: &str =
            "SELECT datname::text AS name FROM pg_catalog.pg_database WHERE datname::text = $1";
        const SESSIONS: &str = "
            SELECT coalesce(usename::text, '?') || coalesce(' from ' || pg_catalog.host(client_addr), ' by the socket') AS name
              FROM pg_catalog.pg_stat_activity
             WHERE datname::text = $1 AND coalesce(backend_type, 'client backend') = 'client backend'";
        const HELD_BY: &str = "
            SELECT 'the prepared transaction ' || gid AS name FROM pg_catalog.pg_prepared_xacts WHERE database::text = $1
            UNION ALL
            SELECT 'the replication slot ' || slot_name::text FROM pg_catalog.pg_replication_slots WHERE database::text = $1
            UNION ALL
            SELECT 'the subscription ' || s.subname::text FROM pg_catalog.pg_subscription AS s
              JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid WHERE d.datname::text = $1";
        let of = async |query: &str| {
            let rows = self.connection.query(query, &[&name]).await;
            let rows = rows.map_err(failed)?;
            let names = rows.iter().map(|row| row.try_get("name").map_err(failed));
            names.collect::<Result<Vec<String>, _>>()
        };
        if of(THERE).await?.is_empty() {
            return Ok(None);
        }
        Ok(Some(Existing {
            sessions: of(SESSIONS).await?,
            held_by: of(HELD_BY).await?,
        }))
    }

    /// For messages: never a password.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }
}

async fn names(connection: &Connection, query: &str) -> Result<Vec<String>, PostgresError> {
    let rows = connection.query(query, &[]).await.map_err(failed)?;
    let names = rows.iter().map(|row| row.try_get("name").map_err(failed));
    names.collect()
}

fn failed(error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Query {
        what: "what is there",
        error,
    }
}

fn is_no_database(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Connect { error, .. }
        if error.code() == Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME))
}
