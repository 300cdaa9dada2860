//! Pushes one dump set: each database, the globals, then the manifest.

use jiff::Timestamp;
use tokio::process::Command;
use tokio::time::timeout;

use super::lock::{self, DumpLock};
use super::set::{DumpedDatabase, GLOBALS, MANIFEST, StoredObject, dump_file};
use super::snapshot::{self, Snapshot};
use super::{DumpError, DumpSet, SetName, program};
use crate::config::Config;
use crate::postgres::{self, Server};
use crate::process;
use crate::storage::Bucket;

/// Dumps `databases`, or each one where none is named, into a new set.
///
/// What an earlier push left behind is removed first; what this one wrote is removed when it fails.
///
/// # Errors
/// [`DumpError::Failed`] when `pg_dump` ended badly: one failed database fails the set. Otherwise what kept it from running.
pub async fn push(config: &Config, databases: &[String]) -> Result<DumpSet, DumpError> {
    let repository = super::repository(config)?;
    let mut lock = DumpLock::take(config)?;
    lock.clean_up(config).await?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let started_at = Timestamp::now();
    let name = SetName::new(started_at, &config.node.hostname);
    let (server, superuser, databases) = look(config, databases).await?;
    let mut cluster = lock.begin(config, &repository, &name).await?;

    let push = Push {
        config,
        bucket: &bucket,
        folder: name.folder(&repository),
        server,
        superuser,
    };
    let deadline = config.dump.timeout;
    let work = timeout(deadline, push.run(&name, started_at, &databases));
    let outcome = match cluster.during(work).await {
        Ok(outcome) => outcome.unwrap_or(Err(DumpError::Deadline { after: deadline })),
        Err(lost) => Err(lost.into()),
    };
    let mut left = Ok(());
    if outcome.is_err() {
        // The failure comes first; what cannot be removed now stays marked for the next push.
        left = lock::discard(&bucket, &push.folder).await;
    }
    cluster.release().await;
    match left {
        Ok(()) => lock.clear()?,
        Err(error) => {
            tracing::warn!(
                "what was written of {name} is left for the next push to remove: {error}"
            );
        }
    }
    outcome
}

/// Asks the server who it is and what it holds, and chooses the databases.
async fn look(
    config: &Config,
    named: &[String],
) -> Result<(Server, String, Vec<String>), DumpError> {
    let target = (&config.postgres).into();
    let connection = postgres::connect(&target, config.postgres.connect_timeout).await?;
    let server = postgres::server(&connection).await?;
    let superuser = snapshot::superuser(&connection).await?;
    let there = snapshot::databases(&connection).await?;
    Ok((server, superuser, choose(there, named)?))
}

/// Those of `there` that are `named`, all where none is; a name given twice counts once.
fn choose(there: Vec<String>, named: &[String]) -> Result<Vec<String>, DumpError> {
    if let Some(unknown) = named.iter().find(|name| !there.contains(name)) {
        let name = unknown.clone();
        return Err(DumpError::NoDatabase { name, there });
    }
    let wanted = |name: &String| named.is_empty() || named.contains(name);
    Ok(there.into_iter().filter(wanted).collect())
}

struct Push<'a> {
    config: &'a Config,
    bucket: &'a Bucket,
    folder: String,
    server: Server,
    superuser: String,
}

impl Push<'_> {
    async fn run(
        &self,
        name: &SetName,
        started_at: Timestamp,
        names: &[String],
    ) -> Result<DumpSet, DumpError> {
        let mut databases = Vec::new();
        for database in names {
            databases.push(self.database(database).await?);
        }
        // After the databases: a role that owns something in a dump must be there.
        let command = program::pg_dumpall_globals(self.config);
        let globals = self
            .store("pg_dumpall", "the globals", command, GLOBALS)
            .await?;
        let set = DumpSet {
            v: DumpSet::VERSION,
            set: name.to_string(),
            cluster: self.config.cluster.name.clone(),
            node: self.config.node.hostname.clone(),
            in_recovery: self.server.in_recovery,
            system_identifier: self.server.system_identifier,
            server_version: self.server.version,
            superuser: Some(self.superuser.clone()),
            started_at,
            finished_at: Timestamp::now(),
            databases,
            globals,
        };
        let manifest = serde_json::to_vec_pretty(&set).expect("a manifest is plain values");
        let key = format!("{}{MANIFEST}", self.folder);
        self.bucket.put(&key, manifest).await?;
        Ok(set)
    }

    async fn database(&self, name: &str) -> Result<DumpedDatabase, DumpError> {
        let snapshot = Snapshot::take(self.config, name, !self.server.in_recovery).await?;
        let counted = async {
            let rows = snapshot.rows().await;
            rows.map_err(|source| DumpError::Count {
                database: name.to_owned(),
                source,
            })
        };
        let what = format!("database {name:?}");
        let command = program::pg_dump(self.config, name, &snapshot.id);
        let file = dump_file(name);
        let stored = self.store("pg_dump", &what, command, &file);
        let (rows, dump) = tokio::try_join!(counted, stored)?;
        Ok(DumpedDatabase {
            name: name.to_owned(),
            dump,
            snapshot_at: snapshot.taken_at,
            finished_at: Timestamp::now(),
            database_bytes: Some(snapshot.database_bytes),
            rows,
        })
    }

    /// Streams what `command` writes into `file`, which appears only when the program ended well.
    async fn store(
        &self,
        program: &'static str,
        what: &str,
        command: Command,
        file: &str,
    ) -> Result<StoredObject, DumpError> {
        let key = format!("{}{file}", self.folder);
        let mut upload = self.bucket.begin_upload(&key).await?;
        let streamed = process::stream(command, async |stdout| {
            Ok::<_, DumpError>(upload.fill(stdout).await?)
        });
        let content = streamed.await.and_then(|(finished, content)| {
            if finished.status.success() {
                return Ok(content);
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
                // What is left of it the caller finds by its folder.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_databases_or_the_named_ones_are_chosen() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let there: Vec<String> = names(&["app", "postgres"]);
        let chosen = |named: &[String]| choose(there.clone(), named);
        assert_eq!(chosen(&[]).unwrap(), there);
        let twice: Vec<String> = names(&["app", "app"]);
        assert_eq!(chosen(&twice).unwrap(), ["app"]);
        let unknown: Vec<String> = names(&["app", "nope"]);
        let error = chosen(&unknown).unwrap_err();
        assert_eq!(error.to_string(), "there is no database \"nope\" to dump");
        assert!(error.hint().ends_with("app, postgres"), "{}", error.hint());
    }
}
