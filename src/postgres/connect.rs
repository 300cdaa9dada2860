//! One connection, with its deadlines.

use std::ops::Deref;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, Socket};

use super::PostgresError;
use super::session::{
    Access, NEWER, forget_unknown, options, pin_for_superuser, superuser_options,
};
use super::tls::{SslMode, Tls, TlsStream, open};
use crate::model::may_hold_password;

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
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
    /// A connection string where only a name belongs may hold a password.
    pub(super) fn shown(&self) -> String {
        let [host, user, database] =
            [&self.host, &self.user, &self.database].map(|name| match may_hold_password(name) {
                true => "(not shown)",
                false => name,
            });
        format!("{host}:{} (user {user}, database {database})", self.port)
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
pub(crate) struct Connection {
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
pub(crate) async fn connect(
    target: &Target,
    statement_timeout: Duration,
) -> Result<Connection, PostgresError> {
    begin(target, statement_timeout, Access::ReadWrite).await
}

/// The same for a session that only reads.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_read_only(
    target: &Target,
    statement_timeout: Duration,
) -> Result<Connection, PostgresError> {
    begin(target, statement_timeout, Access::ReadOnly).await
}

async fn begin(
    target: &Target,
    statement_timeout: Duration,
    access: Access,
) -> Result<Connection, PostgresError> {
    let begin = async {
        let login = log_in(target, statement_timeout, access).await;
        let (client, driver) = login.map_err(|error| PostgresError::Connect {
            target: target.shown(),
            error,
        })?;
        let connection = Connection { client, driver };
        let pinned = connection.batch_execute(&pin_for_superuser()).await;
        pinned.map_err(|error| PostgresError::Query {
            what: "for a session without foreign settings",
            error,
        })?;
        Ok(connection)
    };
    let connected = timeout(target.connect_timeout, begin).await;
    connected.unwrap_or_else(|_| {
        Err(PostgresError::Silent {
            target: target.shown(),
            secs: target.connect_timeout.as_secs(),
        })
    })
}

/// Logs in, and drives the connection until its client is dropped.
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
    let plain = || settings(target, statement_timeout, access);
    let login = match open_known(plain, &target.tls).await {
        Err(error) if is_run_at_login(&error) => {
            let as_superuser = || {
                let mut config = plain();
                config.options(superuser_options(statement_timeout, access));
                config
            };
            open_known(as_superuser, &target.tls)
                .await
                .map_err(|_| error)
        }
        login => login,
    };
    let (client, connection) = login?;
    let driver = tokio::spawn(async move {
        // Its error reaches the caller that waits on the client.
        let _ = connection.await;
    });
    Ok((client, driver))
}

/// A session, and what drives it.
type Opened = (Client, tokio_postgres::Connection<Socket, TlsStream>);

/// Opens what `config` says, which leaves out the settings that the server was found not to know.
async fn open_known(config: impl Fn() -> Config, tls: &Tls) -> Result<Opened, Error> {
    for _ in NEWER {
        match open(&config(), tls).await {
            Err(error) if lacks_setting(&error) => {}
            opened => return opened,
        }
    }
    open(&config(), tls).await
}

/// Whether the server refuses a setting of a later release that it was not known to lack.
fn lacks_setting(error: &Error) -> bool {
    let refused = error
        .as_db_error()
        .filter(|error| *error.code() == SqlState::UNDEFINED_OBJECT);
    refused.is_some_and(|error| forget_unknown(error.message()))
}

/// Whether a login failed for another reason than its role, its database or the state of the server.
fn is_run_at_login(error: &Error) -> bool {
    let code = error.code().map(SqlState::code);
    code.is_some_and(may_be_run_at_login)
}

/// A trigger on login fails with any code: a function that it calls may be missing (42883), or a privilege (42501).
fn may_be_run_at_login(code: &str) -> bool {
    // Wrong password, no such database, too many connections, starting or stopping.
    const OTHERS: [&str; 4] = ["28", "3D", "53", "57"];
    !OTHERS.iter().any(|class| code.starts_with(class))
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_login_is_tried_again_where_what_it_runs_may_have_failed() {
        for (code, again) in [
            ("42883", true), // undefined function
            ("42P01", true), // undefined table
            ("42501", true), // insufficient privilege
            ("P0001", true), // raised
            ("58P01", true), // a library that is missing
            ("22012", true), // division by zero
            ("28P01", false),
            ("28000", false),
            ("3D000", false),
            ("53300", false),
            ("57P03", false),
        ] {
            assert_eq!(may_be_run_at_login(code), again, "{code}");
        }
    }

    /// Lets the login in, and answers no query.
    #[tokio::test]
    async fn a_server_that_answers_no_query_is_silent_at_the_deadline() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port: server.local_addr().unwrap().port(),
            user: "ann".to_owned(),
            password: None,
            database: "shop".to_owned(),
            connect_timeout: Duration::from_millis(300),
            tls: Tls::none(),
        };
        let answer = tokio::spawn(async move {
            let (mut client, _) = server.accept().await.unwrap();
            let length = client.read_u32().await.unwrap();
            let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
            client.read_exact(&mut startup).await.unwrap();
            let welcome = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
            client.write_all(welcome).await.unwrap();
            // The query gets no answer.
            let asked = client.read_u8().await.unwrap();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
            asked
        });
        let connected = connect(&target, Duration::from_secs(1)).await;
        assert!(matches!(connected, Err(PostgresError::Silent { .. })));
        assert_eq!(answer.await.unwrap(), b'Q');
    }
}
