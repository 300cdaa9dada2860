//! One attempt: resolve, connect, log in, ask for the role; one deadline around everything.

use std::cell::Cell;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::Wanted;
use crate::postgres::{Target, in_words};

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Name,
    Connect,
    Login,
    Ask,
}

/// Why an attempt failed, as it was seen; [`super::classify`] says what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Name(String),
    Connect(io::ErrorKind, String),
    /// The attempt's deadline came first.
    Silent(Stage, Duration),
    /// The other side closed without a word.
    Closed(Stage),
    Server {
        code: String,
        message: String,
    },
    NoPassword,
    /// What a PostgreSQL server would not answer.
    Odd(String),
    WrongRole {
        in_recovery: bool,
    },
}

/// Tries `target` once, for at most `limit`; fine when a server in the role `wanted` answers a query.
pub(super) async fn dial(target: &Target, wanted: Wanted, limit: Duration) -> Result<(), Failure> {
    let stage = Cell::new(Stage::Name);
    timeout(limit, attempt(target, wanted, &stage))
        .await
        .unwrap_or_else(|_| Err(Failure::Silent(stage.get(), limit)))
}

async fn attempt(target: &Target, wanted: Wanted, stage: &Cell<Stage>) -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::Connect(error.kind(), error.to_string());
    let in_recovery = if target.host.starts_with('/') {
        stage.set(Stage::Connect);
        let socket = format!("{}/.s.PGSQL.{}", target.host, target.port);
        let stream = UnixStream::connect(socket).await.map_err(refused)?;
        role(target, stream, stage).await?
    } else {
        let name = (target.host.as_str(), target.port);
        let addresses: Vec<_> = tokio::net::lookup_host(name)
            .await
            .map_err(|error| Failure::Name(error.to_string()))?
            .collect();
        stage.set(Stage::Connect);
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(refused)?;
        role(target, stream, stage).await?
    };
    if wanted.accepts(in_recovery) {
        Ok(())
    } else {
        Err(Failure::WrongRole { in_recovery })
    }
}

/// Logs in over `stream` and asks whether the server is in recovery.
async fn role<S>(target: &Target, stream: S, stage: &Cell<Stage>) -> Result<bool, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    stage.set(Stage::Login);
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(&target.database)
        .application_name("xdb wait")
        .ssl_mode(SslMode::Disable);
    if let Some(password) = &target.password {
        config.password(password.expose_secret());
    }
    let (client, connection) = config
        .connect_raw(stream, NoTls)
        .await
        .map_err(|error| failure(Stage::Login, &error))?;

    // A login proves nothing: PgBouncer with a cached welcome gives it while PostgreSQL is down.
    // The simple protocol, because transaction pooling may lose a prepared statement.
    stage.set(Stage::Ask);
    let asked = client.simple_query("SELECT pg_catalog.pg_is_in_recovery()");
    tokio::pin!(asked);
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        // A last message may have come with the end: `asked` has it then.
        ended = connection => match (asked.await, ended) {
            (Err(closed), Err(error)) if closed.as_db_error().is_none() => Err(error),
            (answer, _) => answer,
        },
    };
    let messages = answer.map_err(|error| failure(Stage::Ask, &error))?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match value {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        _ => Err(Failure::Odd("no row for pg_is_in_recovery()".to_owned())),
    }
}

fn failure(stage: Stage, error: &tokio_postgres::Error) -> Failure {
    if let Some(answer) = error.as_db_error() {
        return Failure::Server {
            code: answer.code().code().to_owned(),
            message: answer.message().to_owned(),
        };
    }
    let cut = |kind| {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(
            kind,
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        )
    };
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_closed() || io.is_some_and(|io| cut(io.kind())) {
        return Failure::Closed(stage);
    }
    // tokio-postgres has no kind of its own for it.
    match in_words(error) {
        words if words == "password missing" => Failure::NoPassword,
        words => Failure::Odd(words),
    }
}
