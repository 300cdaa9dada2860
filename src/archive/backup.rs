//! Base backups: look first, let the program push, then judge by the bucket.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::catalog::{self, Catalog, Sentinel};
use super::{ArchiveError, environment};
use crate::config::Config;
use crate::postgres::{self, Archiver, ControlData, Server};
use crate::process::{self, MarkedLock};
use crate::storage::{Bucket, Repository};

/// A base backup that is in the bucket, with the WAL that makes it whole.
#[derive(Debug, Clone, Serialize)]
pub struct PushedBackup {
    pub backup: String,
    /// Bytes as tar, and as stored.
    pub uncompressed_bytes: u64,
    pub compressed_bytes: u64,
    pub secs: f64,
}

/// Takes a base backup of this node's PostgreSQL and pushes it; `full` even where a delta would do.
///
/// # Errors
/// [`ArchiveError::Refused`] where a backup would be worthless or mixed with another cluster's; otherwise what failed.
/// What an earlier or this push left unfinished in the bucket is given up first.
pub async fn push(config: &Config, full: bool) -> Result<PushedBackup, ArchiveError> {
    let started = Instant::now();
    let repository = super::repository(config)?;
    let directory = &config.postgres.data_directory;
    let control = postgres::control_data(&config.postgres.bin_directory, directory).await?;
    let connection = postgres::connect(&(&config.postgres).into(), Duration::from_secs(10)).await?;
    let (server, archiver) = (
        postgres::server(&connection).await?,
        postgres::archiver(&connection).await?,
    );
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let before = catalog::read(&bucket, &repository).await?;
    if let Some((reason, hint)) = judge_push(&control, &server, &archiver, &before, &repository) {
        return Err(ArchiveError::Refused { reason, hint });
    }

    let mut lock = PushLock::take(config)?;
    lock.clean_up(&bucket, &repository).await?;
    lock.mark(Timestamp::now())?;
    let outcome = run_program(config, &repository, full || must_be_full(&before, &server)).await;
    if let Err(error) = outcome {
        // The program's error comes first; what cannot be aborted now is marked for the next push.
        if abort_uploads(&bucket, &repository, lock.since)
            .await
            .is_ok()
        {
            lock.clear()?;
        }
        return Err(error);
    }
    lock.clear()?;

    let still = postgres::server(&connection).await?;
    if still.system_identifier != server.system_identifier {
        let reason = format!(
            "the server's system identifier was {} before and {} after",
            server.system_identifier, still.system_identifier
        );
        let hint = "postgres.host led to another cluster meanwhile: do not count on this backup"
            .to_owned();
        return Err(ArchiveError::Refused { reason, hint });
    }
    let (backup, sentinel) = await_backup(config, &bucket, &repository, &before).await?;
    Ok(PushedBackup {
        backup,
        uncompressed_bytes: sentinel.uncompressed_size,
        compressed_bytes: sentinel.compressed_size,
        secs: started.elapsed().as_secs_f64(),
    })
}

/// Gives up what a push that was interrupted left unfinished in the bucket; nothing where none was.
///
/// # Errors
/// When the bucket cannot be asked; the next push tries again.
pub async fn clean_up_push(config: &Config) -> Result<(), ArchiveError> {
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    PushLock::take(config)?.clean_up(&bucket, &repository).await
}

/// Why no backup should be taken now, and what to do; `None` when all is well.
fn judge_push(
    control: &ControlData,
    server: &Server,
    archiver: &Archiver,
    catalog: &Catalog,
    repository: &Repository,
) -> Option<(String, String)> {
    let no = |reason: String, hint: &str| Some((reason, hint.to_owned()));
    if server.system_identifier != control.system_identifier {
        return no(
            format!(
                "the server that answers has system identifier {}, postgres.data_directory {}",
                server.system_identifier, control.system_identifier
            ),
            "postgres.host and postgres.port must lead to the server of postgres.data_directory",
        );
    }
    if server.in_recovery {
        return no(
            "this server is a standby".to_owned(),
            "base backups are taken on the primary",
        );
    }
    if server.archive_mode == "off" {
        return no(
            "archive_mode is off: without its WAL a base backup cannot be restored".to_owned(),
            "set archive_mode = always and archive_command = 'xdb wal-push \"%p\"', then restart PostgreSQL",
        );
    }
    if archiver.failing() {
        let last = archiver.last_failed.as_deref().unwrap_or("a segment");
        return no(
            format!("archiving fails ({last}): the backup would wait for its WAL"),
            "see PostgreSQL's log for what `xdb wal-push` said, mend that first",
        );
    }
    let foreign = catalog.backups.iter().find(|backup| {
        let written = backup
            .sentinel
            .as_ref()
            .and_then(|sentinel| sentinel.system_identifier);
        written.is_some_and(|identifier| identifier != server.system_identifier)
    });
    if let Some(foreign) = foreign {
        return no(
            format!("{repository} holds {} of another cluster", foreign.name),
            "one prefix is for one cluster: set archive.repository or cluster.name to a new one",
        );
    }
    None
}

/// A delta against a backup of another timeline may hold pages of a history that was left: the first on a timeline is full.
fn must_be_full(catalog: &Catalog, server: &Server) -> bool {
    catalog
        .newest()
        .is_none_or(|newest| newest.timeline != server.timeline)
}

async fn run_program(
    config: &Config,
    repository: &Repository,
    full: bool,
) -> Result<(), ArchiveError> {
    let directory = &config.postgres.data_directory;
    let (program, mut command) = environment::command(config, repository, directory)?;
    command.args(program.backup_push(directory, full));
    let finished = process::run(command, config.archive.backup_timeout).await?;
    if finished.status.success() {
        return Ok(());
    }
    let reason = finished.last_words();
    Err(ArchiveError::Failed {
        program: program.to_string(),
        verb: "backup-push",
        reason,
    })
}

/// Waits until the new backup and its WAL are listed: an exit status alone proves nothing.
async fn await_backup(
    config: &Config,
    bucket: &Bucket,
    repository: &Repository,
    before: &Catalog,
) -> Result<(String, Sentinel), ArchiveError> {
    let known: BTreeSet<&str> = before
        .backups
        .iter()
        .filter(|b| b.sentinel.is_some())
        .map(|b| b.name.as_str())
        .collect();
    let deadline = Instant::now() + config.archive.push_timeout;
    loop {
        let now = catalog::read(bucket, repository).await?;
        let new = now
            .backups
            .iter()
            .find(|b| b.sentinel.is_some() && !known.contains(b.name.as_str()));
        let reason = match new {
            None => "no new backup is in the bucket".to_owned(),
            Some(backup) => match (now.why_unusable(backup), &backup.sentinel) {
                (None, Some(sentinel)) => return Ok((backup.name.clone(), sentinel.clone())),
                (reason, _) => format!(
                    "{} cannot be restored: {}",
                    backup.name,
                    reason.unwrap_or_default()
                ),
            },
        };
        if new.is_none() || Instant::now() > deadline {
            return Err(ArchiveError::NotThere {
                program: config.archive.program.clone(),
                reason,
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Gives up the uploads of base backups begun since `since`: only one push runs at a time, so they are nobody's.
async fn abort_uploads(
    bucket: &Bucket,
    repository: &Repository,
    since: Timestamp,
) -> Result<(), ArchiveError> {
    // S3's clock may be behind ours.
    let since = since
        .checked_sub(jiff::SignedDuration::from_mins(5))
        .unwrap_or(since);
    for upload in bucket
        .unfinished_uploads(&repository.key("basebackups_005/"))
        .await?
    {
        if upload.initiated >= since {
            bucket.abort_upload(&upload).await?;
        }
    }
    Ok(())
}

/// The node's lock for pushing base backups; its mark is when the push that holds it began.
struct PushLock {
    path: PathBuf,
    lock: MarkedLock,
    since: Timestamp,
}

impl PushLock {
    fn take(config: &Config) -> Result<Self, ArchiveError> {
        let path = config.node.state_directory.join("backup-push.lock");
        match MarkedLock::take(&path) {
            Ok(Some(lock)) => Ok(Self {
                path,
                lock,
                since: Timestamp::now(),
            }),
            Ok(None) => Err(ArchiveError::Refused {
                reason: "another base backup is being pushed from this node".to_owned(),
                hint: "wait for its end".to_owned(),
            }),
            Err(source) => Err(ArchiveError::Lock { path, source }),
        }
    }

    /// Gives up the uploads of the last holder, if it was stopped before its end.
    async fn clean_up(
        &mut self,
        bucket: &Bucket,
        repository: &Repository,
    ) -> Result<(), ArchiveError> {
        let mark = self.lock.mark().map_err(|source| self.failed(source))?;
        if let Ok(since) = mark.trim().parse() {
            abort_uploads(bucket, repository, since).await?;
            self.clear()?;
        }
        Ok(())
    }

    fn mark(&mut self, since: Timestamp) -> Result<(), ArchiveError> {
        self.since = since;
        let marked = self.lock.set_mark(&since.to_string());
        marked.map_err(|source| self.failed(source))
    }

    fn clear(&mut self) -> Result<(), ArchiveError> {
        self.lock.clear().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> ArchiveError {
        ArchiveError::Lock {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::catalog::{Backup, Wal};
    use crate::model::{SegmentSize, Timeline};

    fn control() -> ControlData {
        ControlData {
            system_identifier: 7,
            timeline: Timeline(1),
            segment_size: SegmentSize::default(),
            checksums: true,
            limits: Vec::new(),
            wal_level: "replica".into(),
            track_commit_timestamp: false,
        }
    }

    fn server() -> Server {
        Server {
            system_identifier: 7,
            in_recovery: false,
            timeline: Timeline(1),
            version: 170_011,
            data_directory: "/data".into(),
            segment_size: SegmentSize::default(),
            wal_end: None,
            streaming: false,
            archive_mode: "on".into(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn catalog(backups: Vec<Backup>) -> Catalog {
        Catalog {
            backups,
            wal: Wal::default(),
        }
    }

    fn backup(timeline: u32, system_identifier: u64) -> Backup {
        let json = format!(r#"{{"LSN":40,"FinishLSN":80,"SystemIdentifier":{system_identifier}}}"#);
        Backup {
            name: format!("base_{timeline:08X}0000000000000000"),
            timeline: Timeline(timeline),
            sentinel: Some(Sentinel::parse(json.as_bytes()).unwrap()),
            finished_at: Some(Timestamp::UNIX_EPOCH),
        }
    }

    fn judged(server: &Server, archiver: &Archiver, catalog: &Catalog) -> Option<String> {
        let repository = Repository {
            bucket: "b".into(),
            prefix: "p".into(),
        };
        judge_push(&control(), server, archiver, catalog, &repository).map(|(reason, _)| reason)
    }

    #[test]
    fn a_backup_is_refused_where_it_would_be_worthless() {
        let (well, empty) = (Archiver::default(), catalog(Vec::new()));
        assert_eq!(judged(&server(), &well, &empty), None);
        let failing = Archiver {
            last_failed_at: Some(Timestamp::UNIX_EPOCH),
            ..Archiver::default()
        };
        for (server, archiver, catalog, reason) in [
            (
                Server {
                    system_identifier: 8,
                    ..server()
                },
                &well,
                &empty,
                "system identifier 8",
            ),
            (
                Server {
                    in_recovery: true,
                    ..server()
                },
                &well,
                &empty,
                "standby",
            ),
            (
                Server {
                    archive_mode: "off".into(),
                    ..server()
                },
                &well,
                &empty,
                "archive_mode is off",
            ),
            (server(), &failing, &empty, "archiving fails"),
            (
                server(),
                &well,
                &catalog(vec![backup(1, 9)]),
                "another cluster",
            ),
        ] {
            let judged = judged(&server, archiver, catalog).unwrap_or_default();
            assert!(judged.contains(reason), "{judged:?} for {reason:?}");
        }
    }

    #[test]
    fn the_first_backup_on_a_timeline_is_full() {
        assert!(must_be_full(&catalog(Vec::new()), &server()));
        assert!(!must_be_full(&catalog(vec![backup(1, 7)]), &server()));
        assert!(must_be_full(
            &catalog(vec![backup(1, 7)]),
            &Server {
                timeline: Timeline(2),
                ..server()
            }
        ));
    }
}
