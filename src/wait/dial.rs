//! One attempt: resolve, connect, log in, ask for the role; one deadline around everything.

use std::error::Error as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{SslMode as Negotiation, SslNegotiation};
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};

use super::connect::connect_first;
use super::peer::judge_peer;
use super::progress::{Progress, Stage};
use super::resolve::Resolver;
use super::session_attributes::SessionRole;
use super::watched::{Awaited, Forbidden, Watched, WatchedTls};
use super::{Host, WaitOptions, WantedRole};
use crate::postgres::{in_words, is_cut, tls_failure};

/// Why an attempt failed, as it was seen; [`super::classify`] says what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoginFailure {
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
    /// What `require_auth` or `requirepeer` forbids, in libpq's words.
    Forbidden(String),
    NoPassword,
    /// A password is asked for, and the file with it cannot be used.
    PasswordFile(String),
    /// What a PostgreSQL server would not answer.
    Odd(String),
    WrongRole {
        in_recovery: bool,
    },
    /// A primary whose transactions may not write.
    ReadOnly,
}

impl LoginFailure {
    /// libpq tries its next host then; after any other failure it stays.
    fn leads_to_the_next_host(&self) -> bool {
        match self {
            Self::Name(_) | Self::Connect(..) => true,
            Self::Server { code, .. } => code == "57P03",
            _ => false,
        }
    }

    /// libpq's `allow` and `prefer` come a second time, with or without TLS, when `pg_hba.conf` refused the first.
    fn asks_for_the_other_way(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Server { code, message } => code == "28000" || message.contains("SSL required"),
            _ => false,
        }
    }
}

/// The result of one attempt.
pub(super) struct LoginAttempt {
    /// Whether the server is in recovery.
    pub(super) result: Result<bool, LoginFailure>,
    pub(super) stage: Stage,
    /// The host that it ended at.
    pub(super) host: Host,
}

/// Tries the hosts of `options` once, for at most `limit`; fine when a server in the wanted role answers a query.
///
/// As for libpq, the next host comes where one cannot be reached, is starting, or is not what `target_session_attrs` asks for.
pub(super) async fn dial(
    options: &WaitOptions,
    resolver: &mut Resolver,
    limit: Duration,
) -> LoginAttempt {
    let hosts = options.hosts();
    let progress = Progress::default();
    let end = Instant::now() + limit;
    let result = timeout(limit, dial_hosts(options, &hosts, resolver, &progress, end)).await;
    let result = result.unwrap_or_else(|_| Err(LoginFailure::Silent(progress.stage(), limit)));
    let host = hosts.get(progress.host.load(Ordering::Relaxed)).cloned();
    LoginAttempt {
        result,
        stage: progress.stage(),
        host: host.unwrap_or_else(|| Host::of(&options.target)),
    }
}

async fn dial_hosts(
    options: &WaitOptions,
    hosts: &[Host],
    resolver: &mut Resolver,
    progress: &Progress,
    end: Instant,
) -> Result<bool, LoginFailure> {
    let passes = options.parameters.attributes.passes();
    let mut left = passes.len() * hosts.len();
    let mut result = Err(LoginFailure::Odd("no host to connect to".to_owned()));
    for attributes in passes {
        for (index, host) in hosts.iter().enumerate() {
            progress.host.store(index, Ordering::Relaxed);
            let share = share(end, left);
            left -= 1;
            let role = timeout(share, dial_host(options, host, resolver, progress, share)).await;
            match role {
                Ok(Ok(role)) if attributes.accept(role) => return judge(role, options.wanted),
                Ok(Ok(role)) if role.in_recovery || !role.read_only => {
                    let in_recovery = role.in_recovery;
                    result = Err(LoginFailure::WrongRole { in_recovery });
                }
                Ok(Ok(_)) => result = Err(LoginFailure::ReadOnly),
                Ok(Err(failure)) if failure.leads_to_the_next_host() => result = Err(failure),
                Ok(Err(failure)) => return Err(failure),
                Err(_) => result = Err(LoginFailure::Silent(progress.stage(), share)),
            }
        }
    }
    result
}

/// What one of `left` may take of the time until `end`.
fn share(end: Instant, left: usize) -> Duration {
    let time = end.saturating_duration_since(Instant::now());
    time / u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

/// Connects to `host` with TLS, without, or with one after the other, as `sslmode` says.
async fn dial_host(
    options: &WaitOptions,
    host: &Host,
    resolver: &mut Resolver,
    progress: &Progress,
    limit: Duration,
) -> Result<SessionRole, LoginFailure> {
    // A Unix socket is never encrypted.
    let ways = match host.is_socket() {
        true => &[Negotiation::Disable],
        false => options.tls.mode.ways(),
    };
    let mut result = Err(LoginFailure::Odd("no way to connect".to_owned()));
    let end = Instant::now() + limit;
    for (index, way) in ways.iter().enumerate() {
        result = attempt(options, host, *way, resolver, progress, end).await;
        let again = |failure: &LoginFailure| index == 0 && failure.asks_for_the_other_way();
        if !result.as_ref().is_err_and(again) {
            break;
        }
    }
    result
}

async fn attempt(
    options: &WaitOptions,
    host: &Host,
    negotiation: Negotiation,
    resolver: &mut Resolver,
    progress: &Progress,
    end: Instant,
) -> Result<SessionRole, LoginFailure> {
    let refused = |error: io::Error| LoginFailure::Connect(error.kind(), error.to_string());
    progress.heard.store(false, Ordering::Relaxed);
    if host.is_socket() {
        progress.reach(Stage::Connect);
        let stream = connect_socket(host).await.map_err(refused)?;
        if let Some(wanted) = &options.parameters.peer {
            judge_peer(&stream, wanted).map_err(LoginFailure::Forbidden)?;
        }
        return ask(options, host, negotiation, stream, progress).await;
    }
    progress.reach(Stage::Name);
    let mut addresses = resolver.addresses(host).await.map_err(LoginFailure::Name)?;
    loop {
        progress.reach(Stage::Connect);
        let (stream, address) = connect_first(&addresses).await.map_err(refused)?;
        let share = share(end, addresses.len());
        addresses.retain(|other| *other != address);
        let last = addresses.is_empty();
        let result = {
            let asked = ask(options, host, negotiation, stream, progress);
            tokio::pin!(asked);
            tokio::select! {
                biased;
                result = &mut asked => result,
                // One that takes connections and says nothing: another address may be alive.
                () = progress.silence(share), if !last => {
                    resolver.silent(host, address);
                    continue;
                }
            }
        };
        if progress.has_heard() {
            resolver.answered(host, address);
        }
        return result;
    }
}

/// A socket in a directory, or one in the abstract namespace.
async fn connect_socket(host: &Host) -> io::Result<UnixStream> {
    let path = format!("{}/.s.PGSQL.{}", host.name, host.port);
    let Some(name) = path.strip_prefix('@') else {
        return UnixStream::connect(path).await;
    };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Logs in over `stream` and asks for the server's role.
async fn ask<S>(
    options: &WaitOptions,
    host: &Host,
    negotiation: Negotiation,
    stream: S,
    progress: &Progress,
) -> Result<SessionRole, LoginFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    progress.reach(Stage::Greet);
    let (config, unused) = settings(options, host, negotiation);
    let failed = |error| match (failure(progress.stage(), &error), &unused) {
        (LoginFailure::NoPassword, Some(why)) => LoginFailure::PasswordFile(why.clone()),
        (failure, _) => failure,
    };
    let methods = options.parameters.methods.as_ref();
    let next = match negotiation {
        Negotiation::Disable => Awaited::Messages,
        _ if config.get_ssl_negotiation() == SslNegotiation::Direct => Awaited::Anything,
        _ => Awaited::Answer,
    };
    let stream = Watched::new(stream, methods, next, &progress.heard);
    let connector = WatchedTls {
        connector: options.tls.connector(&host.name),
        methods: methods.cloned(),
        heard: Arc::clone(&progress.heard),
    };
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
    let row = row.ok_or_else(|| LoginFailure::Odd("no row for pg_is_in_recovery()".to_owned()))?;
    role(&row)
}

/// The session's settings, and why the password file is not used: that matters only where a password is asked for.
fn settings(
    options: &WaitOptions,
    host: &Host,
    negotiation: Negotiation,
) -> (Config, Option<String>) {
    let target = &options.target;
    let parameters = &options.parameters;
    let mut config = Config::new();
    let name = parameters.application_name.as_deref();
    config
        .user(&target.user)
        .dbname(&target.database)
        .application_name(name.unwrap_or("xdb wait"))
        .ssl_mode(negotiation);
    if let Some(options) = &parameters.options {
        config.options(options);
    }
    if let Some(binding) = parameters.channel_binding {
        config.channel_binding(binding);
    }
    if options.tls.direct && negotiation == Negotiation::Require {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    let (from_file, unused) = match (&target.password, &options.password_file) {
        (None, Some(file)) => match file.read(&options.at(host).target) {
            Ok(password) => (password, None),
            Err(why) => (None, Some(why)),
        },
        _ => (None, None),
    };
    if let Some(password) = target.password.as_ref().or(from_file.as_ref()) {
        config.password(password.expose_secret());
    }
    (config, unused)
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

fn role(row: &SimpleQueryRow) -> Result<SessionRole, LoginFailure> {
    let column = |name| row.try_get(name).ok().flatten();
    let in_recovery = match column("in_recovery") {
        Some("t") => true,
        Some("f") => false,
        _ => return Err(LoginFailure::Odd("no role in its answer".to_owned())),
    };
    Ok(SessionRole {
        in_recovery,
        read_only: column("read_only") != Some("off"),
    })
}

/// Gives whether the server is in recovery.
fn judge(role: SessionRole, wanted: WantedRole) -> Result<bool, LoginFailure> {
    let in_recovery = role.in_recovery;
    match wanted {
        WantedRole::Primary if in_recovery => Err(LoginFailure::WrongRole { in_recovery }),
        // A standby's transactions never write; a primary's do not with default_transaction_read_only.
        WantedRole::Primary if role.read_only => Err(LoginFailure::ReadOnly),
        WantedRole::Replica if !in_recovery => Err(LoginFailure::WrongRole { in_recovery }),
        _ => Ok(in_recovery),
    }
}

fn failure(stage: Stage, error: &tokio_postgres::Error) -> LoginFailure {
    if let Some(answer) = error.as_db_error() {
        return LoginFailure::Server {
            code: answer.code().code().to_owned(),
            message: answer.message().to_owned(),
        };
    }
    let source = error.source();
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return LoginFailure::Tls(tls_failure(tls));
    }
    let forbidden = io.and_then(|io| io.get_ref()?.downcast_ref::<Forbidden>());
    if let Some(Forbidden(why)) = forbidden {
        return LoginFailure::Forbidden(why.clone());
    }
    if error.is_closed() || io.is_some_and(|io| is_cut(io.kind())) {
        return LoginFailure::Closed(stage);
    }
    // tokio-postgres has no kinds of their own for these.
    match in_words(error) {
        words if words == "password missing" => LoginFailure::NoPassword,
        words if words == "server does not support TLS" => LoginFailure::Tls(words),
        words => LoginFailure::Odd(words),
    }
}
