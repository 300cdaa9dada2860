//! One attempt: resolve, connect, log in, ask for the role; one deadline around everything.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};

use super::heard::Heard;
use super::resolve::Resolver;
use super::{Options, Wanted};
use crate::postgres::in_words;

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Name,
    Connect,
    /// Connected, and not a byte came: a proxy accepts before it has anywhere to go.
    Greet,
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
    /// TLS is wanted and not offered, or the handshake failed.
    Tls(String),
    NoPassword,
    /// The file with the password cannot be used.
    PasswordFile(String),
    /// What a PostgreSQL server would not answer.
    Odd(String),
    WrongRole {
        in_recovery: bool,
    },
    /// A primary whose transactions may not write.
    ReadOnly,
}

impl Failure {
    /// libpq's `allow` and `prefer` come a second time, with or without TLS, when `pg_hba.conf` refused the first.
    fn asks_for_the_other_way(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Server { code, message } => code == "28000" || message.contains("SSL required"),
            _ => false,
        }
    }
}

/// How far an attempt is, for whoever ends it.
#[derive(Default)]
struct Progress {
    stage: Mutex<Option<Stage>>,
    /// Something came from the other side of the present connection.
    heard: Arc<AtomicBool>,
}

impl Progress {
    fn reached(&self) -> MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, stage: Stage) {
        *self.reached() = Some(stage);
    }

    fn stage(&self) -> Stage {
        match *self.reached() {
            Some(Stage::Greet) if self.heard.load(Ordering::Relaxed) => Stage::Login,
            stage => stage.unwrap_or(Stage::Name),
        }
    }
}

/// Tries `options.target` once, for at most `limit`; fine when a server in the wanted role answers a query.
pub(super) async fn dial(
    options: &Options,
    resolver: &mut Resolver,
    limit: Duration,
) -> Result<(), Failure> {
    dial_to_stage(options, resolver, limit).await.0.map(|_| ())
}

/// The same, with how far the attempt came; gives whether the server is in recovery.
pub(super) async fn dial_to_stage(
    options: &Options,
    resolver: &mut Resolver,
    limit: Duration,
) -> (Result<bool, Failure>, Stage) {
    let progress = Progress::default();
    let attempts = async {
        let mut result = Ok(false);
        for (index, way) in ways(options).iter().enumerate() {
            result = attempt(options, *way, resolver, &progress).await;
            let again = |failure: &Failure| index == 0 && failure.asks_for_the_other_way();
            if !result.as_ref().is_err_and(again) {
                break;
            }
        }
        result
    };
    let result = timeout(limit, attempts)
        .await
        .unwrap_or_else(|_| Err(Failure::Silent(progress.stage(), limit)));
    (result, progress.stage())
}

/// A Unix socket is never encrypted.
fn ways(options: &Options) -> &'static [Negotiation] {
    if options.target.host.starts_with('/') {
        &[Negotiation::Disable]
    } else {
        options.tls.mode.ways()
    }
}

async fn attempt(
    options: &Options,
    negotiation: Negotiation,
    resolver: &mut Resolver,
    progress: &Progress,
) -> Result<bool, Failure> {
    let target = &options.target;
    let refused = |error: io::Error| Failure::Connect(error.kind(), error.to_string());
    progress.heard.store(false, Ordering::Relaxed);
    let row = if target.host.starts_with('/') {
        progress.reach(Stage::Connect);
        let socket = format!("{}/.s.PGSQL.{}", target.host, target.port);
        let stream = UnixStream::connect(socket).await.map_err(refused)?;
        ask(options, negotiation, stream, progress).await?
    } else {
        progress.reach(Stage::Name);
        let addresses = resolver.addresses(target).await.map_err(Failure::Name)?;
        progress.reach(Stage::Connect);
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        ask(options, negotiation, stream, progress).await?
    };
    judge(&row, options.wanted)
}

/// Logs in over `stream` and asks for the server's role.
async fn ask<S>(
    options: &Options,
    negotiation: Negotiation,
    stream: S,
    progress: &Progress,
) -> Result<SimpleQueryRow, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    progress.reach(Stage::Greet);
    let config = settings(options, negotiation)?;
    let stream = Heard::new(stream, &progress.heard);
    let failed = |error| failure(progress.stage(), &error);
    let connector = options.tls.connector(&options.target.host);
    let (client, mut connection) = config
        .connect_raw(stream, connector)
        .await
        .map_err(failed)?;

    // A login proves nothing: PgBouncer with a cached welcome gives it while PostgreSQL is down.
    progress.reach(Stage::Ask);
    let answer = {
        let asked = first_row(&client);
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => answer,
            // A last message may have come with the end: `asked` has it then.
            ended = &mut connection => match (asked.await, ended) {
                (Err(closed), Err(error)) if closed.as_db_error().is_none() => Err(error),
                (answer, _) => answer,
            },
        }
    };
    let row = answer.map_err(failed)?;
    // An orderly end: PgBouncer logs any other as the client's failure.
    drop(client);
    let _ = connection.await;
    row.ok_or_else(|| Failure::Odd("no row for pg_is_in_recovery()".to_owned()))
}

fn settings(options: &Options, negotiation: Negotiation) -> Result<Config, Failure> {
    let target = &options.target;
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(&target.database)
        .application_name("xdb wait")
        .ssl_mode(negotiation);
    let from_file = match (&target.password, &options.password_file) {
        (None, Some(file)) => file.read(target).map_err(Failure::PasswordFile)?,
        _ => None,
    };
    if let Some(password) = target.password.as_ref().or(from_file.as_ref()) {
        config.password(password.expose_secret());
    }
    Ok(config)
}

/// The simple protocol, because transaction pooling may lose a prepared statement.
async fn first_row(client: &Client) -> Result<Option<SimpleQueryRow>, tokio_postgres::Error> {
    const QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery, \
                         pg_catalog.current_setting('transaction_read_only') AS read_only";
    let messages = client.simple_query(QUERY).await?;
    Ok(messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

/// Gives whether the server is in recovery.
fn judge(row: &SimpleQueryRow, wanted: Wanted) -> Result<bool, Failure> {
    let column = |name| row.try_get(name).ok().flatten();
    let in_recovery = match column("in_recovery") {
        Some("t") => true,
        Some("f") => false,
        _ => return Err(Failure::Odd("no role in its answer".to_owned())),
    };
    match wanted {
        Wanted::Primary if in_recovery => Err(Failure::WrongRole { in_recovery }),
        // A standby's transactions never write; a primary's do not with default_transaction_read_only.
        Wanted::Primary if column("read_only") != Some("off") => Err(Failure::ReadOnly),
        Wanted::Replica if !in_recovery => Err(Failure::WrongRole { in_recovery }),
        _ => Ok(in_recovery),
    }
}

fn failure(stage: Stage, error: &tokio_postgres::Error) -> Failure {
    if let Some(answer) = error.as_db_error() {
        return Failure::Server {
            code: answer.code().code().to_owned(),
            message: answer.message().to_owned(),
        };
    }
    let source = error.source();
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return Failure::Tls(tls.to_string());
    }
    if error.is_closed() || io.is_some_and(|io| is_cut(io.kind())) {
        return Failure::Closed(stage);
    }
    // tokio-postgres has no kinds of their own for these.
    match in_words(error) {
        words if words == "password missing" => Failure::NoPassword,
        words if words == "server does not support TLS" => Failure::Tls(words),
        words => Failure::Odd(words),
    }
}

fn is_cut(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
