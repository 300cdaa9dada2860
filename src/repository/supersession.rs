//! Whether another node was promoted, by what this node remembers and by the archive.

use std::path::Path;
use std::time::Duration;

use super::{RepositoryError, Timelines};
use crate::model::{ServerPosition, Supersession, Timeline, TimelineHistory};
use crate::postgres::ServerIdentity;
use crate::store::StateFiles;

/// The look at what is forgotten.
const LOOK: Duration = Duration::from_secs(5);

/// The ancestors of the server's own timeline; `None` where its history file is not there.
pub(crate) fn own_history(data_directory: &Path, timeline: Timeline) -> Option<TimelineHistory> {
    if timeline == Timeline(1) {
        return Some(TimelineHistory::default());
    }
    let path = data_directory.join("pg_wal").join(timeline.history_file());
    std::fs::read_to_string(path).ok()?.parse().ok()
}

/// The proof that another node was promoted, by what this node remembers and by the archive; `None` where there is none.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn superseded(
    timelines: &Timelines,
    state: &StateFiles,
    own: &ServerPosition,
) -> Result<Option<Supersession>, RepositoryError> {
    superseding(timelines, state.supersession(), own).await
}

/// The same, by `remembered` and the archive.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn superseding(
    timelines: &Timelines,
    remembered: Option<Supersession>,
    own: &ServerPosition,
) -> Result<Option<Supersession>, RepositoryError> {
    if let Some(proof) = remembered.filter(|proof| proof.supersedes(own))
        && !timelines.is_forgotten(&proof, LOOK).await
    {
        return Ok(Some(proof));
    }
    timelines.superseding(own).await
}

/// Where `server` stands; `None` for a standby, which nothing supersedes.
pub(crate) fn position_of(
    data_directory: &Path,
    server: &ServerIdentity,
) -> Option<ServerPosition> {
    (!server.in_recovery).then_some(())?;
    Some(ServerPosition {
        system_identifier: server.system_identifier,
        timeline: server.timeline,
        lsn: server.position?,
        history: own_history(data_directory, server.timeline),
    })
}
