//! Who may archive: the primary stores, a standby waits for it, a superseded primary does neither.

use std::path::Path;
use std::time::Duration;

use super::wal_client::stored_as;
use super::{ArchiveError, Repository, wal_header};
use crate::config::Config;
use crate::model::Timeline;
use crate::postgres::postmaster_status;
use crate::storage::Bucket;
use crate::store::Reader;

/// The look at the bucket before each push.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the server in `data_directory` is a standby, or recovers: the signal files go away with the promotion.
pub(super) fn in_recovery(data_directory: &Path) -> bool {
    ["standby.signal", "recovery.signal"]
        .iter()
        .any(|name| data_directory.join(name).exists())
}

/// What one file may take of a shutdown, which waits for three attempts at it.
const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// Whether the server in `data_directory` is being shut down.
pub(super) fn is_stopping(data_directory: &Path) -> bool {
    postmaster_status(data_directory).as_deref() == Some("stopping")
}

/// Ends some seconds after the server began to shut down, so that an S3 that hangs does not hold it up.
pub(super) async fn stopping(data_directory: &Path) {
    while !is_stopping(data_directory) {
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(LAST_ATTEMPT).await;
}

/// Refuses when the bucket, or what this node's daemon remembers, knows a timeline that this server does not: another
/// node was promoted meanwhile, and what this one writes belongs to a history that was left.
///
/// Not being able to look is no reason to stop archiving.
pub(super) async fn refuse_superseded(
    bucket: &Bucket,
    repository: &Repository,
    here: Here<'_>,
    name: &str,
) -> Result<(), ArchiveError> {
    let written = name
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .map(Timeline);
    let Some(written) = written else {
        return Ok(());
    };
    let own = newest_history(here.data_directory).map_or(written, |own| own.max(written));
    if let Some(timeline) = remembered(here).filter(|timeline| *timeline > own) {
        return Err(ArchiveError::Superseded {
            name: name.to_owned(),
            timeline,
        });
    }
    let next = own.next();
    let name_of_next = next.history_file();
    let look = tokio::time::timeout(LOOK, stored_as(bucket, repository, &name_of_next)).await;
    match look {
        Ok(Ok(stored)) if !stored.is_empty() => Err(ArchiveError::Superseded {
            name: name.to_owned(),
            timeline: next,
        }),
        _ => Ok(()),
    }
}

/// Where the server and what this node remembers are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    pub data_directory: &'a Path,
    pub state_directory: &'a Path,
    /// The file that is to be archived.
    pub segment: &'a Path,
}

/// The highest timeline of the segment's own cluster that this node's daemon ever knew of.
fn remembered(here: Here<'_>) -> Option<Timeline> {
    let cluster = wal_header::system_identifier(here.segment)?;
    let reader = Reader::open(here.state_directory).ok()??;
    reader.reading().highest_timeline(cluster).ok()?
}

/// The timeline after `own`, when the archive knows it: then another node was promoted.
///
/// # Errors
/// When the bucket cannot be looked at.
pub async fn timeline_after(
    config: &Config,
    own: Timeline,
) -> Result<Option<Timeline>, ArchiveError> {
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let stored = stored_as(&bucket, &repository, &own.next().history_file()).await?;
    Ok((!stored.is_empty()).then(|| own.next()))
}

/// The highest timeline whose history is in `pg_wal`; PostgreSQL never removes those.
fn newest_history(data_directory: &Path) -> Option<Timeline> {
    let entries = std::fs::read_dir(data_directory.join("pg_wal")).ok()?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| {
            u32::from_str_radix(name.strip_suffix(".history")?, 16)
                .ok()
                .map(Timeline)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_files_and_histories_tell_the_role() {
        let data = tempfile::tempdir().unwrap();
        assert!(!in_recovery(data.path()));
        assert_eq!(newest_history(data.path()), None);
        std::fs::create_dir(data.path().join("pg_wal")).unwrap();
        for name in [
            "pg_wal/00000002.history",
            "pg_wal/0000000A.history",
            "pg_wal/x.history",
            "standby.signal",
        ] {
            std::fs::write(data.path().join(name), "").unwrap();
        }
        assert!(in_recovery(data.path()));
        assert!(!is_stopping(data.path()));
        for (status, stopping) in [("ready   ", false), ("stopping", true)] {
            let lines = format!("42\n/data\n1\n5432\n/tmp\n*\n1 2\n{status}\n");
            std::fs::write(data.path().join("postmaster.pid"), lines).unwrap();
            assert_eq!(is_stopping(data.path()), stopping, "{status}");
        }
        assert_eq!(newest_history(data.path()), Some(Timeline(10)));
    }
}
