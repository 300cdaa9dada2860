//! `archive_command = 'xdb wal-push "%p"'`: 0 only when the file is stored, 1 otherwise, nothing else.
//!
//! Any exit above 125 would kill PostgreSQL's archiver without counting a failure.

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::program::ReadyMark;
use super::wal_client::{block_on, complain, configured, is_stored};
use super::{ArchiveError, Program, Repository, environment};
use crate::config::Config;
use crate::model::ArchiveFile;
use crate::process;
use crate::storage::Bucket;

/// Archives the file that `arguments` name, and returns the exit code.
pub fn wal_push(arguments: &[OsString]) -> u8 {
    // A panic would exit with 101, which PostgreSQL counts as a failure too; caught, it is one line.
    let pushed = catch_unwind(|| try_push(arguments));
    match pushed {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            complain("wal-push", &error);
            1
        }
        Err(_) => 1,
    }
}

fn try_push(arguments: &[OsString]) -> Result<(), ArchiveError> {
    let [path] = arguments else {
        return Err(ArchiveError::Usage(
            "usage: xdb wal-push PATH, as archive_command = 'xdb wal-push \"%p\"'".to_owned(),
        ));
    };
    let path = PathBuf::from(path);
    let name = archived_name(&path)?.to_owned();
    let metadata = std::fs::metadata(&path).map_err(|source| ArchiveError::Segment {
        path: path.clone(),
        source,
    })?;
    if !metadata.is_file() {
        return Err(ArchiveError::NotArchivable { path });
    }
    let (config, repository) = configured()?;
    block_on(store(&config, &repository, &path, &name))
}

fn archived_name(path: &Path) -> Result<&str, ArchiveError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.filter(|name| ArchiveFile::of(name).is_some())
        .ok_or_else(|| ArchiveError::NotArchivable {
            path: path.to_owned(),
        })
}

async fn store(
    config: &Config,
    repository: &Repository,
    path: &Path,
    name: &str,
) -> Result<(), ArchiveError> {
    // PostgreSQL runs archive_command in the data directory.
    let here = std::env::current_dir().unwrap_or_else(|_| config.postgres.data_directory.clone());
    let (program, mut command) = environment::command(config, repository, &here)?;
    command.arg("wal-push").arg(path);
    let mark = ReadyMark::of(path).filter(|_| program == Program::Walrus);
    let ended = process::run_attached(command, config.archive.push_timeout).await;
    if ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
        mark.into_iter().for_each(ReadyMark::put_back);
        return Ok(());
    }
    Err(explain(config, repository, program, name, ended).await)
}

/// Why the program failed, as the bucket tells it; and whatever upload it left unfinished is given up.
async fn explain(
    config: &Config,
    repository: &Repository,
    program: Program,
    name: &str,
    ended: Result<std::process::ExitStatus, process::ProcessError>,
) -> ArchiveError {
    let bucket = match Bucket::open(&config.s3, &repository.bucket).await {
        Ok(bucket) => bucket,
        Err(error) => return error.into(),
    };
    match is_stored(&bucket, repository, name).await {
        Err(error) => return error,
        Ok(true) if ended.is_ok() => {
            return ArchiveError::Differs {
                name: name.to_owned(),
            };
        }
        Ok(_) => {}
    }
    let left = bucket
        .unfinished_uploads(&repository.key(&format!("wal_005/{name}")))
        .await;
    for upload in left.unwrap_or_default() {
        // The next attempt stores it anew; what cannot be aborted now, it finds again.
        let _ = bucket.abort_upload(&upload).await;
    }
    match ended {
        Ok(status) => ArchiveError::Failed {
            program: program.to_string(),
            verb: "wal-push",
            reason: status.to_string(),
        },
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_postgresql_archives_is_taken() {
        assert_eq!(
            archived_name(Path::new("pg_wal/00000002.history")).unwrap(),
            "00000002.history"
        );
        for path in ["pg_wal/xlogtemp.12", "/etc/passwd", "pg_wal/..", ""] {
            assert!(archived_name(Path::new(path)).is_err(), "{path:?}");
        }
    }
}
