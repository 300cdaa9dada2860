//! Pushes one dump set: each database, the globals, then the manifest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio::process::{ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::attempts::is_conflict;
use super::encryption::{Encrypting, SUFFIX};
use super::inventory::{Inventory, inventory};
use super::set::{DumpedDatabase, GLOBALS, MANIFEST, StoredObject};
use super::source::watch_replay;
use super::{DumpError, DumpSet, Dumps, LeftOut, SetName, lock, program};
use crate::config::Postgres;
use crate::log;
use crate::postgres::{self, ServerIdentity};
use crate::process;
use crate::repository::{BegunDump, WorkLock};
use crate::storage::Throttle;

/// Dumps `databases`, or each one where none is named, into a new set.
///
/// What an earlier push left behind is removed first; what this one wrote is removed when it fails.
///
/// # Errors
/// [`DumpError::Failed`] when `pg_dump` ended badly: one failed database fails the set. Otherwise what kept it from running.
pub(crate) async fn push(dumps: &Dumps, databases: &[String]) -> Result<DumpSet, DumpError> {
    let node = lock::take(dumps).await?;
    let started_at = Timestamp::now();
    let name = SetName::new(started_at, &dumps.node.hostname);
    let WorkLock {
        mut node,
        mut cluster,
    } = lock::begin(node, dumps, &name).await?;

    let folder = name.folder(&dumps.location);
    let deadline = dumps.settings.timeout;
    let ends_at = Instant::now() + deadline;
    let work = timeout(deadline, async {
        if databases.is_empty() {
            note_begun(dumps, &name, started_at).await?;
        }
        let (server, found) = look(&dumps.postgres).await?;
        let pg_dump_version = program::version(&dumps.postgres).await?;
        program::judge_version(&pg_dump_version, server.version)?;
        let names = choose(&found.databases, databases)?;
        let compression = program::compression(&dumps.postgres, &pg_dump_version).await;
        let limit = dumps.settings.bandwidth_limit;
        let push = Push {
            dumps,
            ends_at,
            folder: folder.clone(),
            server,
            found,
            pg_dump_version,
            compression,
            throttle: limit.map(|limit| Throttle::new(u64::from(limit))),
            watch: Watch::default(),
            names: databases,
        };
        push.run_watched(&name, started_at, names).await
    });
    let outcome = match cluster.during(work).await {
        Ok(outcome) => outcome.unwrap_or(Err(DumpError::Deadline { after: deadline })),
        Err(lost) => Err(lost.into()),
    };
    let mut left = Ok(());
    if outcome.is_err() {
        // The failure comes first; what cannot be removed now stays marked for the next push.
        left = lock::discard(&dumps.bucket, &folder).await;
    }
    cluster.release().await;
    match left {
        Ok(()) => node.clear()?,
        Err(error) => {
            tracing::warn!(
                "what was written of {name} is left for the next push to remove: {error}"
            );
        }
    }
    outcome
}

/// Before anything can fail: the set that this record names and that is not there says that the last dump failed.
async fn note_begun(dumps: &Dumps, name: &SetName, at: Timestamp) -> Result<(), DumpError> {
    let (repository, node) = (dumps.location.to_string(), &dumps.node.hostname);
    let begun = BegunDump::new(&repository, &name.to_string(), node, at);
    Ok(dumps.shared.keep_begun_dump(&begun).await?)
}

/// Reads the identity and the inventory of the server.
///
/// On a standby the replay may cancel such a query, or end its session: then it is made again.
async fn look(settings: &Postgres) -> Result<(ServerIdentity, Inventory), DumpError> {
    const MOST: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(250);
    let mut failed = 0;
    loop {
        match look_once(settings).await {
            Err(error) if failed < MOST && is_conflict(&log::chain(&error)) => {
                failed += 1;
                tracing::debug!("the look at the server is repeated: {error}");
                sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn look_once(settings: &Postgres) -> Result<(ServerIdentity, Inventory), DumpError> {
    let connection = postgres::connect(&settings.into(), settings.connect_timeout).await?;
    let server = postgres::server(&connection).await?;
    Ok((server, inventory(settings, &connection).await?))
}

/// Those of `there` that are `named`, all where none is; a name given twice counts once.
fn choose(there: &[String], named: &[String]) -> Result<Vec<String>, DumpError> {
    if let Some(unknown) = named.iter().find(|name| !there.contains(name)) {
        let (name, there) = (unknown.clone(), there.to_vec());
        return Err(DumpError::NoDatabase { name, there });
    }
    let wanted = |name: &&String| named.is_empty() || named.contains(name);
    Ok(there.iter().filter(wanted).cloned().collect())
}

/// A set that is being made.
pub(super) struct Push<'a> {
    pub(super) dumps: &'a Dumps,
    /// When `dump.timeout` is over.
    ends_at: Instant,
    folder: String,
    pub(super) server: ServerIdentity,
    pub(super) found: Inventory,
    /// As it prints it.
    pg_dump_version: String,
    /// For `pg_dump --compress`; `None` for its default.
    pub(super) compression: Option<String>,
    /// Of `dump.bandwidth_limit`, for the whole set.
    throttle: Option<Throttle>,
    pub(super) watch: Watch,
    /// The databases that were named; without any, all are dumped.
    names: &'a [String],
}

/// Whether this node's own server is dumped at the moment, so that its replay matters.
#[derive(Debug, Default)]
pub(super) struct Watch(AtomicBool);

impl Watch {
    pub(super) fn set_here(&self, here: bool) {
        self.0.store(here, Ordering::Relaxed);
    }

    fn is_here(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Push<'_> {
    /// Makes the set for as long as the replay of the dumped standby keeps up.
    async fn run_watched(
        &self,
        name: &SetName,
        started_at: Timestamp,
        names: Vec<String>,
    ) -> Result<DumpSet, DumpError> {
        let standby = async {
            if !self.server.in_recovery {
                return std::future::pending().await;
            }
            let limit = u64::from(self.dumps.settings.max_lag_mib) << 20;
            loop {
                let behind = watch_replay(&self.dumps.postgres, limit).await;
                if self.watch.is_here() {
                    return behind;
                }
            }
        };
        tokio::select! {
            outcome = self.run(name, started_at, names) => outcome,
            error = standby => Err(error),
        }
    }

    pub(super) fn time_left(&self) -> Duration {
        self.ends_at.saturating_duration_since(Instant::now())
    }

    async fn run(
        &self,
        name: &SetName,
        started_at: Timestamp,
        names: Vec<String>,
    ) -> Result<DumpSet, DumpError> {
        let partial = names.len() < self.found.databases.len();
        let (databases, left_out) = self.databases(names).await?;
        // After the databases: a role that owns something in a dump must be there.
        let command = program::pg_dumpall_globals(&self.dumps.postgres, &self.found);
        let globals = self
            .store("pg_dumpall", "the globals", command, (GLOBALS, 0), all_of)
            .await?;
        let set = DumpSet {
            v: DumpSet::version(&databases, &globals),
            set: name.to_string(),
            cluster: self.dumps.cluster.clone(),
            node: self.dumps.node.hostname.clone(),
            in_recovery: self.server.in_recovery,
            system_identifier: self.server.system_identifier,
            server_version: self.server.version,
            server_version_text: Some(self.found.version.clone()),
            pg_dump_version: Some(self.pg_dump_version.clone()),
            superuser: Some(self.found.initdb_role.clone()),
            started_at,
            finished_at: Timestamp::now(),
            partial: Some(partial),
            databases,
            globals,
            left_out,
        };
        let manifest = serde_json::to_vec_pretty(&set).expect("a manifest is plain values");
        let key = format!("{}{MANIFEST}", self.folder);
        self.dumps.bucket.put(&key, manifest).await?;
        Ok(set)
    }

    /// Dumps `names`; returns what the set does not hold, too.
    async fn databases(
        &self,
        names: Vec<String>,
    ) -> Result<(Vec<DumpedDatabase>, Vec<LeftOut>), DumpError> {
        let (mut databases, mut left_out) = (Vec::new(), self.found.left_out.clone());
        let mut known = self.found.databases.clone();
        let mut waiting = VecDeque::from(names);
        while let Some(name) = waiting.pop_front() {
            if let Some((dumped, not_in_it)) = self.database(&name).await? {
                databases.push(dumped);
                left_out.extend(not_in_it);
                continue;
            }
            let (_, now) = look(&self.dumps.postgres).await?;
            if self.names.contains(&name) {
                let there = now.databases;
                return Err(DumpError::NoDatabase { name, there });
            }
            tracing::warn!("database {name:?} was dropped or renamed while the set was made");
            left_out.push(LeftOut {
                database: Some(name),
                what: "it was dropped or renamed while the set was made".to_owned(),
            });
            if self.names.is_empty() {
                // A renamed one has a new name.
                let new = now.databases.into_iter().filter(|it| !known.contains(it));
                let new: Vec<String> = new.collect();
                known.extend(new.iter().cloned());
                waiting.extend(new);
            }
        }
        Ok((databases, left_out))
    }

    /// Streams the output of `command`, as `begin` reads it, into the file of that name, of so many bytes at most as far
    /// as is known, which appears only when the program succeeds.
    pub(super) async fn store<R: AsyncRead + Unpin>(
        &self,
        program: &'static str,
        what: &str,
        command: Command,
        (file, expected): (&str, u64),
        begin: impl AsyncFnOnce(ChildStdout) -> Result<R, DumpError>,
    ) -> Result<StoredObject, DumpError> {
        let recipients = &self.dumps.settings.age_recipients;
        let suffix = if recipients.is_empty() { "" } else { SUFFIX };
        let key = format!("{}{file}{suffix}", self.folder);
        let mut upload = self.dumps.bucket.begin_upload(&key).await?;
        let streamed = process::stream(command, async |stdout| {
            let output = begin(stdout).await?;
            let throttle = self.throttle.as_ref();
            if recipients.is_empty() {
                let content = upload.fill(output, expected, throttle).await?;
                return Ok::<_, DumpError>((content, None));
            }
            let mut output = Encrypting::new(output, recipients);
            let content = upload.fill(&mut output, expected, throttle).await?;
            Ok((content, Some(output.finish())))
        });
        let content = streamed.await.and_then(|(finished, content)| {
            if finished.status.success() {
                return Ok(content);
            }
            if program::waited_for_lock(&finished) {
                return Err(DumpError::TableLocks {
                    what: what.to_owned(),
                    holders: String::new(),
                });
            }
            Err(DumpError::Failed {
                program,
                what: what.to_owned(),
                reason: program::reason(&finished),
            })
        });
        match content {
            Ok((content, encryption)) => {
                upload.complete().await?;
                Ok(StoredObject::new(key, content, encryption))
            }
            Err(error) => {
                // The caller removes the rest of the set's folder.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

async fn all_of(stdout: ChildStdout) -> Result<ChildStdout, DumpError> {
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_databases_or_the_named_ones_are_chosen() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let there: Vec<String> = names(&["app", "postgres"]);
        let chosen = |named: &[String]| choose(&there, named);
        assert_eq!(chosen(&[]).unwrap(), there);
        let twice: Vec<String> = names(&["app", "app"]);
        assert_eq!(chosen(&twice).unwrap(), ["app"]);
        let unknown: Vec<String> = names(&["app", "nope"]);
        let error = chosen(&unknown).unwrap_err();
        assert_eq!(error.to_string(), "there is no database \"nope\" to dump");
        assert!(error.hint().ends_with("app, postgres"), "{}", error.hint());
    }
}
