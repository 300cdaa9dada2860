//! `archive_command = 'xdb wal-push "%p"'`: 0 only when the file is stored, 1 otherwise, nothing else.
//!
//! Any exit above 125 would kill PostgreSQL's archiver without counting a failure. What is stored the bucket says, before
//! and after: a program's exit status alone proves nothing.

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::WalError;
use super::client::{block_on, complain, configured, note, refuse_cut};
use super::standby::{NeverComes, await_stored};
use crate::archive::archiver::{HandOver, hand_over};
use crate::archive::role::{
    LocalServer, in_recovery, refuse_foreign_prefix, refuse_superseded, stopping,
};
use crate::config::usual_state_directory;
use crate::model::ArchiveFile;
use crate::postgres;
use crate::process;
use crate::repository::ancestry::{self, Place};
use crate::repository::program::ReadyMark;
use crate::repository::{
    Program, Repository, RepositoryError, RepositoryHandle, Timelines, catalog, segment_header,
};
use crate::storage::Object;
use crate::store::StateFiles;

/// Archives the file that `arguments` name, and returns the exit code; `config` is a file other than the usual one.
pub fn wal_push(config: Option<PathBuf>, arguments: &[OsString]) -> u8 {
    // A panic would exit with 101, which PostgreSQL counts as a failure too; caught, it is one line.
    match catch_unwind(|| try_push(config.clone(), arguments)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            complain("wal-push", config, &error);
            1
        }
        Err(_) => 1,
    }
}

fn try_push(config: Option<PathBuf>, arguments: &[OsString]) -> Result<(), WalError> {
    let [path] = arguments else {
        let usage = "usage: xdb wal-push PATH, as archive_command = 'xdb wal-push \"%p\"'";
        return Err(WalError::Usage(usage.to_owned()));
    };
    let path = PathBuf::from(path);
    let name = archived_name(&path)?.to_owned();
    let metadata = std::fs::metadata(&path).map_err(|source| WalError::Segment {
        path: path.clone(),
        source,
    })?;
    if !metadata.is_file() {
        return Err(WalError::NotArchivable { path });
    }
    let hand_over = |state_directory: &Path| match hand_over(state_directory, &path, &name) {
        HandOver::Stored => Ok(true),
        HandOver::Refused => Ok(false),
        // PostgreSQL asks again in a second; two at one file would be worse.
        HandOver::Lost => Err(WalError::Lost { name: name.clone() }),
    };
    // Reading the configuration would be most of the work; and a running daemon keeps its settings while the file is edited.
    let usual = config.is_none().then(usual_state_directory).flatten();
    if let Some(usual) = &usual
        && hand_over(usual)?
    {
        return Ok(());
    }
    let (config, repository) = configured(config)?;
    let directory = &config.node.state_directory;
    if usual.as_ref() != Some(directory) && hand_over(directory)? {
        return Ok(());
    }
    let pushed = async {
        tokio::select! {
            pushed = archive(&repository, directory, (&path, &name)) => pushed,
            () = stopping(&config.postgres.data_directory) => Err(WalError::Stopping { name: name.clone() }),
        }
    };
    block_on(config.archive.push_timeout, pushed)
}

fn archived_name(path: &Path) -> Result<&str, WalError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let archived = name.filter(|name| ArchiveFile::of(name).is_some());
    archived.ok_or_else(|| WalError::NotArchivable {
        path: path.to_owned(),
    })
}

async fn archive(
    repository: &RepositoryHandle,
    state_directory: &Path,
    (path, name): (&Path, &str),
) -> Result<(), WalError> {
    let repository = &repository.get().await?;
    // PostgreSQL runs archive_command in the data directory.
    let here = std::env::current_dir().unwrap_or_else(|_| repository.data_directory().to_owned());
    // What is wrong with the program or its settings is said before anything is asked of S3.
    repository.program.find()?;
    if in_recovery(&here) {
        let never = await_stored(repository, (&here, name)).await?;
        if let Some(never) = never {
            note("wal-push", name, &never.to_string());
        }
        return Ok(());
    }
    if let Some(left) = left_behind(repository, &here, path, name).await {
        note("wal-push", name, &left.to_string());
        return Ok(());
    }
    let bytes = bytes_of(path)?;
    let stored = repository.stored_as(name).await?;
    refuse_cut(&stored, name, bytes)?;
    if !stored.is_empty() && same_content(repository, &stored, path, name).await? {
        return Ok(());
    }
    let place = LocalServer {
        data_directory: &here,
        state_directory,
        segment: path,
    };
    let timelines = Timelines::of(repository, StateFiles::of(state_directory));
    refuse_foreign_prefix(&timelines, place, name).await?;
    refuse_superseded(&timelines, place, name).await?;
    store(repository, &here, path, name).await?;
    match repository.whole_as(name, bytes).await?.as_slice() {
        [_] => Ok(()),
        [] => Err(WalError::NotThere {
            program: repository.program.archive.program.clone(),
            reason: format!("{name} is not whole in the bucket"),
        }),
        _ => Err(WalError::Twice {
            name: name.to_owned(),
        }),
    }
}

fn bytes_of(path: &Path) -> Result<u64, WalError> {
    let found = std::fs::metadata(path).map_err(|source| WalError::Segment {
        path: path.to_owned(),
        source,
    })?;
    Ok(found.len())
}

/// Why the primary here must not store the segment `name`: the server that was promoted, this one or one before it, left
/// the segment's timeline before its end, and a superseded server wrote the rest alone. The segment of the newer timeline
/// holds what counts of it.
async fn left_behind(
    repository: &Repository,
    here: &Path,
    path: &Path,
    name: &str,
) -> Option<NeverComes> {
    if ArchiveFile::of(name) != Some(ArchiveFile::Segment) || !ancestry::may_be_left(here, name) {
        return None;
    }
    // PostgreSQL writes its timeline into the control file at the promotion; a history may only lie there.
    let own = match postgres::own_timeline(&repository.program.postgres.bin_directory, here).await {
        Ok(own) => ancestry::of_timeline(here, own),
        Err(_) => segment_header::cluster_in(here).and_then(|it| ancestry::followed(here, it)),
    };
    let (own, (segment, end)) = own.zip(segment_header::segment_of(name, path))?;
    let left = |at| NeverComes::Left {
        timeline: segment.timeline,
        to: own.timeline,
        at,
    };
    match own.place(segment.timeline) {
        Place::Current => None,
        Place::Elsewhere => Some(left(None)),
        Place::LeftAt(at) => (end > at).then(|| left(Some(at))),
    }
}

/// Whether what is stored under `name` is the file at `path`; `false` where xdb cannot read it, and the program decides.
pub(in crate::archive) async fn same_content(
    repository: &Repository,
    stored: &[Object],
    path: &Path,
    name: &str,
) -> Result<bool, WalError> {
    for object in stored {
        let bytes = repository.bucket.get(&object.key).await?;
        let (key, file) = (object.key.clone(), path.to_owned());
        let compare = move || {
            let file = std::fs::read(file)?;
            // Encrypted, or compressed in a way that xdb does not read.
            let content = catalog::decompressed(&key, &bytes).ok();
            Ok::<_, std::io::Error>(content.map(|content| content == file))
        };
        let same = process::on_a_thread(compare).await;
        let same = same.map_err(|source| WalError::Segment {
            path: path.to_owned(),
            source,
        })?;
        match same {
            None => return Ok(false),
            Some(true) => {}
            Some(false) => {
                return Err(WalError::Differs {
                    name: name.to_owned(),
                });
            }
        }
    }
    Ok(true)
}

async fn store(
    repository: &Repository,
    here: &Path,
    path: &Path,
    name: &str,
) -> Result<(), WalError> {
    let (program, mut command) = repository.command(here)?;
    command.arg("wal-push").arg(path);
    let mark = ReadyMark::of(path).filter(|_| program == Program::Walrus);
    // The rest of the time is for giving up an upload that the program leaves unfinished.
    let ended =
        process::run_attached(command, repository.program.archive.push_timeout / 10 * 8).await;
    if ended.as_ref().is_ok_and(ExitStatus::success) {
        mark.into_iter().for_each(ReadyMark::put_back);
        return Ok(());
    }
    repository.give_up_uploads(name).await;
    let reason = ended?.to_string();
    Err(RepositoryError::Failed {
        program: program.to_string(),
        verb: "wal-push",
        reason,
    }
    .into())
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
