//! The dump of one database: its snapshot, `pg_dump` into the bucket, and what both are counted by; tried again as
//! [`Attempts`] decides.

use std::io::Cursor;
use std::time::Duration;

use jiff::Timestamp;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::ChildStdout;

use super::attempts::{Attempts, Failure, Next};
use super::push::Push;
use super::set::{DumpedDatabase, dump_file};
use super::snapshot::{Counted, Guard, Snapshot};
use super::source::{Source, lock_holders, primary_of};
use super::{Contents, DumpError, LeftOut, program};
use crate::postgres;

/// The pipe from `pg_dump`: as large as any user may make it, so that `pg_dump` works while a part is hashed and sent.
const PIPE: usize = 1 << 20;

/// A database of a set, and its objects that are not in the dump.
pub(super) type Dumped = (DumpedDatabase, Vec<LeftOut>);

impl Push<'_> {
    /// Dumps the database `name`; `None` where it was dropped meanwhile.
    ///
    /// # Errors
    /// Of the last attempt.
    pub(super) async fn database(&self, name: &str) -> Result<Option<Dumped>, DumpError> {
        let mut attempts = Attempts::default();
        let mut source = self.own_server();
        loop {
            self.watch.set_here(source.primary.is_none());
            let attempt = self.attempt(name, &source).await;
            self.watch.set_here(true);
            let error = match attempt {
                Ok(dumped) => return Ok(Some(dumped)),
                Err(error) => error,
            };
            let failure = Failure::of(&error, source.in_recovery);
            // Where S3 failed, the databases are as they were.
            if !matches!(error, DumpError::Storage(_)) && self.is_dropped(name).await {
                return Ok(None);
            }
            let most = self.dumps.settings.max_conflicts;
            match attempts.decide(failure, most, self.time_left()) {
                Next::GiveUp => return Err(error),
                Next::Again { after } => {
                    tracing::warn!(
                        "the dump of database {name:?} is tried again in {} s: {}",
                        after.as_secs(),
                        crate::log::chain(&error)
                    );
                    tokio::time::sleep(after).await;
                }
                Next::FromPrimary => {
                    source = self.primary(name, attempts.conflicts, error).await?;
                }
            }
        }
    }

    fn own_server(&self) -> Source {
        Source {
            postgres: self.dumps.postgres.clone(),
            in_recovery: self.server.in_recovery,
            primary: None,
        }
    }

    async fn primary(
        &self,
        name: &str,
        conflicts: u32,
        conflict: DumpError,
    ) -> Result<Source, DumpError> {
        match primary_of(&self.dumps.postgres, &self.server).await {
            Ok(source) => {
                tracing::warn!(
                    "database {name:?} is dumped from the primary {}: recovery conflicts ended its dump on this standby {conflicts} times, last: {}",
                    source.primary.as_deref().unwrap_or_default(),
                    crate::log::chain(&conflict)
                );
                Ok(source)
            }
            Err(why) => Err(DumpError::Conflicts {
                database: name.to_owned(),
                conflicts,
                why,
                source: Box::new(conflict),
            }),
        }
    }

    /// Whether the server has no database `name` any more. Where it does not say, it is there.
    async fn is_dropped(&self, name: &str) -> bool {
        // `-2` is what an interrupted DROP DATABASE leaves.
        const QUERY: &str = "
            SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1 AND datconnlimit <> -2) AS dropped";
        let settings = &self.dumps.postgres;
        let Ok(connection) = postgres::connect(&settings.into(), settings.connect_timeout).await
        else {
            return false;
        };
        let row = connection.query_one(QUERY, &[&name]).await;
        row.is_ok_and(|row| row.try_get("dropped").unwrap_or(false))
    }

    /// How long a statement of this attempt may wait for a table: it must end, and say why, before the whole dump does.
    fn lock_timeout(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(1);
        let left = self.time_left().saturating_sub(MARGIN);
        // Zero would be without limit.
        let least = Duration::from_millis(100);
        self.dumps.settings.lock_timeout.min(left).max(least)
    }

    async fn attempt(&self, name: &str, source: &Source) -> Result<Dumped, DumpError> {
        let lock_timeout = self.lock_timeout();
        let taken = Snapshot::take(self.dumps, source, name, lock_timeout).await;
        let mut snapshot = match taken {
            Err(DumpError::TableLock {
                mut locked,
                source: error,
            }) => {
                locked.holders = lock_holders(&source.postgres, name).await;
                return Err(DumpError::TableLock {
                    locked,
                    source: error,
                });
            }
            taken => taken?,
        };
        let failed = |source| DumpError::Snapshot {
            database: name.to_owned(),
            source,
        };
        let mut rewritten = None;
        let (counted, dump) = match snapshot.guard {
            Guard::Snapshot => {
                let stored = self.store_database(name, source, &snapshot, async |stdout| {
                    // Where the limit is lower, the default has to do.
                    let _ = fcntl_setpipe_size(&stdout, PIPE);
                    Ok(stdout)
                });
                tokio::try_join!(count(&snapshot, name), stored)?
            }
            Guard::PgDump => {
                let mut all = Counted::default();
                let dump = self.store_database(name, source, &snapshot, async |stdout| {
                    let (first, stdout) = hold_after_begin(stdout).await;
                    if !first.is_empty() {
                        all = count(&snapshot, name).await?;
                        rewritten = snapshot.rewritten(name).await.map_err(failed)?;
                    }
                    let _ = fcntl_setpipe_size(&stdout, PIPE);
                    Ok(Cursor::new(first).chain(stdout))
                });
                let dump = dump.await?;
                (all, dump)
            }
        };
        snapshot.note_moved_sequences().await;
        let contents = Contents {
            estimated_rows: counted.rows.estimated,
            large_objects: counted.large_objects,
            dumped_from: source.primary.clone(),
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

    /// Streams the output of `pg_dump`, as `begin` reads it, into the bucket.
    async fn store_database<R: AsyncRead + Unpin>(
        &self,
        name: &str,
        source: &Source,
        snapshot: &Snapshot,
        begin: impl AsyncFnOnce(ChildStdout) -> Result<R, DumpError>,
    ) -> Result<super::StoredObject, DumpError> {
        let what = format!("database {name:?}");
        let options = program::DumpOptions {
            compression: self.compression.as_deref(),
            superuser: self.found.is_superuser,
            lock_timeout: self.lock_timeout(),
        };
        let command = program::pg_dump(&source.postgres, name, snapshot, &options);
        let file = dump_file(name);
        let expected = snapshot.database_bytes;
        let stored = self.store("pg_dump", &what, command, (&file, expected), begin);
        match stored.await {
            Err(DumpError::TableLocks { what, .. }) => Err(DumpError::TableLocks {
                what,
                holders: lock_holders(&source.postgres, name).await,
            }),
            stored => stored,
        }
    }
}

async fn count(snapshot: &Snapshot, name: &str) -> Result<Counted, DumpError> {
    let counted = snapshot.count().await;
    counted.map_err(|source| DumpError::Count {
        database: name.to_owned(),
        source,
    })
}

/// Waits for the first byte of `pg_dump`, which it writes when it has locked every table; returns it, if it came.
///
/// As long as the rest is not read, `pg_dump` waits with its locks: its table of contents alone is larger than the pipe.
async fn hold_after_begin(mut stdout: ChildStdout) -> (Vec<u8>, ChildStdout) {
    const SMALLEST: usize = 4096;
    // A pipe of the default size would hold the table of contents of some hundred tables.
    let _ = fcntl_setpipe_size(&stdout, SMALLEST);
    let mut first = vec![0];
    // An error of the pipe ends the output; the exit status judges.
    let read = stdout.read(&mut first).await.unwrap_or(0);
    first.truncate(read);
    (first, stdout)
}
