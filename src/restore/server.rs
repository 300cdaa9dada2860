//! The scratch server: configured from nothing but the control file, reachable by nobody but xdb.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};

use super::RestoreError;
use super::scratch::Scratch;
use super::until::Until;
use crate::archive::add_ambient_aws;
use crate::config::Postgres;
use crate::model::Timeline;
use crate::postgres::{self, ControlData, PostgresError, Target};
use crate::process::{self, Group};

pub const SHARED_BUFFERS: &str = "128MB";

/// A running scratch server; dropping it begins its immediate shutdown, which [`Scratch::remove`] waits for.
#[derive(Debug)]
pub struct ScratchServer {
    group: Group,
    target: Target,
}

/// What a recovery is told beside the numbers of the control file.
pub struct Recovery<'a> {
    pub timeline: Timeline,
    /// Where it stops; at the end of the archive where `None`.
    pub until: Option<&'a Until>,
    pub restore_command: &'a str,
    /// It is kept and must outlive a power cut; that of a test is thrown away.
    pub durable: bool,
}

/// Writes the configuration that a restored data directory is started with, and takes away the one it brought.
///
/// A backup brings `postgresql.auto.conf` and, outside Debian, `postgresql.conf`: with them would come
/// `synchronous_standby_names` (hangs the first commit), `primary_conninfo`, archive commands, preloaded libraries.
///
/// # Errors
/// When a file cannot be written.
pub fn configure(
    scratch: &Scratch,
    control: &ControlData,
    recovery: &Recovery<'_>,
) -> Result<(), RestoreError> {
    let data = scratch.data();
    let settings = settings(scratch, control, recovery);
    let files = [
        ("postgresql.conf", settings.as_str()),
        ("postgresql.auto.conf", ""),
        // The socket's directory lets only its owner in.
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
        ("recovery.signal", ""),
    ];
    for (name, content) in files {
        write(&data.join(name), content)?;
    }
    for name in ["standby.signal", "postmaster.pid", "postmaster.opts"] {
        match fs::remove_file(data.join(name)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(RestoreError::File {
                    operation: "remove",
                    path: data.join(name),
                    source,
                });
            }
            _ => {}
        }
    }
    own_pg_wal(&data.join("pg_wal"))
}

/// Where the live `pg_wal` is a link to another volume, a backup brings none, or the link: into the live WAL.
fn own_pg_wal(path: &Path) -> Result<(), RestoreError> {
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    // Missing is what was wanted.
    let _ = fs::remove_file(path);
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| RestoreError::File {
        operation: "make",
        path: path.to_owned(),
        source,
    })
}

fn settings(scratch: &Scratch, control: &ControlData, recovery: &Recovery<'_>) -> String {
    let data = scratch.data();
    let in_data = |name: &str| quoted(&data.join(name).to_string_lossy());
    let mut settings: Vec<(&str, String)> = vec![
        ("listen_addresses", quoted("")),
        ("port", "5432".to_owned()),
        (
            "unix_socket_directories",
            quoted(&scratch.socket_directory().to_string_lossy()),
        ),
        ("unix_socket_permissions", "0700".to_owned()),
        ("hba_file", in_data("pg_hba.conf")),
        ("ident_file", in_data("pg_ident.conf")),
        ("ssl", "off".to_owned()),
        ("restore_command", quoted(recovery.restore_command)),
        (
            "recovery_target_timeline",
            quoted(&recovery.timeline.to_string()),
        ),
        ("recovery_target_action", "promote".to_owned()),
        // Nobody may look in before the end: then no setting of the primary's can stop the replay either.
        ("hot_standby", "off".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("synchronous_standby_names", quoted("")),
        ("max_logical_replication_workers", "0".to_owned()),
        ("event_triggers", "off".to_owned()),
        ("autovacuum", "off".to_owned()),
        ("huge_pages", "off".to_owned()),
        ("shared_buffers", SHARED_BUFFERS.to_owned()),
        // Its files go with the scratch directory, whatever kills the server.
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("jit", "off".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", quoted("%m ")),
        ("log_timezone", quoted("UTC")),
        ("lc_messages", quoted("C")),
        ("cluster_name", quoted("xdb restore")),
        ("wal_level", control.wal_level.clone()),
        (
            "track_commit_timestamp",
            if control.track_commit_timestamp {
                "on"
            } else {
                "off"
            }
            .to_owned(),
        ),
    ];
    if !recovery.durable {
        // It is thrown away: durability costs time and proves nothing.
        let off = ["fsync", "full_page_writes", "synchronous_commit"];
        settings.extend(off.map(|name| (name, "off".to_owned())));
    }
    if let Some(until) = recovery.until {
        let target = until.settings();
        settings.extend(target.map(|(name, value)| (name, quoted(&value))));
    }
    // From the control file, never from a template: with less, recovery stops.
    settings.extend(
        control
            .limits
            .iter()
            .map(|(name, value)| (*name, value.to_string())),
    );
    settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect()
}

/// As postgresql.conf wants a value that may hold anything.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `restore_command` for `xdb`, a path that the shell of PostgreSQL gets quoted.
pub fn restore_command(xdb: &Path) -> String {
    // PostgreSQL replaces %f, %p and %r, so a percent sign of the path is doubled.
    let path = xdb
        .to_string_lossy()
        .replace('%', "%%")
        .replace('\'', r"'\''");
    format!("'{path}' wal-fetch \"%f\" \"%p\"")
}

impl ScratchServer {
    /// Starts the server in `scratch`; `environment` is what its `restore_command` finds its configuration in. A modest one
    /// yields to the live server.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(
        scratch: &Scratch,
        settings: &Postgres,
        environment: &[(String, SecretString)],
        modest: bool,
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
            // The one database that is always there.
            database: "template1".to_owned(),
            connect_timeout: Duration::from_secs(10),
        };
        Ok(Self { group, target })
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
    /// When the server ends, with the reason from its log, or `deadline` passes.
    pub async fn wait_until_open(&mut self, log: &Path, deadline: Instant) -> Result<(), Ended> {
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
            match postgres::connect(&self.target, Duration::from_secs(10)).await {
                Ok(connection) => {
                    let answer = connection
                        .simple_query("SELECT pg_catalog.pg_is_in_recovery()")
                        .await;
                    if answer.is_ok() {
                        return Ok(());
                    }
                }
                Err(PostgresError::Connect { error, .. }) if is_final(&error) => {
                    return Err(Ended::Refused(postgres::in_words(&error)));
                }
                Err(_) => {}
            }
            if Instant::now() > deadline {
                return Err(Ended::TooSlow);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Shuts the server down so that its data files are consistent; after `grace` it is killed.
    pub async fn shut_down(mut self, grace: Duration) {
        self.group.stop(Signal::INT, grace).await;
    }
}

/// Logs the end of a log that is removed with the scratch directory: one line of it is the reason, the rest the story.
pub(super) fn tell_end(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(TURNED_AWAY))
        .collect();
    for line in &lines[lines.len().saturating_sub(15)..] {
        tracing::warn!("scratch server: {line}");
    }
}

/// What xdb's own attempts to log in get until the server opens.
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
    TooSlow,
}

fn is_final(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("28"))
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

fn write(path: &Path, content: &str) -> Result<(), RestoreError> {
    fs::write(path, content).map_err(|source| RestoreError::File {
        operation: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_link_to_the_live_wal_is_replaced_and_a_directory_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let (live, wal) = (scratch.path().join("live"), scratch.path().join("pg_wal"));
        fs::create_dir(&live).unwrap();
        std::os::unix::fs::symlink(&live, &wal).unwrap();
        for _ in 0..2 {
            own_pg_wal(&wal).unwrap();
            assert!(wal.symlink_metadata().unwrap().is_dir());
            fs::write(wal.join("segment"), "").unwrap();
        }
        assert!(
            !live.join("segment").exists(),
            "the live WAL was written to"
        );
    }

    #[test]
    fn a_restore_command_survives_any_path() {
        assert_eq!(
            restore_command(Path::new("/usr/bin/xdb")),
            r#"'/usr/bin/xdb' wal-fetch "%f" "%p""#
        );
        assert_eq!(
            restore_command(Path::new("/a'b/5%/xdb")),
            r#"'/a'\''b/5%%/xdb' wal-fetch "%f" "%p""#
        );
        assert_eq!(quoted(r"it's \ here"), r"'it''s \\ here'");
    }

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
