//! What the bucket holds of a set, put into the scratch cluster by PostgreSQL's own programs.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};

use super::empty_cluster::disk_is_full;
use super::program_messages::{
    is_missing_here, is_out_of_reach, no_connection, roles_error, roles_only, server_is_gone,
};
use super::restore_plan::unread;
use super::stream::{StreamError, stream};
use crate::dump::{DumpedDatabase, Dumps, ObjectError, StoredObject};
use crate::model::Verdict;
use crate::postgres::{self, PostgresError, Target};
use crate::process::{self, Finished, Reach};
use crate::restore::RestoreError;
use crate::restore::recover::{Network, log_last_lines};
use crate::restore::scratch::Scratch;

/// Where a set is, and where its parts go.
pub(crate) struct Loader<'a> {
    pub dumps: &'a Dumps,
    pub scratch: &'a Scratch,
    /// The scratch server's database that is always there.
    pub target: Target,
}

impl Loader<'_> {
    /// Makes the roles of `globals`, whose every statement may hold a password's hash: none is shown.
    ///
    /// # Errors
    /// What says nothing of the set: S3, the scratch cluster.
    pub(crate) async fn globals(&self, globals: &StoredObject) -> Result<Verdict, RestoreError> {
        let sql = match self.dumps.read_object(globals).await {
            Ok(sql) => sql,
            Err(error) => return judge_unread(error),
        };
        let sql = String::from_utf8_lossy(&sql);
        let script = format!("{}{FOR_XDB}", roles_only(&sql));
        let mut command = self.client("psql");
        // Not the statement beside the error: it may be a password's.
        command.args(["--no-psqlrc", "--quiet", "--set=VERBOSITY=terse"]);
        let write = async |mut stdin: ChildStdin| {
            // Where psql has ended early, its exit status shows why.
            let _ = stdin.write_all(script.as_bytes()).await;
            Ok::<_, RestoreError>(())
        };
        let (finished, ()) = process::feed(command, write).await?;
        match roles_error(&finished, &self.target.user) {
            None => Ok(Verdict::Ok),
            Some(reason) => self.judge("psql", reason, &finished).await,
        }
    }

    /// Streams the dump of `database` through `pg_restore`, which makes the database of that name, with its encoding and
    /// locale, over a connection to the database `via`.
    ///
    /// # Errors
    /// What says nothing of the dump: S3, the scratch cluster.
    pub(crate) async fn database(
        &self,
        database: &DumpedDatabase,
        via: &str,
    ) -> Result<RestoredDatabase, RestoreError> {
        let dump = &database.dump;
        let mut command = self.client("pg_restore");
        // The database postgres is there already, and goes first. Tablespaces lead to the live cluster's disks.
        command
            .args(["--format=custom", "--create", "--clean", "--if-exists"])
            .args(["--no-tablespaces", "--dbname", via]);
        let mut object = self.dumps.open_object(dump);
        let streamed = match stream(command, &mut object).await {
            Ok(streamed) => streamed,
            Err(StreamError::Process(error)) => return Err(error.into()),
            Err(StreamError::Object(error)) => {
                return judge_unread(error).map(RestoredDatabase::from);
            }
        };
        if let Some(reason) = streamed.error {
            let verdict = self.judge("pg_restore", reason, &streamed.finished).await;
            return verdict.map(RestoredDatabase::from);
        }
        // It need not read what follows the last table.
        let verdict = match object.finish().await {
            Ok(()) => Verdict::Ok,
            Err(error) => judge_unread(error)?,
        };
        Ok(RestoredDatabase {
            verdict,
            not_filled: streamed.not_filled,
        })
    }

    fn client(&self, program: &str) -> Command {
        let target = &self.target;
        let mut command = process::command(self.dumps.postgres.bin_directory.join(program));
        process::low_priority(&mut command);
        if Network::here() == Network::None {
            process::cut_off(&mut command, Reach::UnixSockets);
        }
        command
            .arg("--no-password")
            .current_dir(self.scratch.path())
            .env("PGHOST", &target.host)
            .env("PGPORT", target.port.to_string())
            .env("PGUSER", &target.user)
            .env("PGDATABASE", &target.database)
            .env("PGOPTIONS", options());
        command
    }

    /// Is it the set that is bad, or the place where it was to be restored?
    async fn judge(
        &self,
        program: &'static str,
        reason: String,
        finished: &Finished,
    ) -> Result<Verdict, RestoreError> {
        if disk_is_full(self.scratch, &finished.stderr) {
            return Err(RestoreError::DiskFull {
                doing: "a dump was restored",
            });
        }
        // Some end the session that misses them.
        if is_missing_here(&reason) {
            return Ok(Verdict::Unknown(format!(
                "this node lacks what it needs: {reason}"
            )));
        }
        let is_gone = finished.status.code().is_none()
            || server_is_gone(&finished.stderr)
            || no_connection(&finished.stderr) && !self.answers().await;
        if is_gone {
            log_last_lines(&self.scratch.log());
            return Err(RestoreError::Server(format!("{program}: {reason}")));
        }
        if is_out_of_reach(&reason) {
            return Ok(Verdict::Unknown(format!(
                "it needs another server, and a test reaches none: {reason}"
            )));
        }
        Ok(Verdict::Critical(format!("{program}: {reason}")))
    }

    /// Whether the scratch server takes connections.
    async fn answers(&self) -> bool {
        let connection = postgres::connect(&self.target, Duration::from_secs(10)).await;
        !matches!(connection, Err(PostgresError::Connect { error, .. }) if error.code().is_none())
    }
}

/// The restore of one database.
pub(crate) struct RestoredDatabase {
    pub verdict: Verdict,
    /// Materialized views that read another server; the dump holds none of their rows.
    pub not_filled: Vec<String>,
}

impl From<Verdict> for RestoredDatabase {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            not_filled: Vec::new(),
        }
    }
}

/// A database's own settings must not stop its restore, nor have statements logged, which may hold passwords; and no
/// foreign table may be read: its server is not part of this.
fn options() -> String {
    format!(
        "{} -c restrict_nonsystem_relation_kind=foreign-table -c pgaudit.log=none -c pgaudit.role=",
        postgres::superuser_program_options()
    )
}

/// After the roles' own settings: they may shut out the one that restores.
const FOR_XDB: &str = "\nALTER ROLE CURRENT_USER RESET ALL;\nALTER ROLE CURRENT_USER LOGIN;\n";

/// A damaged object is a verdict on the set; any other error is S3's, or this node's.
fn judge_unread(error: ObjectError) -> Result<Verdict, RestoreError> {
    match unread(error) {
        RestoreError::Bad(reason) => Ok(Verdict::Critical(reason)),
        other => Err(other),
    }
}
