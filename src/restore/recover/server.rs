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

use super::server_errors::is_corrupt;
use super::server_log::{failure_reason, log_last_lines};
use crate::config::Postgres;
use crate::postgres::{self, PostgresError, Target};
use crate::process::{self, ProcessGroup, Reach};
use crate::repository::add_ambient_aws;
use crate::restore::RestoreError;
use crate::restore::scratch::Scratch;

/// A running scratch server; dropping it begins its immediate shutdown, which [`Scratch::remove`] waits for.
#[derive(Debug)]
pub(crate) struct ScratchServer {
    group: ProcessGroup,
    /// Its database is the one that let xdb in.
    target: Target,
    data: PathBuf,
    /// The scratch directory's own: set once the recovery is over.
    opened: Arc<AtomicBool>,
}

/// The database that is there before any is restored.
pub(crate) const MAINTENANCE: &str = "template1";

/// Databases of every cluster, unless they were dropped or locked.
const ALWAYS_THERE: [&str; 2] = [MAINTENANCE, "postgres"];

/// How long a login may be refused that only a change in the cluster mends.
const REFUSED: Duration = Duration::from_secs(15);
/// The same while connections are taken, and while nothing is answered at all.
const NO_SLOT: Duration = Duration::from_secs(45);
const NO_ANSWER: Duration = Duration::from_secs(600);

impl ScratchServer {
    /// Starts the server in `scratch` for its recovery, which fetches WAL; `environment` is what its `restore_command`
    /// finds its configuration in. A low-priority one yields to the live server.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(
        scratch: &Scratch,
        settings: &Postgres,
        environment: &[(String, SecretString)],
        low_priority: bool,
    ) -> Result<Self, RestoreError> {
        Self::launch(scratch, settings, environment, low_priority, None)
    }

    /// Starts the server in `scratch`, which yields to the live server and reaches no other: neither by a network nor by a
    /// Unix socket. Where the kernel cannot see to that ([`Network::here`]), nothing that dials may run in it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start_cut_off(
        scratch: &Scratch,
        settings: &Postgres,
    ) -> Result<Self, RestoreError> {
        let reach = (Network::here() == Network::None).then_some(Reach::Nothing);
        Self::launch(scratch, settings, &[], true, reach)
    }

    /// Restarts a server that has recovered, so that it reaches no other server: as [`Self::start_cut_off`].
    ///
    /// # Errors
    /// When it does not open again before `deadline`.
    pub(crate) async fn cut_off(
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
            Err(StartFailure::TooSlow) => Err(RestoreError::Server(
                "it did not open again in time".to_owned(),
            )),
            Err(StartFailure::Stopped(reason) | StartFailure::Refused(reason)) => {
                Err(RestoreError::Server(reason))
            }
            Err(StartFailure::Damaged(reason)) => Err(RestoreError::Bad(reason)),
            Err(StartFailure::Killed(status)) => {
                Err(RestoreError::Server(format!("it was killed, {status}")))
            }
        }
    }

    fn launch(
        scratch: &Scratch,
        settings: &Postgres,
        environment: &[(String, SecretString)],
        low_priority: bool,
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
        if low_priority {
            process::low_priority(&mut command);
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
        let group = ProcessGroup::start(&mut command, Signal::QUIT)?;
        let target = Target {
            host: scratch.socket_directory().to_string_lossy().into_owned(),
            port: 5432,
            user: settings.user.clone(),
            password: None,
            database: MAINTENANCE.to_owned(),
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
    pub(crate) fn accepting_target(&self) -> Target {
        self.target.clone()
    }

    /// Where `database` of this server is reached.
    pub(crate) fn target(&self, database: &str) -> Target {
        Target {
            database: database.to_owned(),
            ..self.target.clone()
        }
    }

    /// Waits until the recovery is over and the server takes read-write queries.
    ///
    /// # Errors
    /// When the server ends, with the reason from its log, refuses to log xdb in, or `deadline` passes.
    pub(crate) async fn wait_until_open(
        &mut self,
        log: &Path,
        deadline: Instant,
    ) -> Result<(), StartFailure> {
        let mut logging_in = None;
        loop {
            if let Some(status) = self.group.ended() {
                log_last_lines(log);
                if status.signal().is_some() {
                    return Err(StartFailure::Killed(status));
                }
                return Err(StartFailure::Stopped(failure_reason(
                    &fs::read_to_string(log).unwrap_or_default(),
                )));
            }
            // A login would start a process each time, beside a replay that needs the processor.
            if postgres::postmaster_status(&self.data).as_deref() == Some("ready") {
                self.opened.store(true, Ordering::Relaxed);
                let since = *logging_in.get_or_insert_with(Instant::now);
                match self.log_in().await {
                    Ok(()) => return Ok(()),
                    Err(LoginFailure::Starting) => logging_in = None,
                    Err(LoginFailure::Damaged(message)) => {
                        return Err(StartFailure::Damaged(message));
                    }
                    Err(LoginFailure::For { limit, message }) if since.elapsed() >= limit => {
                        return Err(StartFailure::Refused(message));
                    }
                    Err(LoginFailure::For { .. }) => {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(StartFailure::TooSlow);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tries each database until one accepts a login; any of them will do.
    async fn log_in(&mut self) -> Result<(), LoginFailure> {
        let mut databases: Vec<String> = ALWAYS_THERE.map(str::to_owned).into();
        let names = postgres::database_names(&self.data);
        databases.extend(
            names
                .into_iter()
                .filter(|name| !ALWAYS_THERE.contains(&name.as_str())),
        );
        let mut first = None;
        for database in databases {
            let target = self.target(&database);
            let error = match postgres::connect(&target, Duration::from_secs(10)).await {
                Ok(connection) => {
                    const ASK: &str = "SELECT pg_catalog.pg_is_in_recovery()";
                    match connection.simple_query(ASK).await {
                        Ok(_) => {
                            self.target = target;
                            return Ok(());
                        }
                        Err(error) => LoginFailure::of(&error),
                    }
                }
                Err(PostgresError::Connect { error, .. } | PostgresError::Query { error, .. }) => {
                    LoginFailure::of(&error)
                }
                Err(error) => LoginFailure::For {
                    limit: NO_ANSWER,
                    message: error.to_string(),
                },
            };
            match error {
                LoginFailure::Starting => return Err(error),
                // Damage outweighs the errors of the other databases.
                LoginFailure::Damaged(_) => first = Some(error),
                LoginFailure::For { .. } => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(LoginFailure::Starting))
    }

    /// Shuts the server down so that its data files are consistent; after `grace` it is killed.
    pub(crate) async fn shut_down(mut self, grace: Duration) {
        self.group.stop(Signal::INT, grace).await;
    }
}

/// Whether the tests' scratch servers can be kept from all other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Network {
    /// The kernel refuses each connection to another server.
    None,
    /// The kernel, or the container, does not let xdb refuse them.
    Open,
}

impl Network {
    /// For people.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::None => "no network: the kernel refuses each connection to another server",
            Self::Open => {
                "network open: this kernel or container lets xdb refuse no connection; no foreign table was read"
            }
        }
    }

    /// What this machine lets xdb do.
    pub(crate) fn here() -> Self {
        if process::can_cut_off() {
            Self::None
        } else {
            Self::Open
        }
    }
}

/// Why the scratch server did not open.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// The server ended, for this reason in its log.
    Stopped(String),
    /// By a signal: its log holds no reason.
    Killed(ExitStatus),
    /// It runs, and refuses to log us in for good.
    Refused(String),
    /// It runs, and what it reads for each login is damaged.
    Damaged(String),
    TooSlow,
}

/// Why no database accepted a login.
#[derive(Debug)]
enum LoginFailure {
    /// The server is still starting.
    Starting,
    /// Every login fails, and this is damaged.
    Damaged(String),
    /// It may within `limit`.
    For { limit: Duration, message: String },
}

impl LoginFailure {
    fn of(error: &tokio_postgres::Error) -> Self {
        let limit = match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("57P03") => return Self::Starting,
            // A role that may not log in will not be able to in a moment either.
            Some(code) if code.starts_with("28") => Duration::ZERO,
            Some(code) if code.starts_with("53") => NO_SLOT,
            Some(_) => REFUSED,
            None => NO_ANSWER,
        };
        let message = postgres::in_words(error);
        if is_corrupt(error) {
            return Self::Damaged(format!("the restored server cannot be entered: {message}"));
        }
        Self::For { limit, message }
    }
}

/// Whether xdb can start a server at all.
///
/// # Errors
/// [`RestoreError::Refused`] for root.
pub(crate) fn refuse_root() -> Result<(), RestoreError> {
    if !process::runs_as_root() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: "PostgreSQL cannot be started as root".to_owned(),
        hint: "run it as the database's user: runuser -u postgres -- xdb …".to_owned(),
    })
}
