//! One connection to the console, with its deadlines.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use crate::postgres::{SslMode, Tls, open};

use super::{Database, PgBouncerError, Pool, Row, RowError};

/// For logging in, and for each question: the console answers from memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// The names of an answer's columns, and its rows.
pub(crate) type Rows = (Vec<String>, Vec<Vec<Option<String>>>);

/// A connection to the database `pgbouncer`; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Console {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Console {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Console {
    /// Logs in to the console.
    ///
    /// # Errors
    /// When PgBouncer does not answer or refuses.
    pub(crate) async fn open(settings: &crate::config::PgBouncer) -> Result<Self, PgBouncerError> {
        // Neither `options` nor `target_session_attrs`: the console refuses both.
        let mut config = Config::new();
        config
            .host(&settings.host)
            .port(settings.port)
            .user(&settings.user)
            .dbname("pgbouncer")
            .application_name("xdb")
            .connect_timeout(DEADLINE);
        if let Some(password) = &settings.password {
            config.password(password.expose_secret());
        }
        let tls = Tls::of(&settings.host, SslMode::Prefer, None);
        let login = timeout(DEADLINE, open(&config, &tls)).await;
        let (client, connection) =
            login
                .map_err(|_| silent("the login"))?
                .map_err(|error| PgBouncerError::Connect {
                    place: format!("{}:{}", settings.host, settings.port),
                    error,
                })?;
        let driver = tokio::spawn(async move {
            // Its error reaches the caller that waits on the client.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }

    /// The session has ended; it answers nothing any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Every pool: one for each database and user that logged in since the start.
    ///
    /// # Errors
    /// When the console does not answer, or not as expected.
    pub(crate) async fn pools(&self) -> Result<Vec<Pool>, PgBouncerError> {
        self.show("SHOW POOLS", Pool::from_row).await
    }

    /// Every database, `pgbouncer` itself among them.
    ///
    /// # Errors
    /// When the console does not answer, or not as expected.
    pub(crate) async fn databases(&self) -> Result<Vec<Database>, PgBouncerError> {
        self.show("SHOW DATABASES", Database::from_row).await
    }

    /// PAUSE or SUSPEND without a database's name (`SHOW STATE`); a release that does not know the command says `false`.
    pub(crate) async fn is_paused(&self) -> bool {
        let pair = |row: &Row| Ok((row.get::<String>("key")?, row.get::<String>("value")?));
        let states = self.show("SHOW STATE", pair).await.unwrap_or_default();
        states
            .iter()
            .any(|(key, value)| matches!(key.as_str(), "paused" | "suspended") && value == "yes")
    }

    /// The columns and rows of `SHOW {show}` as text; `None` is NULL.
    ///
    /// # Errors
    /// When the console does not answer, or refuses.
    pub(crate) async fn ask(&self, show: &str) -> Result<Rows, PgBouncerError> {
        let what = format!("SHOW {show}");
        let asked = timeout(DEADLINE, self.client.simple_query(&what)).await;
        let messages =
            asked
                .map_err(|_| silent(&what))?
                .map_err(|error| PgBouncerError::Query {
                    what: what.clone(),
                    error,
                })?;
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => {
                    columns = described.iter().map(|it| it.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let cell = |at| row.get(at).map(str::to_owned);
                    rows.push((0..row.len()).map(cell).collect());
                }
                _ => {}
            }
        }
        Ok((columns, rows))
    }

    async fn show<T>(
        &self,
        what: &'static str,
        read: impl Fn(&Row) -> Result<T, RowError>,
    ) -> Result<Vec<T>, PgBouncerError> {
        let messages = timeout(DEADLINE, self.client.simple_query(what))
            .await
            .map_err(|_| silent(what))?
            .map_err(|error| PgBouncerError::Query {
                what: what.to_owned(),
                error,
            })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Row::from(row)),
            _ => None,
        });
        rows.map(|row| read(&row))
            .collect::<Result<_, _>>()
            .map_err(|error| PgBouncerError::Answer { what, error })
    }
}

fn silent(what: &str) -> PgBouncerError {
    PgBouncerError::Silent {
        what: what.to_owned(),
        secs: DEADLINE.as_secs(),
    }
}
