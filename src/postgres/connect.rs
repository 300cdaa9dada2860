//! One connection, with its deadlines.

use std::ops::Deref;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, Error};

use super::PostgresError;
use super::session::{Access, options, pin_for_superuser, superuser_options};
use super::tls::{SslMode, Tls, open};

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<SecretString>,
    pub database: String,
    /// For the whole of connecting, login included.
    pub connect_timeout: Duration,
    pub tls: Tls,
}

impl Target {
    pub(super) fn shown(&self) -> String {
        format!(
            "{}:{} (user {}, database {})",
            self.host, self.port, self.user, self.database
        )
    }
}

impl From<&crate::config::Postgres> for Target {
    fn from(settings: &crate::config::Postgres) -> Self {
        Self {
            host: settings.host.clone(),
            port: settings.port,
            user: settings.user.clone(),
            password: settings.password.clone(),
            database: settings.database.clone(),
            connect_timeout: settings.connect_timeout,
            tls: Tls::of(
                &settings.host,
                SslMode::named(&settings.sslmode),
                settings.sslrootcert.as_deref(),
            ),
        }
    }
}

/// A client and the task that drives it; both end when this is dropped.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Logs in to `target`; a statement there may take `statement_timeout`, a lock 5 s.
///
/// The session depends on no setting of the server, the database or the role: [`super::session`].
///
/// # Errors
/// When the server does not answer in time or refuses.
pub async fn connect(
    target: &Target,
    statement_timeout: Duration,
) -> Result<Connection, PostgresError> {
    let login = log_in(target, statement_timeout, Access::ReadWrite);
    let login = timeout(target.connect_timeout, login).await;
    let silent = |_| PostgresError::Silent {
        target: target.shown(),
        secs: target.connect_timeout.as_secs(),
    };
    let refused = |error| PostgresError::Connect {
        target: target.shown(),
        error,
    };
    let (client, driver) = login.map_err(silent)?.map_err(refused)?;
    let connection = Connection { client, driver };
    let pinned = connection.batch_execute(&pin_for_superuser()).await;
    pinned.map_err(|error| PostgresError::Query {
        what: "for a session without foreign settings",
        error,
    })?;
    Ok(connection)
}

/// Logs in, and keeps the connection going until its client is gone.
///
/// A server that refuses the login for what it would run then (a preloaded library, a trigger on login) is asked again as
/// a superuser may.
///
/// # Errors
/// The server's first answer.
pub(super) async fn log_in(
    target: &Target,
    statement_timeout: Duration,
    access: Access,
) -> Result<(Client, JoinHandle<()>), Error> {
    let mut config = settings(target, statement_timeout, access);
    let login = match open(&config, &target.tls).await {
        Err(error) if is_run_at_login(&error) => {
            config.options(superuser_options(statement_timeout, access));
            open(&config, &target.tls).await.map_err(|_| error)
        }
        login => login,
    };
    let (client, connection) = login?;
    let driver = tokio::spawn(async move {
        // Its error reaches whoever waits on the client.
        let _ = connection.await;
    });
    Ok((client, driver))
}

/// Whether a login failed neither for who logs in where, nor for how the server is doing.
fn is_run_at_login(error: &Error) -> bool {
    // Wrong password, no such database or setting, too many connections, starting or stopping.
    const OTHERS: [&str; 5] = ["28", "3D", "42", "53", "57"];
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    code.is_some_and(|code| !OTHERS.iter().any(|class| code.starts_with(class)))
}

/// What every session of xdb has in common.
pub(super) fn settings(target: &Target, statement_timeout: Duration, access: Access) -> Config {
    let mut config = Config::new();
    config
        .host(&target.host)
        .port(target.port)
        .user(&target.user)
        .dbname(&target.database)
        .application_name("xdb")
        .connect_timeout(target.connect_timeout)
        .keepalives_idle(Duration::from_secs(30))
        .tcp_user_timeout(Duration::from_secs(30))
        .options(options(statement_timeout, access));
    if let Some(password) = &target.password {
        config.password(password.expose_secret());
    }
    config
}
