//! Pushes one dump set: each database, the globals, then the manifest.

use jiff::Timestamp;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::inventory::{Inventory, inventory};
use super::set::{DumpedDatabase, GLOBALS, MANIFEST, StoredObject, dump_file};
use super::snapshot::{Counted, Guard, Snapshot};
use super::{Contents, DumpError, DumpSet, Dumps, LeftOut, SetName, lock, program};
use crate::config::Postgres;
use crate::postgres::{self, Server};
use crate::process;
use crate::repository::WorkLock;

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
    let (server, found) = look(&dumps.postgres).await?;
    let pg_dump_version = program::version(&dumps.postgres).await?;
    program::judge_version(&pg_dump_version, server.version)?;
    let databases = choose(&found.databases, databases)?;
    let WorkLock {
        mut node,
        mut cluster,
    } = lock::begin(node, dumps, &name).await?;

    let push = Push {
        dumps,
        folder: name.folder(&dumps.location),
        server,
        found,
        pg_dump_version,
    };
    let deadline = dumps.settings.timeout;
    let work = timeout(deadline, push.run(&name, started_at, &databases));
    let outcome = match cluster.during(work).await {
        Ok(outcome) => outcome.unwrap_or(Err(DumpError::Deadline { after: deadline })),
        Err(lost) => Err(lost.into()),
    };
    let mut left = Ok(());
    if outcome.is_err() {
        // The failure comes first; what cannot be removed now stays marked for the next push.
        left = lock::discard(&dumps.bucket, &push.folder).await;
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

/// Reads the identity and the inventory of the server.
async fn look(settings: &Postgres) -> Result<(Server, Inventory), DumpError> {
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

struct Push<'a> {
    dumps: &'a Dumps,
    folder: String,
    server: Server,
    found: Inventory,
    /// As it prints it.
    pg_dump_version: String,
}

impl Push<'_> {
    async fn run(
        &self,
        name: &SetName,
        started_at: Timestamp,
        names: &[String],
    ) -> Result<DumpSet, DumpError> {
        let (mut databases, mut left_out) = (Vec::new(), self.found.left_out.clone());
        for database in names {
            let (dumped, not_in_it) = self.database(database).await?;
            databases.push(dumped);
            left_out.extend(not_in_it);
        }
        // After the databases: a role that owns something in a dump must be there.
        let command = program::pg_dumpall_globals(&self.dumps.postgres, &self.found);
        let globals = self
            .store("pg_dumpall", "the globals", command, GLOBALS, all_of)
            .await?;
        let set = DumpSet {
            v: DumpSet::version(&databases),
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
            partial: Some(databases.len() < self.found.databases.len()),
            databases,
            globals,
            left_out,
        };
        let manifest = serde_json::to_vec_pretty(&set).expect("a manifest is plain values");
        let key = format!("{}{MANIFEST}", self.folder);
        self.dumps.bucket.put(&key, manifest).await?;
        Ok(set)
    }

    /// Dumps the database `name`; returns its objects that are not in the dump, too.
    async fn database(&self, name: &str) -> Result<(DumpedDatabase, Vec<LeftOut>), DumpError> {
        let mut snapshot = Snapshot::take(self.dumps, name, !self.server.in_recovery).await?;
        let counted = async {
            let counted = snapshot.count().await;
            counted.map_err(|source| DumpError::Count {
                database: name.to_owned(),
                source,
            })
        };
        let failed = |source| DumpError::Snapshot {
            database: name.to_owned(),
            source,
        };
        let mut rewritten = None;
        let superuser = self.found.is_superuser;
        let command = program::pg_dump(self.dumps, name, &snapshot, superuser);
        let (counted, dump) = match snapshot.guard {
            Guard::Snapshot => {
                let stored = self.store_database(name, command, all_of);
                tokio::try_join!(counted, stored)?
            }
            Guard::PgDump => {
                let mut all = Counted::default();
                let dump = self.store_database(name, command, async |stdout| {
                    let (output, has_begun) = hold_after_begin(stdout).await;
                    if has_begun {
                        all = counted.await?;
                        rewritten = snapshot.rewritten(name).await.map_err(failed)?;
                    }
                    Ok(output)
                });
                let dump = dump.await?;
                (all, dump)
            }
        };
        snapshot.note_moved_sequences().await.map_err(failed)?;
        let contents = Contents {
            estimated_rows: counted.rows.estimated,
            large_objects: counted.large_objects,
            ..snapshot.contents
        };
        let dumped = DumpedDatabase {
            name: name.to_owned(),
            dump,
            snapshot_at: snapshot.taken_at,
            finished_at: Timestamp::now(),
            database_bytes: Some(snapshot.database_bytes),
            rows: counted.rows.counted,
            contents,
        };
        let mut left_out = snapshot.left_out;
        left_out.extend(rewritten);
        Ok((dumped, left_out))
    }

    async fn store_database<R: AsyncRead + Unpin>(
        &self,
        name: &str,
        command: Command,
        begin: impl AsyncFnOnce(ChildStdout) -> Result<R, DumpError>,
    ) -> Result<StoredObject, DumpError> {
        let what = format!("database {name:?}");
        let file = dump_file(name);
        self.store("pg_dump", &what, command, &file, begin).await
    }

    /// Streams the output of `command`, as `begin` reads it, into `file`, which appears only when the program succeeds.
    async fn store<R: AsyncRead + Unpin>(
        &self,
        program: &'static str,
        what: &str,
        command: Command,
        file: &str,
        begin: impl AsyncFnOnce(ChildStdout) -> Result<R, DumpError>,
    ) -> Result<StoredObject, DumpError> {
        let key = format!("{}{file}", self.folder);
        let mut upload = self.dumps.bucket.begin_upload(&key).await?;
        let streamed = process::stream(command, async |stdout| {
            let output = begin(stdout).await?;
            Ok::<_, DumpError>(upload.fill(output).await?)
        });
        let content = streamed.await.and_then(|(finished, content)| {
            if finished.status.success() {
                return Ok(content);
            }
            if program::waited_for_lock(&finished) {
                let what = what.to_owned();
                return Err(DumpError::TableLocks { what });
            }
            Err(DumpError::Failed {
                program,
                what: what.to_owned(),
                reason: program::reason(&finished),
            })
        });
        match content {
            Ok(content) => {
                upload.complete().await?;
                Ok(StoredObject::new(key, content))
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

/// Waits for the first byte of `pg_dump`, which it writes when it has locked every table; returns whether it came.
///
/// As long as the rest is not read, `pg_dump` waits with its locks: its table of contents alone is larger than the pipe.
async fn hold_after_begin(mut stdout: ChildStdout) -> (impl AsyncRead + Unpin, bool) {
    const SMALLEST: usize = 4096;
    // A pipe of the default size would hold the table of contents of some hundred tables.
    let _ = fcntl_setpipe_size(&stdout, SMALLEST);
    let mut first = [0];
    // An error of the pipe ends the output; the exit status judges.
    let read = stdout.read(&mut first).await.unwrap_or(0);
    let first = std::io::Cursor::new(first[..read].to_vec());
    (first.chain(stdout), read > 0)
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
