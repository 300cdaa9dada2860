//! Whether this node's PgBouncer serves applications: a login through it as they make it, and its console where that fails.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use procfs::net::{TcpNetEntry, TcpState};
use tokio::time::timeout;

use crate::cluster::{PgBouncerCondition, PgBouncerState};
use crate::config::{PgBouncer, Postgres};
use crate::log;
use crate::model::Verdict;
use crate::pgbouncer::{self, Console, Pool};
use crate::postgres::{SslMode, Target, Tls};
use crate::wait::{self, Hop, Parameters, Reached, WaitOptions, WantedRole};

/// For one login and one query.
const LOGIN: Duration = Duration::from_secs(3);
/// For the console, which is asked only where the login failed.
const CONSOLE: Duration = Duration::from_secs(2);

/// Between two attempts to open a session on the console, which PgBouncer logs.
const CONSOLE_AGAIN: Duration = Duration::from_secs(60);

/// Looks at PgBouncer again and again; its session on the console is kept for the time when PgBouncer takes no new one.
#[derive(Debug)]
pub(crate) struct PgBouncerWatch {
    login: WaitOptions,
    /// The same over the socket, where that is configured: PgBouncer may listen on another address than this machine's loopback.
    over_socket: Option<WaitOptions>,
    settings: PgBouncer,
    console: Option<Console>,
    console_tried_at: Option<Instant>,
}

/// What the console reports when a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Inside {
    is_paused: bool,
    /// Connections to PostgreSQL that are logged in.
    servers: u64,
}

impl PgBouncerWatch {
    /// Connects to nothing yet. Logins are made as those to `postgres`.
    pub(crate) fn new(settings: &PgBouncer, postgres: &Postgres) -> Self {
        let host = match settings.host.as_str() {
            // Over the socket PgBouncer may trust the user; applications come by TCP.
            host if host.starts_with('/') => "127.0.0.1",
            host => host,
        };
        let target = Target {
            host: host.to_owned(),
            port: settings.port,
            connect_timeout: LOGIN,
            ..Target::from(postgres)
        };
        let login = WaitOptions {
            target,
            parameters: Parameters::default(),
            password_file: None,
            tls: Tls::of(host, SslMode::Prefer, None),
            wanted: WantedRole::Any,
            front: Hop::PgBouncer,
            timeout: LOGIN,
            fail_fast_after: LOGIN,
        };
        let directory = Some(&settings.host).filter(|host| host.starts_with('/'));
        let over_socket = directory.map(|directory| {
            let mut options = login.clone();
            options.target.host.clone_from(directory);
            options.tls = Tls::none();
            options
        });
        Self {
            login,
            over_socket,
            settings: settings.clone(),
            console: None,
            console_tried_at: None,
        }
    }

    /// Logs in as an application does, and asks the console where the login proves nothing.
    pub(crate) async fn observe(&mut self) -> PgBouncerState {
        let reached = wait::probe(&self.login).await;
        let inside = match &reached {
            Reached::ServerAway(_) | Reached::Held(_) | Reached::Silent(_) => self.inside().await,
            Reached::Gone(_) => {
                // A PgBouncer that shuts down may wait for its last client to leave.
                self.console = None;
                None
            }
            _ => None,
        };
        let (mut condition, mut reason) = judge(&reached, inside);
        if condition == PgBouncerCondition::Gone
            && let Some(options) = &self.over_socket
        {
            let over_socket = wait::probe(options).await;
            let listens = listens_elsewhere(self.settings.port);
            let gone = reason.unwrap_or_default();
            (condition, reason) = judge_over_socket(&over_socket, listens, gone);
        }
        let in_recovery = match reached {
            Reached::PostgreSql { in_recovery } => in_recovery,
            _ => None,
        };
        PgBouncerState {
            at: Timestamp::now(),
            condition,
            reason,
            in_recovery,
        }
    }

    /// Keeps a session on the console while there is one to be had.
    pub(crate) async fn keep_console(&mut self) {
        if self.console.as_ref().is_some_and(Console::is_closed) {
            self.console = None;
        }
        let tried = self.console_tried_at;
        let waits = tried.is_some_and(|at| at.elapsed() < CONSOLE_AGAIN);
        if self.console.is_none() && !waits {
            self.console_tried_at = Some(Instant::now());
            let opened = timeout(CONSOLE, Console::open(&self.settings)).await;
            self.console = opened.ok().and_then(Result::ok);
        }
    }

    async fn inside(&mut self) -> Option<Inside> {
        let asked = timeout(CONSOLE, self.ask_console()).await;
        let failure = match asked {
            Ok(Ok(inside)) => return Some(inside),
            Ok(Err(error)) => log::chain(&error),
            Err(_) => format!("no answer within {} s", CONSOLE.as_secs()),
        };
        tracing::debug!("PgBouncer's console did not answer: {failure}");
        self.console = None;
        None
    }

    async fn ask_console(&mut self) -> Result<Inside, pgbouncer::PgBouncerError> {
        let console = match self.console.take() {
            Some(console) if !console.is_closed() => console,
            _ => Console::open(&self.settings).await?,
        };
        let (pools, databases) = (console.pools().await?, console.databases().await?);
        let is_paused = console.is_paused().await || databases.iter().any(|one| one.paused);
        self.console = Some(console);
        Ok(Inside {
            is_paused,
            servers: pools.iter().map(Pool::servers).sum(),
        })
    }
}

/// What one login proves, together with the console's report; `None` where the console does not answer.
fn judge(reached: &Reached, inside: Option<Inside>) -> (PgBouncerCondition, Option<String>) {
    use PgBouncerCondition::{Gone, Lives, Serves, Silent};
    let lives = |reason: &String, why: &str| (Lives, Some(format!("{why}: {reason}")));
    match (reached, inside) {
        (Reached::PostgreSql { .. }, _) => (Serves, None),
        (Reached::Gone(reason), _) => (Gone, Some(reason.clone())),
        (Reached::Full(reason), _) => lives(reason, "a limit on connections is reached"),
        (Reached::Refused(reason), _) => lives(reason, "PgBouncer refuses xdb's own login"),
        (Reached::Held(reason), Some(inside)) if inside.is_paused => {
            lives(reason, "PgBouncer is paused")
        }
        (Reached::Held(reason), Some(inside)) if inside.servers > 0 => {
            lives(reason, "all server connections of xdb's pool are taken")
        }
        (Reached::ServerAway(reason), Some(inside)) if inside.servers > 0 => lives(
            reason,
            "PgBouncer makes no new connection to PostgreSQL and still has some",
        ),
        (Reached::Silent(reason), Some(_)) => lives(
            reason,
            "PgBouncer answers on its console and takes no new connections (suspended, or no file descriptors left)",
        ),
        (Reached::ServerAway(reason) | Reached::Held(reason) | Reached::Silent(reason), _) => {
            (Silent, Some(reason.clone()))
        }
    }
}

/// Whether something on this node listens at `port` by TCP, at any address; `None` where the kernel does not say.
fn listens_elsewhere(port: u16) -> Option<bool> {
    let listens = |sockets: Vec<TcpNetEntry>| {
        let mut sockets = sockets.into_iter();
        sockets.any(|it| it.state == TcpState::Listen && it.local_address.port() == port)
    };
    let (v4, v6) = (procfs::net::tcp(), procfs::net::tcp6());
    // Without IPv6 there is no list of its sockets.
    Some(listens(v4.ok()?) || v6.is_ok_and(listens))
}

/// Judges by the socket where `gone` says that nothing listens at the loopback address: clients may use another address,
/// unless the kernel says that nothing `listens` at PgBouncer's port.
fn judge_over_socket(
    over_socket: &Reached,
    listens: Option<bool>,
    gone: String,
) -> (PgBouncerCondition, Option<String>) {
    match (over_socket, listens) {
        (Reached::Gone(_) | Reached::Silent(_), _) | (_, Some(false)) => {
            (PgBouncerCondition::Gone, Some(gone))
        }
        _ => (
            PgBouncerCondition::Lives,
            Some(format!(
                "{gone}, and PgBouncer answers on its socket: set pgbouncer.host to the address that it listens on"
            )),
        ),
    }
}

/// Begins the reason of an alert that does not follow from a PostgreSQL that is down.
pub(crate) const PGBOUNCER_DOWN: &str = "PgBouncer is down";

/// The verdict of the check `pgbouncer-up`.
pub(crate) fn judge_pgbouncer_up(state: &PgBouncerState) -> Verdict {
    let reason = state.reason().to_owned();
    match state.condition {
        PgBouncerCondition::Serves => Verdict::Ok,
        PgBouncerCondition::Lives => Verdict::Warning(reason),
        PgBouncerCondition::Silent => Verdict::Critical(format!(
            "no login through this node's PgBouncer works: {reason}"
        )),
        PgBouncerCondition::Gone => Verdict::Critical(format!("{PGBOUNCER_DOWN}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pgbouncer_that_cannot_serve_is_gone() {
        use PgBouncerCondition::{Gone, Lives, Serves, Silent};
        let seen = || "seen".to_owned();
        let inside = |is_paused, servers| Some(Inside { is_paused, servers });
        for (reached, inside, condition) in [
            (Reached::PostgreSql { in_recovery: None }, None, Serves),
            (Reached::Gone(seen()), None, Gone),
            (Reached::Full(seen()), None, Lives),
            (Reached::Refused(seen()), None, Lives),
            // Paused for a restart of PostgreSQL: clients wait, and must not be cut off.
            (Reached::Held(seen()), inside(true, 0), Lives),
            (Reached::Held(seen()), inside(false, 10), Lives),
            (Reached::Held(seen()), inside(false, 0), Silent),
            (Reached::Held(seen()), None, Silent),
            (Reached::ServerAway(seen()), inside(false, 3), Lives),
            // Where PostgreSQL is down its own sample shows it; PgBouncer remembers a failed login for a while.
            (Reached::ServerAway(seen()), inside(false, 0), Silent),
            (Reached::ServerAway(seen()), None, Silent),
            // SUSPEND stops accepting; an open session on the console still answers.
            (Reached::Silent(seen()), inside(false, 0), Lives),
            (Reached::Silent(seen()), None, Silent),
        ] {
            assert_eq!(
                judge(&reached, inside).0,
                condition,
                "{reached:?} {inside:?}"
            );
        }
    }

    #[test]
    fn the_kernel_says_what_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listens_elsewhere(port), Some(true));
        // A port that is held, and not listened at. That of a closed listener may be another process's the next moment.
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let held = client.local_addr().unwrap().port();
        assert_eq!(listens_elsewhere(held), Some(false));
    }

    #[test]
    fn a_pgbouncer_that_answers_on_its_socket_lives_where_its_port_is_taken() {
        use PgBouncerCondition::{Gone, Lives};
        let seen = || "seen".to_owned();
        for (over_socket, condition) in [
            (Reached::PostgreSql { in_recovery: None }, Lives),
            (Reached::Full(seen()), Lives),
            (Reached::Refused(seen()), Lives),
            (Reached::ServerAway(seen()), Lives),
            // Killed: what it leaves is a file that nothing listens on.
            (Reached::Gone(seen()), Gone),
            (Reached::Silent(seen()), Gone),
        ] {
            for listens in [None, Some(true)] {
                let judged = judge_over_socket(&over_socket, listens, seen());
                assert_eq!(judged.0, condition, "{over_socket:?}");
            }
            // Its port could not be taken: no client gets in.
            let judged = judge_over_socket(&over_socket, Some(false), seen());
            assert_eq!(judged.0, Gone, "{over_socket:?}");
        }
    }
}
