//! The scratch server, which only xdb can reach.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::RestoreError;
use super::scratch::Scratch;
use super::server_messages::without_values;
use super::verify::is_corrupt;
use crate::config::Postgres;
use crate::postgres::{self, PostgresError, Target};
use crate::process::{self, Group, Reach};
use crate::repository::add_ambient_aws;

/// A running scratch server; dropping it begins its immediate shutdown, which [`Scratch::remove`] waits for.
#[derive(Debug)]
pub struct ScratchServer {
    group: Group,
    /// Its database is the one that let xdb in.
    target: Target,
    data: PathBuf,
    /// The scratch directory's own: set once the recovery is over.
    opened: Arc<AtomicBool>,
}

/// Databases of every cluster, unless they were dropped or locked.
const DOORS: [&str; 2] = ["template1", "postgres"];

/// How long a login may be refused that only a change in the cluster mends.
const REFUSED: Duration = Duration::from_secs(15);
/// The same while connections are taken, and while nothing is answered at all.
const TAKEN: Duration = Duration::from_secs(45);
const SILENT: Duration = Duration::from_secs(600);

impl ScratchServer {
    /// Starts the server in `scratch` for its recovery, which fetches WAL; `environment` is what its `restore_command`
    /// finds its configuration in. A modest one yields to the live server.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(
        scratch: &Scratch,
        settings: &Postgres,
        environment: &[(String, SecretString)],
        modest: bool,
    ) -> Result<Self, RestoreError> {
        Self::launch(scratch, settings, environment, modest, None)
    }

    /// Starts the server in `scratch`, which yields to the live server and reaches no other: neither by a network nor by a
    /// Unix socket. Where the kernel cannot see to that ([`Network::here`]), nothing that dials may run in it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_cut_off(scratch: &Scratch, settings: &Postgres) -> Result<Self, RestoreError> {
        let reach = (Network::here() == Network::None).then_some(Reach::Nothing);
        Self::launch(scratch, settings, &[], true, reach)
    }

    /// Restarts a server that has recovered, so that it reaches no other server: as [`Self::start_cut_off`].
    ///
    /// # Errors
    /// When it does not open again before `deadline`.
    pub async fn cut_off(
        self,
        scratch: &Scratch,
        settings: &Postgres,
        deadline: Instant,
    ) -> Result<Self, RestoreError> {
        const GRACE: Duration = Duration::from_secs(60);
        self.shut_down(GRACE).await;
        let mut server = Self::start_cut_off(scratch, settings)?;
        match server.wait_until_open(&scratch.log(), deadline).await {
            Ok(()) => Ok(server),
            Err(Ended::TooSlow) => Err(RestoreError::Server(
                "it did not open again in time".to_owned(),
            )),
            Err(Ended::Stopped(reason) | Ended::Refused(reason)) => {
                Err(RestoreError::Server(reason))
            }
            Err(Ended::Damaged(reason)) => Err(RestoreError::Bad(reason)),
            Err(Ended::Killed(status)) => {
                Err(RestoreError::Server(format!("it was killed, {status}")))
            }
        }
    }

    fn launch(
        scratch: &Scratch,
        settings: &Postgres,
        environment: &[(String, SecretString)],
        modest: bool,
        reach: Option<Reach>,
    ) -> Result<Self, RestoreError> {
        let log = scratch.log();
        let file = fs::File::create(&log).map_err(|source| RestoreError::File {
            operation: "write",
            path: log.clone(),
            source,
        })?;
        let errors = file.try_clone().map_err(|source| RestoreError::File {
            operation: "write",
            path: log.clone(),
            source,
        })?;
        let mut command = process::command(settings.bin_directory.join("postgres"));
        add_ambient_aws(&mut command);
        if modest {
            process::modest(&mut command);
        }
        if let Some(reach) = reach {
            process::cut_off(&mut command, reach);
        }
        command
            .arg("-D")
            .arg(scratch.data())
            .current_dir(scratch.path())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(errors));
        for (name, value) in environment {
            command.env(name, value.expose_secret());
        }
        // SIGQUIT, PostgreSQL's immediate shutdown: it frees its shared memory even when xdb was killed.
        let group = Group::start(&mut command, Signal::QUIT)?;
        let target = Target {
            host: scratch.socket_directory().to_string_lossy().into_owned(),
            port: 5432,
            user: settings.user.clone(),
            password: None,
            database: DOORS[0].to_owned(),
            connect_timeout: Duration::from_secs(10),
            tls: postgres::Tls::none(),
        };
        Ok(Self {
            group,
            target,
            data: scratch.data(),
            opened: scratch.opened(),
        })
    }

    /// Where the database of this server is reached that let xdb in.
    pub fn door(&self) -> Target {
        self.target.clone()
    }

    /// Where `database` of this server is reached.
    pub fn target(&self, database: &str) -> Target {
        Target {
            database: database.to_owned(),
            ..self.target.clone()
        }
    }

    /// Waits until the recovery is over and the server takes read-write queries.
    ///
    /// # Errors
    /// When the server ends, with the reason from its log, refuses to log xdb in, or `deadline` passes.
    pub async fn wait_until_open(&mut self, log: &Path, deadline: Instant) -> Result<(), Ended> {
        let mut knocking = None;
        loop {
            if let Some(status) = self.group.ended() {
                tell_end(log);
                if status.signal().is_some() {
                    return Err(Ended::Killed(status));
                }
                return Err(Ended::Stopped(last_words(
                    &fs::read_to_string(log).unwrap_or_default(),
                )));
            }
            // A login would start a process each time, beside a replay that needs the processor.
            if postgres::postmaster_status(&self.data).as_deref() == Some("ready") {
                self.opened.store(true, Ordering::Relaxed);
                let since = *knocking.get_or_insert_with(Instant::now);
                match self.knock().await {
                    Ok(()) => return Ok(()),
                    Err(Closed::Starting) => knocking = None,
                    Err(Closed::Damaged(words)) => return Err(Ended::Damaged(words)),
                    Err(Closed::For { limit, words }) if since.elapsed() >= limit => {
                        return Err(Ended::Refused(words));
                    }
                    Err(Closed::For { .. }) => tokio::time::sleep(Duration::from_millis(500)).await,
                }
            }
            if Instant::now() > deadline {
                return Err(Ended::TooSlow);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tries each database until one accepts a login; any of them will do.
    async fn knock(&mut self) -> Result<(), Closed> {
        let mut doors: Vec<String> = DOORS.map(str::to_owned).into();
        let names = postgres::database_names(&self.data);
        doors.extend(
            names
                .into_iter()
                .filter(|name| !DOORS.contains(&name.as_str())),
        );
        let mut first = None;
        for door in doors {
            let target = self.target(&door);
            let error = match postgres::connect(&target, Duration::from_secs(10)).await {
                Ok(connection) => {
                    const ASK: &str = "SELECT pg_catalog.pg_is_in_recovery()";
                    match connection.simple_query(ASK).await {
                        Ok(_) => {
                            self.target = target;
                            return Ok(());
                        }
                        Err(error) => Closed::of(&error),
                    }
                }
                Err(PostgresError::Connect { error, .. } | PostgresError::Query { error, .. }) => {
                    Closed::of(&error)
                }
                Err(error) => Closed::For {
                    limit: SILENT,
                    words: error.to_string(),
                },
            };
            match error {
                Closed::Starting => return Err(error),
                // Damage outweighs the errors of the other databases.
                Closed::Damaged(_) => first = Some(error),
                Closed::For { .. } => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(Closed::Starting))
    }

    /// Shuts the server down so that its data files are consistent; after `grace` it is killed.
    pub async fn shut_down(mut self, grace: Duration) {
        self.group.stop(Signal::INT, grace).await;
    }
}

/// Whether the tests' scratch servers can be kept from all other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The kernel refuses each connection to another server.
    None,
    /// The kernel, or the container, does not let xdb refuse them.
    Open,
}

impl Network {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "no network: the kernel refuses each connection to another server",
            Self::Open => {
                "network open: this kernel or container lets xdb refuse no connection; no foreign table was read"
            }
        }
    }

    /// What this machine lets xdb do.
    pub fn here() -> Self {
        if process::can_cut_off() {
            Self::None
        } else {
            Self::Open
        }
    }
}

/// Logs the last lines of a server log that is removed with the scratch directory.
pub(super) fn tell_end(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(TURNED_AWAY))
        .collect();
    for line in &lines[lines.len().saturating_sub(15)..] {
        tracing::warn!("scratch server: {}", without_values(line));
    }
}

/// The answer to xdb's own logins until the server opens.
const TURNED_AWAY: &str = "the database system is";

/// Why the scratch server did not open.
#[derive(Debug)]
pub enum Ended {
    /// The server ended; what its log says.
    Stopped(String),
    /// By a signal: what the log says is no reason.
    Killed(ExitStatus),
    /// It runs, and refuses to log us in for good.
    Refused(String),
    /// It runs, and what it reads for each login is damaged.
    Damaged(String),
    TooSlow,
}

/// Why no database accepted a login.
#[derive(Debug)]
enum Closed {
    /// The server is still starting.
    Starting,
    /// Every login fails, and this is damaged.
    Damaged(String),
    /// It may within `limit`.
    For { limit: Duration, words: String },
}

impl Closed {
    fn of(error: &tokio_postgres::Error) -> Self {
        let limit = match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("57P03") => return Self::Starting,
            // A role that may not log in will not be able to in a moment either.
            Some(code) if code.starts_with("28") => Duration::ZERO,
            Some(code) if code.starts_with("53") => TAKEN,
            Some(_) => REFUSED,
            None => SILENT,
        };
        let words = postgres::in_words(error);
        if is_corrupt(error) {
            return Self::Damaged(format!("the restored server cannot be entered: {words}"));
        }
        Self::For { limit, words }
    }
}

/// The reason in a server's log: its first FATAL or PANIC, or the signal that ended the recovery, and what `xdb wal-fetch` complained of last.
fn last_words(log: &str) -> String {
    let message = |line: &str, level: &str| {
        line.split_once(level)
            .map(|(_, text)| format!("{level}{text}"))
    };
    let level = |line: &str| {
        message(line, "PANIC:")
            .or_else(|| message(line, "FATAL:"))
            .filter(|_| !line.contains(TURNED_AWAY))
    };
    let fetch = log
        .lines()
        .rev()
        .find_map(|line| message(line, "xdb wal-fetch: "));
    let killed = |line: &str| {
        let signal = |line: &String| line.contains("startup process") && line.contains("by signal");
        message(line, "LOG:").filter(signal)
    };
    let fatal = log.lines().find_map(level);
    let fatal = fatal.or_else(|| log.lines().find_map(killed));
    match (fatal, fetch) {
        (Some(fatal), Some(fetch)) => format!("{fatal} ({fetch})"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => log
            .lines()
            .last()
            .unwrap_or("it left an empty log")
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_its_reason() {
        let log = "2026-11-21 07:47:11.648 UTC LOG:  starting\n\
                   2026-11-21 07:47:11.700 UTC FATAL:  the database system is starting up\n\
                   xdb wal-fetch: cannot list s3://b/k: S3 does not answer (connection refused)\n\
                   HINT: check s3.endpoint\n\
                   2026-11-21 07:47:12.000 UTC FATAL:  could not restore file \"000000010000000000000004\" from archive: command not executable\n\
                   2026-11-21 07:47:12.000 UTC LOG:  startup process (PID 9) exited with exit code 1\n";
        let words = last_words(log);
        assert!(
            words.starts_with("FATAL:  could not restore file"),
            "{words}"
        );
        assert!(words.contains("S3 does not answer"), "{words}");
        let killed = "2026-11-21 07:47:12.000 UTC LOG:  startup process (PID 9) was terminated by signal 9: Killed\n\
                      2026-11-21 07:47:12.000 UTC LOG:  database system is shut down\n";
        assert!(last_words(killed).ends_with("signal 9: Killed"));
        assert_eq!(last_words(""), "it left an empty log");
    }
}
