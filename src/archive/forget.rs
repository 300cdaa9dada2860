//! Has the cluster forget a timeline that is not its successor: a clone's, or one of a promotion that was taken back.

use jiff::Timestamp;

use super::{ArchiveError, Timelines};
use crate::config::Config;
use crate::model::{ForgottenTimeline, Lsn, ServerPosition, Timeline, TimelineHistory};
use crate::postgres::{ControlFile, control_file};
use crate::storage::{Bucket, Shared};
use crate::store::StateFiles;

/// What became of it.
#[derive(Debug)]
pub struct Forgotten {
    pub timeline: ForgottenTimeline,
    /// Objects that were moved out of the archive.
    pub moved: usize,
    /// Objects of the timeline that are in the archive still.
    pub left: usize,
    /// Why the other nodes do not learn of it; `None` where they do.
    pub here_only: Option<ArchiveError>,
}

/// Has this cluster forget `timeline`, on all nodes; with `set_aside` its files are moved out of the archive, too.
///
/// # Errors
/// [`ArchiveError::Refused`] where this server is on the timeline or came through it; otherwise when nothing can be kept on
/// this node, or a file cannot be moved.
pub async fn forget_timeline(
    config: &Config,
    timeline: Timeline,
    (by, why): (&str, &str),
    set_aside: bool,
) -> Result<Forgotten, ArchiveError> {
    let control = own_control_file(config)?;
    if timeline <= control.timeline {
        return Err(ArchiveError::Refused {
            reason: format!(
                "this server is on timeline {}: it cannot forget timeline {timeline}",
                control.timeline
            ),
            hint: "`xdb timeline list` shows the timelines above this server's own".to_owned(),
        });
    }
    let files = StateFiles::of(&config.node.state_directory);
    let kept = files.supersession();
    let kept = kept.filter(|proof| proof.timeline == timeline);
    let history = match &kept {
        Some(proof) => Some(proof.history.clone()),
        None => archived_history(config, &control, timeline).await,
    };
    let forgotten = ForgottenTimeline {
        v: 1,
        system_identifier: control.system_identifier,
        timeline,
        history,
        by: by.to_owned(),
        why: why.to_owned(),
        at: Timestamp::now(),
    };
    let mut all = files.forgotten();
    all.retain(|one| one.timeline != timeline);
    all.push(forgotten.clone());
    files
        .keep_forgotten(&all)
        .map_err(|source| keep(config, source))?;
    if kept.is_some() {
        files
            .drop_supersession()
            .map_err(|source| keep(config, source))?;
    }
    let shared = share(config, &forgotten).await;
    let (moved, left) = match (&shared, set_aside) {
        (Ok(()), true) => (move_files(config, timeline).await?, 0),
        (Ok(()), false) => (0, files_of(config, timeline).await?.1.len()),
        (Err(_), _) => (0, 0),
    };
    Ok(Forgotten {
        timeline: forgotten,
        moved,
        left,
        here_only: shared.err(),
    })
}

/// Takes [`forget_timeline`] back, but for files that were moved and what other nodes have kept.
///
/// # Errors
/// When this node's files cannot be written, or the bucket cannot.
pub async fn remember_timeline(config: &Config, timeline: Timeline) -> Result<(), ArchiveError> {
    let control = own_control_file(config)?;
    let files = StateFiles::of(&config.node.state_directory);
    let mut all = files.forgotten();
    all.retain(|one| one.timeline != timeline);
    files
        .keep_forgotten(&all)
        .map_err(|source| keep(config, source))?;
    let shared = Shared::open(config).await?;
    let identifier = control.system_identifier;
    Ok(shared.remember_timeline(identifier, timeline).await?)
}

fn own_control_file(config: &Config) -> Result<ControlFile, ArchiveError> {
    let directory = &config.postgres.data_directory;
    control_file(directory).ok_or_else(|| ArchiveError::NoControlFile {
        directory: directory.clone(),
    })
}

fn keep(config: &Config, source: std::io::Error) -> ArchiveError {
    ArchiveError::State {
        directory: config.node.state_directory.clone(),
        source,
    }
}

async fn share(config: &Config, forgotten: &ForgottenTimeline) -> Result<(), ArchiveError> {
    let shared = Shared::open(config).await?;
    Ok(shared.forget_timeline(forgotten).await?)
}

async fn archived_history(
    config: &Config,
    control: &ControlFile,
    timeline: Timeline,
) -> Option<TimelineHistory> {
    let own = ServerPosition {
        system_identifier: control.system_identifier,
        timeline: control.timeline,
        lsn: Lsn(u64::MAX),
        history: None,
    };
    let newer = Timelines::open(config).await.ok()?.newer(&own, &[]).await;
    let mut newer = newer.ok()?.into_iter();
    newer.find(|it| it.timeline == timeline)?.history
}

/// The keys of all that the archive holds of `timeline`.
async fn files_of(
    config: &Config,
    timeline: Timeline,
) -> Result<(Shared, Vec<String>), ArchiveError> {
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let prefix = repository.key(&format!("wal_005/{:08X}", timeline.0));
    let listed = bucket.list(&prefix).await?;
    let keys = listed.into_iter().map(|object| object.key).collect();
    Ok((Shared::open(config).await?, keys))
}

async fn move_files(config: &Config, timeline: Timeline) -> Result<usize, ArchiveError> {
    let (shared, keys) = files_of(config, timeline).await?;
    for key in &keys {
        shared.set_aside(key, timeline).await?;
    }
    super::forget_catalog(config).await;
    Ok(keys.len())
}
