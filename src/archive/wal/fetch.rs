//! `restore_command = 'xdb wal-fetch "%f" "%p"'`, whose exit code decides whether recovery continues, ends or stops.
//!
//! | code | PostgreSQL |
//! |---|---|
//! | 0 | replays the file |
//! | 1 | takes the archive for ended: only when xdb's own listing shows that the file is absent |
//! | 126 | stops loudly: everything else, so that a passing fault never ends a recovery early |
//!
//! Codes between are worse than either: recovery ends early and "successfully". With `--standby`, on a live standby,
//! every failure is 1: 126 would shut the standby down. It retries automatically.

use std::ffi::{OsStr, OsString};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::WalError;
use super::client::{block_on, complain, configured};
use super::tablespace::tablespace_made;
use crate::log;
use crate::model::{ArchiveFile, ServerPosition};
use crate::postgres::control_file;
use crate::process;
use crate::repository::{
    Repository, RepositoryError, Timelines, catalog, own_history, segment_header, timeline_in,
};
use crate::storage::Cause;
use crate::store::StateFiles;

const ABSENT: u8 = 1;
const STOP: u8 = 126;
/// xdb's own look at the bucket after a failure.
const LOOK: Duration = Duration::from_secs(5);
/// The same on a live standby, before anything else: while this runs, the standby neither streams nor is promoted.
const STANDBY_LOOK: Duration = Duration::from_secs(3);
/// For one fetch on a live standby, which PostgreSQL retries automatically.
const STANDBY_FETCH: Duration = Duration::from_secs(20);
/// Between two attempts, and the least that one may take.
const PAUSE: Duration = Duration::from_secs(1);

/// Restores the file that `arguments` name, and returns the exit code; `config` is a file other than the usual one.
pub fn wal_fetch(config: Option<PathBuf>, arguments: &[OsString]) -> u8 {
    // Anywhere among them: a usage error must not shut a live standby down.
    let (flags, rest): (Vec<_>, Vec<_>) = arguments
        .iter()
        .cloned()
        .partition(|argument| argument == "--standby");
    let standby = !flags.is_empty();
    let failure = if standby { ABSENT } else { STOP };
    match catch_unwind(|| try_fetch(config.clone(), standby, &rest)) {
        Ok(Ok(true)) => 0,
        Ok(Ok(false)) => ABSENT,
        Ok(Err(error)) => {
            // A restore test reads this: what was not looked at is not bad, nor is what the program alone failed at.
            let verb = match &error {
                WalError::Damaged { .. } => DAMAGED,
                WalError::Tablespace { .. } => MAKES_TABLESPACE,
                WalError::Repository(RepositoryError::Failed { .. })
                | WalError::Delivered { .. } => "wal-fetch",
                _ => COULD_NOT_LOOK,
            };
            complain(verb, config, &error);
            failure
        }
        Err(_) => failure,
    }
}

/// Begins the complaint of a `wal-fetch` that says nothing of the archive.
pub const COULD_NOT_LOOK: &str = "wal-fetch: could not look";
/// Begins the complaint of one that found the archive damaged.
pub const DAMAGED: &str = "wal-fetch: damaged";

/// Begins the complaint of one that hands over nothing that leads to a live server's files.
pub const MAKES_TABLESPACE: &str = "wal-fetch: a tablespace";
/// Set where a restore replays: a segment that makes a tablespace is not handed over.
pub const SCRATCH: &str = "XDB_WAL_SCRATCH";

/// Names the segment that a restore ends before: it is known to be damaged.
pub const NOT_WANTED: &str = "XDB_WAL_NOT_WANTED";

/// `Ok(false)`: the archive does not hold the file.
fn try_fetch(
    config: Option<PathBuf>,
    standby: bool,
    arguments: &[OsString],
) -> Result<bool, WalError> {
    let usage = "usage: xdb wal-fetch [--standby] NAME DESTINATION, as restore_command = 'xdb wal-fetch \"%f\" \"%p\"'";
    let [name, destination] = arguments else {
        return Err(WalError::Usage(usage.to_owned()));
    };
    let name = name.to_str().filter(|name| ArchiveFile::of(name).is_some());
    let name = name.ok_or_else(|| WalError::NotArchivable {
        path: Path::new(&arguments[0]).to_owned(),
    })?;
    if take_ahead(name, Path::new(destination)) {
        return Ok(true);
    }
    if std::env::var(NOT_WANTED).is_ok_and(|not_wanted| not_wanted == name) {
        return Ok(false);
    }
    let (config, repository) = configured(config)?;
    let deadline = if standby {
        STANDBY_LOOK + STANDBY_FETCH + LOOK
    } else {
        config.archive.fetch_timeout + LOOK + PAUSE
    };
    let fetched = block_on(deadline, async {
        let fetch = Fetch {
            repository: repository.get().await?,
            state: StateFiles::of(&config.node.state_directory),
            name,
            destination,
        };
        if standby {
            fetch.on_standby().await
        } else {
            fetch.until_decided().await
        }
    })?;
    if fetched && std::env::var_os(SCRATCH).is_some() {
        refuse_tablespace(name, Path::new(destination))?;
    }
    Ok(fetched)
}

fn refuse_tablespace(name: &str, fetched: &Path) -> Result<(), WalError> {
    let error = match tablespace_made(fetched) {
        Ok(None) => return Ok(()),
        Ok(Some(location)) => WalError::Tablespace {
            name: name.to_owned(),
            location,
        },
        Err(source) => WalError::Segment {
            path: fetched.to_owned(),
            source,
        },
    };
    let _ = std::fs::remove_file(fetched);
    Err(error)
}

/// Names the directory into which a restore fetches segments ahead of its own replay: `NAME.part` until it is whole.
pub const AHEAD: &str = "XDB_WAL_AHEAD";
/// In that directory: the last file that was not found there.
pub const ASKED: &str = "asked";
/// How long one is waited for that is on its way.
const COMES: Duration = Duration::from_secs(30);

/// Takes what a restore fetched ahead and has looked into; `false` where the file must be fetched.
fn take_ahead(name: &str, destination: &Path) -> bool {
    let Some(directory) = std::env::var_os(AHEAD).map(PathBuf::from) else {
        return false;
    };
    let (ready, part) = (directory.join(name), directory.join(format!("{name}.part")));
    let begun = Instant::now();
    loop {
        let comes = part.exists() && begun.elapsed() < COMES;
        if std::fs::rename(&ready, destination).is_ok() {
            return true;
        }
        if !comes {
            // So that nothing is fetched that is behind the replay already; without it some work is for nothing.
            let _ = std::fs::write(directory.join(ASKED), name);
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One file that PostgreSQL asks for.
struct Fetch<'a> {
    repository: Repository,
    state: StateFiles,
    name: &'a str,
    destination: &'a OsStr,
}

const FOREIGN: &str = "HINT: runbooks/foreign-backup.md";

impl Fetch<'_> {
    /// Runs the program until it restores the file, the archive is seen not to hold it, or there is no point in going on.
    ///
    /// A passing fault must not stop a recovery of hours: while S3 is away, it is tried again until `archive.fetch_timeout`.
    async fn until_decided(&self) -> Result<bool, WalError> {
        let deadline = Instant::now() + self.repository.program.archive.fetch_timeout;
        let mut failures_though_stored = 0;
        loop {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(PAUSE);
            let error = match self.judged_attempt(left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Said at once where it is the archive's own fault; a program that delivered what is not stored may do better.
            let looked_into =
                matches!(error, WalError::Delivered { .. }) && self.look_into().await?;
            let of_program = matches!(
                error,
                WalError::Repository(RepositoryError::Failed { .. }) | WalError::Delivered { .. }
            );
            failures_though_stored += u32::from(of_program);
            let passing = match &error {
                WalError::Repository(RepositoryError::Failed { .. })
                | WalError::Delivered { .. } => failures_though_stored < 3,
                WalError::Repository(RepositoryError::Storage(error)) => {
                    matches!(error.cause(), Some(Cause::Unreachable(_) | Cause::Other(_)))
                }
                WalError::TooSlow { .. } => true,
                _ => false,
            };
            if !passing || Instant::now() + PAUSE > deadline {
                return Err(match error {
                    WalError::Repository(RepositoryError::Failed { .. }) => {
                        self.look_into().await?;
                        error
                    }
                    // xdb cannot read what is stored, and no attempt gave anything better.
                    WalError::Delivered { name, reason, .. } if !looked_into => {
                        WalError::Damaged { name, reason }
                    }
                    error => error,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads what the archive holds, after a program failed at it; `false` where xdb cannot read it.
    ///
    /// # Errors
    /// [`WalError::Damaged`] where it cannot be unpacked, or unpacks to what is not that segment.
    async fn look_into(&self) -> Result<bool, WalError> {
        let cluster = segment_header::cluster_in(&self.here());
        let mut looked_into = true;
        for object in self.repository.stored_as(self.name).await? {
            let stored = self.repository.bucket.get(&object.key).await?;
            // What begins as its name says is not encrypted, whatever the settings are.
            if self.repository.program.encrypts()
                && catalog::begins_as_named(&object.key, &stored) != Some(true)
            {
                looked_into = false;
                continue;
            }
            looked_into &= catalog::is_read(&object.key);
            if let Err(reason) = catalog::judge_stored(&object.key, self.name, &stored, cluster) {
                return Err(WalError::Damaged {
                    name: self.name.to_owned(),
                    reason,
                });
            }
        }
        Ok(looked_into)
    }

    /// Tries once, and only what the bucket is seen to hold: the program would ask an S3 that is away for minutes, and a
    /// standby that waits for it can neither stream nor be promoted.
    async fn on_standby(&self) -> Result<bool, WalError> {
        // Without it nothing can be fetched, whatever the bucket holds.
        self.repository.program.find()?;
        let look = tokio::time::timeout(STANDBY_LOOK, self.repository.stored_as(self.name)).await;
        let stored = look.map_err(|_| RepositoryError::NoAnswer {
            after: STANDBY_LOOK,
        })??;
        if stored.is_empty() {
            return Ok(false);
        }
        match self.may_have().await {
            Ok(true) => self.attempt(STANDBY_FETCH).await,
            Ok(false) => Ok(false),
            // Asked for every few seconds: PostgreSQL's log is enough.
            Err(error @ WalError::Repository(RepositoryError::Unproven { .. })) => {
                log::to_stderr(&format!("xdb wal-fetch: {error}\n{FOREIGN}\n"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn judged_attempt(&self, deadline: Duration) -> Result<bool, WalError> {
        let is_history = ArchiveFile::of(self.name) == Some(ArchiveFile::TimelineHistory);
        if is_history && !self.may_have().await? {
            return Ok(false);
        }
        self.attempt(deadline).await
    }

    /// Whether PostgreSQL may have the file: not the history of a timeline that is not this cluster's. It would follow it, refuse
    /// to start because of it, or keep it in `pg_wal`.
    ///
    /// # Errors
    /// When that cannot be decided: the archive holds it, so "absent" would end a recovery early.
    async fn may_have(&self) -> Result<bool, WalError> {
        let asked = timeline_in(self.name)
            .filter(|_| ArchiveFile::of(self.name) == Some(ArchiveFile::TimelineHistory));
        let here = self.here();
        let (Some(asked), Some(control)) = (asked, control_file(&here)) else {
            return Ok(true);
        };
        // Its own, and those that it came through.
        if asked <= control.timeline {
            return Ok(true);
        }
        let own = ServerPosition {
            system_identifier: control.system_identifier,
            timeline: control.timeline,
            lsn: control.checkpoint,
            history: own_history(&here, control.timeline),
        };
        let timelines = Timelines::of(&self.repository, self.state.clone());
        // A restore by xdb names its timeline, and asks for the others only to choose the next number.
        let may_be_untied = std::env::var_os(SCRATCH).is_some();
        let refused = timelines.why_not_handed_over(asked, &own, may_be_untied);
        let Some(reason) = refused.await? else {
            return Ok(true);
        };
        log::to_stderr(&format!(
            "xdb wal-fetch: {} is not handed to PostgreSQL: {reason}\n{FOREIGN}\n",
            self.name
        ));
        Ok(false)
    }

    async fn attempt(&self, deadline: Duration) -> Result<bool, WalError> {
        let here = self.here();
        let (program, mut command) = self.repository.command(&here)?;
        command
            .arg("wal-fetch")
            .arg(self.name)
            .arg(self.destination);
        let ended = process::run_attached(command, deadline).await;
        let delivered = Path::new(self.destination);
        if ended.as_ref().is_ok_and(ExitStatus::success) && delivered.is_file() {
            // PostgreSQL would end a recovery at a bad one, or ask for it again for ever, and name no cause.
            let cluster = segment_header::cluster_in(&here);
            let judged = segment_header::judge_file(self.name, delivered, cluster);
            return judged.map(|()| true).map_err(|reason| {
                let _ = std::fs::remove_file(delivered);
                WalError::Delivered {
                    program: program.to_string(),
                    name: self.name.to_owned(),
                    reason,
                }
            });
        }
        // Never a half-written file for PostgreSQL to find.
        let _ = std::fs::remove_file(delivered);
        let look = tokio::time::timeout(LOOK, self.repository.stored_as(self.name)).await;
        if look
            .map_err(|_| WalError::TooSlow { after: LOOK })??
            .is_empty()
        {
            return Ok(false);
        }
        let reason = format!("{}, though the archive holds {}", ended?, self.name);
        Err(RepositoryError::Failed {
            program: program.to_string(),
            verb: "wal-fetch",
            reason,
        }
        .into())
    }

    /// PostgreSQL runs `restore_command` in the data directory: a scratch cluster's is not the configured one.
    fn here(&self) -> PathBuf {
        std::env::current_dir().unwrap_or_else(|_| self.repository.data_directory().to_owned())
    }
}
