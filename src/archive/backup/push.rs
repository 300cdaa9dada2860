//! Base backups: look first, let the program push, then judge by the bucket.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::BackupError;
use super::data_links::{DataLink, data_links, judge_links};
use super::judge::{delta_parent, judge_change, judge_promotion, judge_push};
use super::lock::{ANSWER, Begun};
use crate::config::Node;
use crate::log;
use crate::model::{SegmentSize, Supersession};
use crate::postgres::{self, Archiver, Connection, ControlData, Relay, ServerIdentity, Target};
use crate::process;
use crate::repository::catalog::{self, Catalog, Sentinel};
use crate::repository::{
    NodeWorkLock, Program, Repository, RepositoryError, Timelines, WorkLock, position_of,
    set_segment_size, superseded,
};
use crate::store::StateFiles;

/// A base backup that is in the bucket, with the WAL that makes it whole.
#[derive(Debug, Clone, Serialize)]
pub struct PushedBackup {
    pub backup: String,
    /// `full` or `delta`, and what a delta builds on.
    pub kind: &'static str,
    pub parent: Option<String>,
    /// Bytes as tar, and as stored.
    pub uncompressed_bytes: u64,
    pub compressed_bytes: u64,
    pub secs: f64,
    /// As tar, over all of that time.
    pub bytes_per_sec: u64,
    /// Symbolic links in the data directory: what is behind them is not in the backup.
    pub links: Vec<DataLink>,
    #[serde(skip)]
    pub system_identifier: u64,
}

impl PushedBackup {
    fn new(backup: String, sentinel: Sentinel, system_identifier: u64, took: Duration) -> Self {
        let parent = sentinel.delta.map(|delta| delta.from);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            backup,
            kind: if parent.is_some() { "delta" } else { "full" },
            parent,
            uncompressed_bytes: sentinel.uncompressed_size,
            compressed_bytes: sentinel.compressed_size,
            secs: took.as_secs_f64(),
            bytes_per_sec: sentinel.uncompressed_size.saturating_mul(1000) / millis,
            links: Vec::new(),
            system_identifier,
        }
    }
}

impl fmt::Display for PushedBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.parent.as_ref();
        let of = of.map_or_else(String::new, |parent| format!(" of {parent}"));
        write!(
            f,
            "{} is in the bucket: {}{of}, {} as tar, {} stored, in {:.1} s ({}/s)",
            self.backup,
            self.kind,
            ByteSize(self.uncompressed_bytes),
            ByteSize(self.compressed_bytes),
            self.secs,
            ByteSize(self.bytes_per_sec)
        )?;
        let mut links = self.links.iter();
        links.try_for_each(|link| write!(f, "\nnot in the backup, a symbolic link: {link}"))
    }
}

/// Takes a base backup of this node's PostgreSQL and pushes it; `full` even where a delta would do.
///
/// # Errors
/// [`RepositoryError::Refused`] where a backup would be worthless or mixed with another cluster's; otherwise what failed.
/// What an earlier or this push left unfinished in the bucket is given up first.
pub async fn push(
    repository: &Repository,
    node: &Node,
    full: bool,
) -> Result<PushedBackup, BackupError> {
    let started = Instant::now();
    if process::runs_as_root() {
        let reason =
            "root's lock and files would stand in the way of the database's user".to_owned();
        let hint =
            "run it as the database's user: runuser -u postgres -- xdb backup push".to_owned();
        return Err(RepositoryError::Refused { reason, hint }.into());
    }
    let settings = &repository.program.postgres;
    let directory = repository.data_directory();
    let control = postgres::control_data(&settings.bin_directory, directory).await?;
    let links = find_links(directory)?;
    let connection = postgres::connect(&settings.into(), ANSWER).await?;
    let server = postgres::server(&connection).await?;
    let archiver = postgres::archiver(&connection).await?;
    let mut lock = super::lock::take(repository, node).await?;
    let held = Held {
        repository,
        node,
        timelines: Timelines::of(repository, StateFiles::of(&node.state_directory)),
        control: &control,
        connection: &connection,
    };
    let WorkLock { node, cluster } = &mut lock;
    // Of a lock that was lost the mark stays: the uploads that are there may be another node's.
    let pushed = cluster.during(held.push(node, &server, &archiver, full));
    let pushed = pushed.await?;
    lock.cluster.release().await;
    let (backup, sentinel) = pushed?;
    let identifier = control.system_identifier;
    Ok(PushedBackup {
        links,
        ..PushedBackup::new(backup, sentinel, identifier, started.elapsed())
    })
}

/// The links whose content the backup leaves out, each named in the log.
fn find_links(directory: &Path) -> Result<Vec<DataLink>, BackupError> {
    let links = data_links(directory).map_err(|source| BackupError::DataDirectory {
        path: directory.to_owned(),
        source,
    })?;
    judge_links(&links)?;
    for link in &links {
        tracing::warn!("a symbolic link in the data directory is in no backup: {link}");
    }
    Ok(links)
}

/// A push for which the locks are held.
struct Held<'a> {
    repository: &'a Repository,
    node: &'a Node,
    timelines: Timelines,
    control: &'a ControlData,
    connection: &'a Connection,
}

impl Held<'_> {
    async fn push(
        &self,
        lock: &mut NodeWorkLock,
        server: &ServerIdentity,
        archiver: &Archiver,
        full: bool,
    ) -> Result<(String, Sentinel), BackupError> {
        super::lock::give_up_marked(lock, self.repository).await?;
        // A standby is refused later, and begins nothing.
        let segment = postgres::current_segment(self.connection).await.ok();
        let begun = Begun::now(segment);
        lock.set_mark(&begun.to_string())?;
        let pushed = self.push_marked(server, archiver, full, begun.since).await;
        let given_up = match &pushed {
            Ok(_) => Ok(()),
            Err(_) => super::lock::give_up(self.repository, &begun).await,
        };
        match given_up {
            Ok(()) => lock.clear()?,
            Err(error) => tracing::warn!(
                "what the push left stays until the next one: {}",
                log::chain(&error)
            ),
        }
        pushed
    }

    async fn push_marked(
        &self,
        server: &ServerIdentity,
        archiver: &Archiver,
        full: bool,
        since: Timestamp,
    ) -> Result<(String, Sentinel), BackupError> {
        let repository = self.repository;
        let before = self.read_catalog().await?;
        let newer = self.newer(server).await?;
        let seen = (&before, newer.as_ref());
        let refused = judge_push(self.control, server, archiver, seen, &repository.location);
        if let Some((reason, hint)) = refused {
            return Err(RepositoryError::Refused { reason, hint }.into());
        }
        let parent = if full {
            None
        } else {
            self.whole_parent(server, &before)
        };
        let size = self.control.segment_size;
        tokio::select! {
            pushed = self.run_program((parent, size), since) => pushed?,
            broken = self.archiving_breaks() => return Err(broken),
        }
        let (backup, sentinel) = self.await_backup(&before).await?;
        self.refuse_change(server, &backup, &sentinel).await?;
        Ok((backup, sentinel))
    }

    async fn read_catalog(&self) -> Result<Catalog, BackupError> {
        let mut catalog = catalog::read(self.repository).await?;
        self.repository.read_tests_and_damage(&mut catalog).await?;
        Ok(catalog)
    }

    /// The backup that a delta builds on, when it is complete with all of its chain.
    fn whole_parent<'a>(&self, server: &ServerIdentity, before: &'a Catalog) -> Option<&'a str> {
        let max_steps = self.repository.program.archive.delta_max_steps;
        let parent = delta_parent(before, server, max_steps)?;
        if let Some(reason) = before.status(parent).reason {
            tracing::warn!("a full backup and no delta: {reason}");
            return None;
        }
        Some(&parent.name)
    }

    /// Waits until the new backup and its WAL are listed: an exit status alone proves nothing.
    async fn await_backup(&self, before: &Catalog) -> Result<(String, Sentinel), BackupError> {
        let known: BTreeSet<&str> = before
            .backups
            .iter()
            .filter(|b| b.sentinel.is_some())
            .map(|b| b.name.as_str())
            .collect();
        let deadline = Instant::now() + self.repository.program.archive.push_timeout;
        loop {
            let now = self.read_catalog().await?;
            let server = postgres::server(self.connection).await?;
            if let Some(newer) = self.newer(&server).await? {
                let reason = judge_promotion(&newer);
                return Err(BackupError::Overtaken { reason });
            }
            let new = now
                .backups
                .iter()
                .find(|b| b.sentinel.is_some() && !known.contains(b.name.as_str()));
            let reason = match new {
                None => "no new backup is in the bucket".to_owned(),
                Some(backup) => match (now.status(backup).reason, &backup.sentinel) {
                    (None, Some(sentinel)) => return Ok((backup.name.clone(), sentinel.clone())),
                    (reason, _) => format!(
                        "{} cannot be restored: {}",
                        backup.name,
                        reason.unwrap_or_default()
                    ),
                },
            };
            if new.is_none() || Instant::now() > deadline {
                return Err(BackupError::NotThere {
                    program: self.repository.program.archive.program.clone(),
                    reason,
                });
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The proof that another node was promoted, and that `server` is not the primary any more.
    async fn newer(&self, server: &ServerIdentity) -> Result<Option<Supersession>, BackupError> {
        let state = StateFiles::of(&self.node.state_directory);
        match position_of(self.repository.data_directory(), server) {
            Some(own) => Ok(superseded(&self.timelines, &state, &own).await?),
            None => Ok(None),
        }
    }

    /// Looks again at who answers: a backup that outlived its server's identity, role or timeline is none to count on.
    async fn refuse_change(
        &self,
        before: &ServerIdentity,
        backup: &str,
        sentinel: &Sentinel,
    ) -> Result<(), BackupError> {
        // A new session: the old one may still be with a server that others cannot reach any more.
        let connection =
            postgres::connect(&(&self.repository.program.postgres).into(), ANSWER).await?;
        let after = postgres::server(&connection).await?;
        if let Some(reason) = judge_change(before, &after) {
            return Err(BackupError::Overtaken { reason });
        }
        // A program whose PGHOST fails tries localhost, where another cluster may answer.
        if sentinel
            .system_identifier
            .is_some_and(|pushed| pushed != self.control.system_identifier)
        {
            let reason = format!("{backup} is of another cluster than postgres.data_directory");
            let hint =
                "postgres.host led the program elsewhere: do not count on this backup".to_owned();
            return Err(RepositoryError::Refused { reason, hint }.into());
        }
        Ok(())
    }

    /// Ends when archiving has failed for a while: the push would wait for its WAL until its deadline.
    async fn archiving_breaks(&self) -> BackupError {
        let mut failing_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // Where the server does not answer, the program fails, too.
            let failing = postgres::archiver(self.connection)
                .await
                .is_ok_and(|archiver| archiver.failing());
            failing_since = if failing {
                failing_since.or(Some(Instant::now()))
            } else {
                None
            };
            if failing_since
                .is_some_and(|since| since.elapsed() > self.repository.program.archive.push_timeout)
            {
                return BackupError::ArchivingBroke;
            }
        }
    }

    /// What pins the sessions of a program that takes no options; `None` where it pins them itself, or checks the server's
    /// certificate, which is not the relay's.
    async fn relay_for(&self, program: Program) -> Option<Relay> {
        let target = Target::from(&self.repository.program.postgres);
        if program.takes_session_options() || target.tls.mode.verifies() {
            return None;
        }
        let directory = self.node.state_directory.join("relay");
        match Relay::start(&target, &directory).await {
            Ok(relay) => Some(relay),
            Err(error) => {
                tracing::warn!(
                    "the sessions of {program} depend on the server's settings: {error}"
                );
                None
            }
        }
    }

    async fn run_program(
        &self,
        (delta_parent, size): (Option<&str>, SegmentSize),
        since: Timestamp,
    ) -> Result<(), BackupError> {
        let settings = &self.repository.program;
        let directory = self.repository.data_directory();
        let (program, mut command) = self.repository.command(directory)?;
        set_segment_size(&mut command, size);
        command.args(program.backup_push(directory, delta_parent.is_none()));
        command.env("PGAPPNAME", program.session_name(since));
        if let Some(parent) = delta_parent {
            command.env("WALG_DELTA_FROM_NAME", parent);
        }
        if let Some(password) = &settings.postgres.password {
            command.env("PGPASSWORD", password.expose_secret());
        }
        // Until the program has ended.
        let relay = self.relay_for(program).await;
        if let Some(relay) = &relay {
            command
                .env("PGHOST", &relay.host)
                .env("PGPORT", relay.port.to_string());
        }
        let finished = process::run(command, settings.archive.backup_timeout).await?;
        if finished.status.success() {
            return Ok(());
        }
        let reason = finished.last_words();
        Err(RepositoryError::Failed {
            program: program.to_string(),
            verb: "backup-push",
            reason,
        }
        .into())
    }
}
