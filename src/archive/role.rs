//! Who may archive: the primary stores, a standby waits for it, a superseded primary does neither.

use std::path::Path;
use std::time::Duration;

use crate::model::{ArchiveFile, ServerPosition, Timeline, TimelineHistory, WalSegment};
use crate::postgres::{ServerState, control_file, postmaster_status, segment_size_in};
use crate::repository::{
    RepositoryError, Timelines, own_history, superseding, timeline_in, wal_header,
};
use crate::store::StateFiles;

/// Why this server must not archive.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error("refused to archive {name}: timeline {timeline} exists, and this server is not on it")]
    Superseded { name: String, timeline: Timeline },
    #[error(
        "refused to archive {name}: {repository} belongs to another cluster, with the system identifier {theirs}; this server's is {own}"
    )]
    ForeignPrefix {
        name: String,
        repository: String,
        theirs: u64,
        own: u64,
    },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl RoleError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Superseded { .. } => {
                "another node was promoted: stop this server and let it rejoin as a standby; its own WAL since then is on no timeline that counts".to_owned()
            }
            Self::ForeignPrefix { .. } => {
                "one prefix is for one cluster: set archive.repository or cluster.name to a new one; runbooks/foreign-backup.md".to_owned()
            }
            Self::Repository(error) => error.hint(),
        }
    }
}

/// The look at the bucket before each push.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the server in `data_directory` is a standby, or recovers.
///
/// The signal files go away with the promotion; one that was left beside a running primary makes it no standby.
pub(in crate::archive) fn in_recovery(data_directory: &Path) -> bool {
    let signalled = ["standby.signal", "recovery.signal"]
        .iter()
        .any(|name| data_directory.join(name).exists());
    let state = || control_file(data_directory).map(|file| file.state);
    signalled && state() != Some(ServerState::Primary)
}

/// What one file may take of a shutdown, which waits for three attempts at it.
const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// Whether the server in `data_directory` is being shut down.
pub(in crate::archive) fn is_stopping(data_directory: &Path) -> bool {
    postmaster_status(data_directory).as_deref() == Some("stopping")
}

/// Ends some seconds after the server began to shut down, so that an S3 that hangs does not hold it up.
pub(in crate::archive) async fn stopping(data_directory: &Path) {
    while !is_stopping(data_directory) {
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(LAST_ATTEMPT).await;
}

/// Where the server and what this node remembers are.
#[derive(Debug, Clone, Copy)]
pub(in crate::archive) struct LocalServer<'a> {
    pub data_directory: &'a Path,
    pub state_directory: &'a Path,
    /// The file that is to be archived.
    pub segment: &'a Path,
}

/// Refuses when this node remembers, or the bucket holds, the proof that another node was promoted: what this one writes
/// belongs to a history that was left.
///
/// Not being able to look is no reason to stop archiving.
pub(in crate::archive) async fn refuse_superseded(
    timelines: &Timelines,
    here: LocalServer<'_>,
    name: &str,
) -> Result<(), RoleError> {
    let Some(written) = timeline_in(name) else {
        return Ok(());
    };
    let remembered = StateFiles::of(here.state_directory).supersession();
    if remembered.is_none() {
        let above = tokio::time::timeout(LOOK, timelines.any_above(written)).await;
        if !matches!(above, Ok(Ok(true))) {
            return Ok(());
        }
    }
    let Some(own) = own_position(here, name, written) else {
        return Ok(());
    };
    let look = tokio::time::timeout(LOOK * 2, superseding(timelines, remembered, &own));
    let proof = look.await.ok().and_then(Result::ok).flatten();
    match proof {
        Some(proof) => Err(RoleError::Superseded {
            name: name.to_owned(),
            timeline: proof.timeline,
        }),
        None => Ok(()),
    }
}

/// Where the server here stands at least, by the file `name` that it has finished and by its control file.
fn own_position(here: LocalServer<'_>, name: &str, written: Timeline) -> Option<ServerPosition> {
    let control = control_file(here.data_directory);
    let identifier = control.as_ref().map(|file| file.system_identifier);
    let system_identifier = wal_header::system_identifier(here.segment).or(identifier)?;
    let checkpoint = control.as_ref().map(|file| file.checkpoint);
    let timeline = control.map_or(written, |file| file.timeline.max(written));
    let size = segment_size_in(here.data_directory);
    let segment = name
        .get(..24)
        .and_then(|name| WalSegment::parse(name, size).ok());
    let end = segment.filter(|_| timeline == written);
    Some(ServerPosition {
        system_identifier,
        timeline,
        lsn: end.map(|segment| segment.end(size)).max(checkpoint)?,
        history: own_history(here.data_directory, timeline),
    })
}

/// Refuses a `.history` where the prefix holds another cluster's WAL or backups: no other file would collide before it.
///
/// The newest backup tells whose the prefix is, and where there is none, its first segment. After initdb or pg_upgrade the
/// backups are the old cluster's until the next one: WAL of this cluster at the switch shows that it archives here already.
///
/// # Errors
/// Also when the bucket cannot be read.
pub(in crate::archive) async fn refuse_foreign_prefix(
    timelines: &Timelines,
    here: LocalServer<'_>,
    name: &str,
) -> Result<(), RoleError> {
    if ArchiveFile::of(name) != Some(ArchiveFile::TimelineHistory) {
        return Ok(());
    }
    let Some(own) = control_file(here.data_directory).map(|file| file.system_identifier) else {
        return Ok(());
    };
    let owners = timelines.owners().await?;
    if owners.is_empty() || owners.contains(&own) {
        return Ok(());
    }
    let text = std::fs::read_to_string(here.segment).ok();
    let history: Option<TimelineHistory> = text.and_then(|text| text.parse().ok());
    if let (Some(timeline), Some(history)) = (timeline_in(name), history)
        && timelines.holds_own_wal(timeline, &history, own).await?
    {
        return Ok(());
    }
    Err(RoleError::ForeignPrefix {
        name: name.to_owned(),
        repository: timelines.repository().location.to_string(),
        theirs: owners[0],
        own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_what_the_server_is_and_no_stray_signal_file() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("global")).unwrap();
        let control = |state: u32| {
            let mut bytes = vec![0; 8192];
            bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
            bytes[16..20].copy_from_slice(&state.to_ne_bytes());
            std::fs::write(data.path().join("global/pg_control"), bytes).unwrap();
        };
        assert!(!in_recovery(data.path()));
        std::fs::write(data.path().join("standby.signal"), "").unwrap();
        assert!(in_recovery(data.path()));
        for (state, recovers) in [(6, false), (3, false), (5, true), (4, true)] {
            control(state);
            assert_eq!(in_recovery(data.path()), recovers, "{state}");
        }
        // A promotion removes the signal before it says that it is in production.
        std::fs::remove_file(data.path().join("standby.signal")).unwrap();
        assert!(!in_recovery(data.path()));
        assert!(!is_stopping(data.path()));
        for (status, stopping) in [("ready   ", false), ("stopping", true)] {
            let lines = format!("42\n/data\n1\n5432\n/tmp\n*\n1 2\n{status}\n");
            std::fs::write(data.path().join("postmaster.pid"), lines).unwrap();
            assert_eq!(is_stopping(data.path()), stopping, "{status}");
        }
    }

    #[test]
    fn a_server_stands_at_the_end_of_what_it_finished_or_at_its_checkpoint() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("global")).unwrap();
        let mut bytes = vec![0; 8192];
        bytes[0] = 7;
        bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
        bytes[32..40].copy_from_slice(&0x0580_0000_u64.to_ne_bytes());
        bytes[48] = 2;
        std::fs::write(data.path().join("global/pg_control"), bytes).unwrap();
        for (name, timeline, lsn) in [
            ("000000020000000000000007", 2, 0x0800_0000),
            ("000000020000000000000003", 2, 0x0580_0000),
            // Left over from before its promotion: how long that timeline was says nothing of this one.
            ("000000010000000000000009", 2, 0x0580_0000),
            ("00000002.history", 2, 0x0580_0000),
        ] {
            let here = LocalServer {
                data_directory: data.path(),
                state_directory: data.path(),
                segment: Path::new("/nowhere"),
            };
            let own = own_position(here, name, timeline_in(name).unwrap()).unwrap();
            let found = (own.system_identifier, own.timeline, own.lsn.0);
            assert_eq!(found, (7, Timeline(timeline), lsn), "{name}");
        }
    }
}
