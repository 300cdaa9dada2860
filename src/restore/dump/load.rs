//! What the bucket holds of a set, put into the scratch cluster by PostgreSQL's own programs.

use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};

use crate::config::Config;
use crate::dump::StoredObject;
use crate::model::Verdict;
use crate::postgres::Target;
use crate::process::{self, Finished};
use crate::restore::RestoreError;
use crate::restore::run::disk_is_full;
use crate::restore::scratch::Scratch;
use crate::storage::{Bucket, Cause, Content, Download, StorageError};

/// Where a set is, and where its parts go.
pub struct Loader<'a> {
    pub config: &'a Config,
    pub bucket: &'a Bucket,
    pub scratch: &'a Scratch,
    /// The scratch server's database that is always there.
    pub target: Target,
}

impl Loader<'_> {
    /// Makes the roles of `globals`, whose every statement may hold a password's hash: none is shown.
    ///
    /// # Errors
    /// What says nothing of the set: S3, the scratch cluster.
    pub async fn globals(&self, globals: &StoredObject) -> Result<Verdict, RestoreError> {
        let mut download = self.bucket.download(&globals.key, globals.bytes);
        let mut sql = Vec::new();
        loop {
            match download.next().await {
                Ok(Some(piece)) => sql.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => return lost(error),
            }
        }
        if let Some(reason) = why_changed(globals, &download.content()) {
            return Ok(Verdict::Critical(reason));
        }
        let sql = String::from_utf8_lossy(&sql);
        let script = format!("{}{FOR_XDB}", roles_only(&sql));
        let mut command = self.client("psql");
        // Not the statement beside the error: it may be a password's.
        command.args(["--no-psqlrc", "--quiet", "--set=VERBOSITY=terse"]);
        let write = async |mut stdin: ChildStdin| {
            // Where psql has ended early, its own end tells why.
            let _ = stdin.write_all(script.as_bytes()).await;
            Ok::<_, RestoreError>(())
        };
        let (finished, ()) = process::feed(command, write).await?;
        match why_no_roles(&finished, &self.target.user) {
            None => Ok(Verdict::Ok),
            Some(reason) => self.judge("psql", reason, &finished),
        }
    }

    /// Streams `dump` through `pg_restore`, which makes the database of that name, with its encoding and locale.
    ///
    /// # Errors
    /// What says nothing of the dump: S3, the scratch cluster.
    pub async fn database(&self, dump: &StoredObject) -> Result<Verdict, RestoreError> {
        let mut command = self.client("pg_restore");
        // The database postgres is there already, and goes first. Tablespaces lead to the live cluster's disks.
        command
            .args(["--format=custom", "--create", "--clean", "--if-exists"])
            .args(["--no-tablespaces", "--exit-on-error"])
            .args(["--dbname", &self.target.database]);
        let mut download = self.bucket.download(&dump.key, dump.bytes);
        let fed = process::feed(command, async |stdin| pour(&mut download, stdin).await).await;
        let (finished, ()) = match fed {
            Ok(fed) => fed,
            Err(PourError::Process(error)) => return Err(error.into()),
            Err(PourError::Storage(error)) => return lost(error),
        };
        if !finished.status.success() {
            let reason =
                first_error(&finished.stderr).unwrap_or_else(|| finished.status.to_string());
            return self.judge("pg_restore", reason, &finished);
        }
        // It need not read what follows the last table.
        loop {
            match download.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return lost(error),
            }
        }
        Ok(match why_changed(dump, &download.content()) {
            Some(reason) => Verdict::Critical(reason),
            None => Verdict::Ok,
        })
    }

    fn client(&self, program: &str) -> Command {
        let target = &self.target;
        let mut command = process::command(self.config.postgres.bin_directory.join(program));
        command
            .arg("--no-password")
            .current_dir(self.scratch.path())
            .env("PGHOST", &target.host)
            .env("PGPORT", target.port.to_string())
            .env("PGUSER", &target.user)
            .env("PGDATABASE", &target.database)
            // A database's own settings must not stop its restore.
            .env(
                "PGOPTIONS",
                "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0",
            );
        command
    }

    /// Is it the set that is bad, or the place where it was to be restored?
    fn judge(
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
        if finished.status.code().is_none() || server_is_gone(&finished.stderr) {
            return Err(RestoreError::Server(format!("{program}: {reason}")));
        }
        if is_missing_here(&reason) {
            return Ok(Verdict::Unknown(format!(
                "this node lacks what it needs: {reason}"
            )));
        }
        Ok(Verdict::Critical(format!("{program}: {reason}")))
    }
}

/// After the roles' own settings: they may shut out the one that restores.
const FOR_XDB: &str = "\nALTER ROLE CURRENT_USER RESET ALL;\nALTER ROLE CURRENT_USER LOGIN;\n";

#[derive(Debug, thiserror::Error)]
enum PourError {
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

async fn pour(download: &mut Download, mut stdin: ChildStdin) -> Result<(), PourError> {
    while let Some(piece) = download.next().await? {
        // Where the program has ended, its own end tells why.
        if stdin.write_all(&piece).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// An object that is gone is the set's fault, all else S3's.
fn lost(error: StorageError) -> Result<Verdict, RestoreError> {
    match error.cause() {
        Some(Cause::NoSuchKey) => Ok(Verdict::Critical(error.to_string())),
        _ => Err(RestoreError::StorageLost {
            doing: "a dump was read",
            words: error.to_string(),
        }),
    }
}

fn why_changed(stored: &StoredObject, read: &Content) -> Option<String> {
    let key = &stored.key;
    if read.bytes != stored.bytes {
        let (read, stored) = (read.bytes, stored.bytes);
        return Some(format!(
            "{key} has {read} bytes, its manifest says {stored}"
        ));
    }
    (read.sha256 != stored.sha256)
        .then(|| format!("{key} is not what was stored: its SHA-256 differs from its manifest's"))
}

/// The globals without their end: a tablespace made here could take hold of the live cluster's directories.
fn roles_only(globals: &str) -> &str {
    let end = globals.find("\n-- Tablespaces\n");
    end.map_or(globals, |end| &globals[..end])
}

/// The first error but that `superuser`, whom initdb made, is there.
fn why_no_roles(finished: &Finished, superuser: &str) -> Option<String> {
    let known = format!("role \"{superuser}\" already exists");
    let mut errors = finished.stderr.lines().filter_map(|line| {
        let at = ["ERROR:", "FATAL:", "error:"]
            .iter()
            .filter_map(|level| line.find(level));
        Some(&line[at.min()?..])
    });
    let first = errors.find(|error| !error.ends_with(&known));
    match first {
        Some(error) => Some(error.to_owned()),
        None if finished.status.success() => None,
        None => Some(finished.status.to_string()),
    }
}

/// Never the lines that follow it: they show the statement, and a user mapping's has a password.
fn first_error(stderr: &str) -> Option<String> {
    let error = stderr
        .lines()
        .find_map(|line| Some(line.split_once(": error: ")?.1));
    error.map(str::to_owned)
}

fn server_is_gone(stderr: &str) -> bool {
    const WORDS: [&str; 5] = [
        "server closed the connection",
        "terminating connection",
        "connection to server",
        "no connection to the server",
        "out of memory",
    ];
    WORDS.iter().any(|words| stderr.contains(words))
}

/// An extension, a library or a locale that is installed where the dump was made.
fn is_missing_here(reason: &str) -> bool {
    const WORDS: [&str; 8] = [
        "is not available",
        "could not open extension control file",
        "could not access file",
        "could not load library",
        "shared_preload_libraries",
        "locale name",
        "could not create locale",
        "collator for locale",
    ];
    WORDS.iter().any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn psql(code: i32, stderr: &str) -> Finished {
        Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn tablespaces_are_cut_off_the_globals() {
        let roles = "--\n-- Roles\n--\n\nCREATE ROLE app;\n";
        let all = format!(
            "{roles}--\n-- Tablespaces\n--\n\nCREATE TABLESPACE a OWNER b LOCATION '/live';\n"
        );
        assert!(!roles_only(&all).contains("TABLESPACE"));
        assert!(roles_only(&all).contains("CREATE ROLE app;"));
        assert_eq!(roles_only(roles), roles);
    }

    #[test]
    fn only_the_role_that_initdb_made_may_be_there_already() {
        let there = "ERROR:  role \"postgres\" already exists\n";
        for (finished, reason) in [
            (psql(0, ""), None),
            (psql(0, there), None),
            (
                psql(0, &format!("{there}ERROR:  role \"app\" already exists\n")),
                Some("ERROR:  role \"app\" already exists"),
            ),
            (
                psql(2, "psql: error: connection to server failed"),
                Some("error: connection to server failed"),
            ),
            (psql(3, there), Some("exit status: 3")),
        ] {
            assert_eq!(
                why_no_roles(&finished, "postgres").as_deref(),
                reason,
                "{finished:?}"
            );
        }
    }

    #[test]
    fn a_reason_shows_no_statement() {
        let stderr = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 3456; 1417 16390 USER MAPPING USER MAPPING app SERVER far postgres\n\
            pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
            Command was: CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'secret');\n";
        assert_eq!(
            first_error(stderr).unwrap(),
            "could not execute query: ERROR:  role \"app\" does not exist"
        );
        assert_eq!(first_error("pg_restore: warning: only this"), None);
    }

    #[test]
    fn what_this_node_lacks_is_no_fault_of_the_dump() {
        for (reason, missing) in [
            (
                "could not execute query: ERROR:  extension \"postgis\" is not available",
                true,
            ),
            (
                "could not execute query: ERROR:  invalid LC_COLLATE locale name: \"xx_YY\"",
                true,
            ),
            ("could not read from input file: end of file", false),
            (
                "could not execute query: ERROR:  role \"app\" does not exist",
                false,
            ),
        ] {
            assert_eq!(is_missing_here(reason), missing, "{reason}");
        }
        assert!(server_is_gone(
            "pg_restore: error: could not execute query: server closed the connection unexpectedly"
        ));
    }
}
