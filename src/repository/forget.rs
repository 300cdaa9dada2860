//! Has the cluster forget a timeline that is not its successor: a clone's, or one of a promotion that was taken back.

use jiff::Timestamp;

use super::{Repository, RepositoryError, Timelines, forget_catalog, set_aside_folder};
use crate::model::{ForgottenTimeline, Timeline, TimelineHistory};
use crate::postgres::{ControlFile, control_file};
use crate::store::StateFiles;

/// What became of it.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// Objects that were moved out of the archive.
    pub moved: usize,
    /// Where they are, below `set-aside/`.
    pub folder: String,
    /// Objects of the timeline that are in the archive still.
    pub left: usize,
    /// Why the other nodes do not learn of it; `None` where they do.
    pub here_only: Option<RepositoryError>,
}

/// What the peers that answer show of a timeline: `None` where none is on it; inside, its history where one knows that.
pub(crate) type ShownByPeers = Option<Option<TimelineHistory>>;

/// Has this cluster forget `timeline`, on all nodes; with `set_aside` its files are moved out of the archive, too.
///
/// # Errors
/// [`RepositoryError::Refused`] where this server is on the timeline or came through it, or where nothing shows such a timeline;
/// otherwise when the archive cannot be asked for one that only it may know, nothing can be kept on this node, or a file
/// cannot be moved.
pub(crate) async fn forget_timeline(
    (repository, files): (&Repository, &StateFiles),
    timeline: Timeline,
    (by, why): (&str, &str),
    (set_aside, shown): (bool, ShownByPeers),
) -> Result<Forgotten, RepositoryError> {
    let control = own_control_file(repository)?;
    if timeline <= control.timeline {
        return Err(RepositoryError::Refused {
            reason: format!(
                "this server is on timeline {}: it cannot forget timeline {timeline}",
                control.timeline
            ),
            hint: "`xdb timeline list` shows the timelines above this server's own".to_owned(),
        });
    }
    let kept = files.supersession();
    let kept = kept.filter(|proof| proof.timeline == timeline);
    let history = match &kept {
        Some(proof) => Some(proof.history.clone()),
        None => {
            let timelines = Timelines::of(repository, files.clone());
            choose_history(timeline, timelines.stored_history(timeline).await, shown)?
        }
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
        .map_err(|source| keep(files, source))?;
    if kept.is_some() {
        files
            .drop_supersession()
            .map_err(|source| keep(files, source))?;
    }
    let shared = repository.shared.forget_timeline(&forgotten).await;
    let folder = set_aside_folder(timeline, forgotten.at);
    let (moved, left) = match (&shared, set_aside) {
        (Ok(()), true) => (move_files(repository, files, timeline, &folder).await?, 0),
        (Ok(()), false) => (0, files_of(repository, timeline).await?.len()),
        (Err(_), _) => (0, 0),
    };
    Ok(Forgotten {
        moved,
        folder,
        left,
        here_only: shared.err().map(RepositoryError::from),
    })
}

/// Takes [`forget_timeline`] back, but for files that were moved and what other nodes have kept.
///
/// # Errors
/// When this node's files cannot be written, or the bucket cannot.
pub(crate) async fn remember_timeline(
    repository: &Repository,
    files: &StateFiles,
    timeline: Timeline,
) -> Result<(), RepositoryError> {
    let control = own_control_file(repository)?;
    let shared = &repository.shared;
    let identifier = control.system_identifier;
    let unshared = shared.remember_timeline(identifier, timeline).await;
    // After the bucket: the daemon keeps here what it reads there.
    let mut all = files.forgotten();
    all.retain(|one| one.timeline != timeline);
    files
        .keep_forgotten(&all)
        .map_err(|source| keep(files, source))?;
    Ok(unshared?)
}

/// As [`ShownByPeers`], of the archive.
type Shown = Result<ShownByPeers, RepositoryError>;

/// What is forgotten of `timeline`: a number alone would be a later promotion's, too.
fn choose_history(
    timeline: Timeline,
    archived: Shown,
    shown: ShownByPeers,
) -> Result<Option<TimelineHistory>, RepositoryError> {
    match (archived, shown) {
        (Ok(Some(Some(history))), _) | (_, Some(Some(history))) => Ok(Some(history)),
        (Err(error), _) => Err(error),
        (Ok(None), None) => Err(unknown(timeline)),
        (Ok(_), _) => Ok(None),
    }
}

fn unknown(timeline: Timeline) -> RepositoryError {
    RepositoryError::Refused {
        reason: format!(
            "neither the archive, nor a peer, nor a proof kept on this node shows timeline {timeline}"
        ),
        hint: "`xdb timeline list` shows the timelines that are known".to_owned(),
    }
}

fn own_control_file(repository: &Repository) -> Result<ControlFile, RepositoryError> {
    let directory = repository.data_directory();
    control_file(directory).ok_or_else(|| RepositoryError::NoControlFile {
        directory: directory.to_owned(),
    })
}

fn keep(files: &StateFiles, source: std::io::Error) -> RepositoryError {
    RepositoryError::State {
        directory: files.directory().to_owned(),
        source,
    }
}

/// The keys of all that the archive holds of `timeline`.
async fn files_of(
    repository: &Repository,
    timeline: Timeline,
) -> Result<Vec<String>, RepositoryError> {
    let prefix = repository.key(&format!("wal_005/{:08X}", timeline.0));
    let listed = repository.bucket.list(&prefix).await?;
    Ok(listed.into_iter().map(|object| object.key).collect())
}

async fn move_files(
    repository: &Repository,
    files: &StateFiles,
    timeline: Timeline,
    folder: &str,
) -> Result<usize, RepositoryError> {
    let keys = files_of(repository, timeline).await?;
    for key in &keys {
        repository.shared.set_aside(key, folder).await?;
    }
    forget_catalog(files.directory()).await;
    Ok(keys.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_something_shows_can_be_forgotten() {
        let history = |text: &str| text.parse::<TimelineHistory>().unwrap();
        let (archived, theirs) = (history("1\t0/5000000\tr\n"), history("1\t0/6000000\tr\n"));
        let away = || RepositoryError::NoAnswer {
            after: std::time::Duration::from_secs(5),
        };
        let choose = |archived, shown| choose_history(Timeline(2), archived, shown);
        for (what, found, shown, expected) in [
            ("a typo", Ok(None), None, Err("shows timeline 2")),
            ("away", Err(away()), None, Err("S3 does not answer")),
            (
                "away, a number",
                Err(away()),
                Some(None),
                Err("S3 does not answer"),
            ),
            (
                "away, a peer",
                Err(away()),
                Some(Some(theirs.clone())),
                Ok(Some(&theirs)),
            ),
            (
                "a peer",
                Ok(None),
                Some(Some(theirs.clone())),
                Ok(Some(&theirs)),
            ),
            ("WAL alone", Ok(Some(None)), None, Ok(None)),
            (
                "both",
                Ok(Some(Some(archived.clone()))),
                Some(Some(theirs.clone())),
                Ok(Some(&archived)),
            ),
        ] {
            match (choose(found, shown), expected) {
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{what}: {error}");
                }
                (Ok(chosen), Ok(expected)) => assert_eq!(chosen.as_ref(), expected, "{what}"),
                (chosen, _) => panic!("{what}: {chosen:?}"),
            }
        }
    }
}
