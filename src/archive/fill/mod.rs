//! Stores what the archive lacks and this node still holds: segments, and timelines' histories, that the primary took for
//! archived, such as after an `archive_command` that stored nothing.
//!
//! Only what belongs to the line of the primary's high-water mark and lies below that: what comes after is the primary's to
//! store. Each file is copied, verified and pushed from the copy, never over what is stored.

mod error;
mod line;
mod store;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::archive::role::in_recovery;
use crate::model::{ArchiveFile, Lsn, SegmentSize, ServerPosition, TimelineHistory};
use crate::process;
use crate::repository::ancestry::{self, Ancestry};
use crate::repository::{
    HighWater, NodeWorkLock, Repository, RepositoryError, Timelines, Work, catalog, is_whole,
    segment_header,
};
use crate::store::StateFiles;
pub use error::FillError;
use line::{ArchivedLine, left_at};

/// What a run found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Stored now; in a dry run what would be.
    pub stored: Vec<String>,
    /// What the archive lacks and this node holds, and why it is not stored.
    pub kept: Vec<Kept>,
    /// Why nothing could be looked for; `None` where all was.
    pub idle: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub name: String,
    pub reason: String,
}

const WORK: Work = Work {
    name: "archive-fill",
    file: "fill.lock",
    other: "another `xdb archive fill` runs on this node",
    hint: "wait for its end",
};

/// Looks for what the archive lacks and `pg_wal` of this node holds, and stores it unless `dry_run`.
///
/// # Errors
/// [`RepositoryError::Refused`] for root; [`RepositoryError::Lock`] while another run is at work here; otherwise when the bucket cannot be asked, or a push fails.
pub async fn fill(
    repository: &Repository,
    state: &StateFiles,
    dry_run: bool,
) -> Result<Filled, FillError> {
    if process::runs_as_root() {
        return Err(RepositoryError::Refused {
            reason: "root's files would block the database's user".to_owned(),
            hint: "run it as the database's user: runuser -u postgres -- xdb archive fill"
                .to_owned(),
        }
        .into());
    }
    let directory = state.directory().join("fill");
    let _lock = NodeWorkLock::take(state.directory(), WORK)?;
    let place = FillContext {
        repository,
        state,
        staging: directory,
    };
    let (candidates, cluster) = match place.find().await? {
        Ok(found) => found,
        Err(idle) => {
            return Ok(Filled {
                idle: Some(idle),
                ..Filled::default()
            });
        }
    };
    let mut filled = Filled::default();
    for candidate in candidates {
        let stored = place.store(&candidate, cluster, dry_run).await;
        let _ = std::fs::remove_dir_all(&place.staging);
        match stored? {
            Ok(()) => filled.stored.push(candidate.name),
            Err(reason) => filled.kept.push(Kept {
                name: candidate.name,
                reason,
            }),
        }
    }
    Ok(filled)
}

/// How many of the segments from `first` to `last`, both included, `pg_wal` of this node holds.
pub fn held_here(data_directory: &Path, (first, last): (&str, &str)) -> usize {
    let names = ancestry::segments(data_directory);
    let held = names
        .iter()
        .filter(|name| (first..=last).contains(&name.as_str()));
    held.count()
}

/// A whole file of this node's that the archive lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// What a history must say; `None` for a segment.
    history: Option<TimelineHistory>,
}

struct FillContext<'a> {
    repository: &'a Repository,
    state: &'a StateFiles,
    staging: PathBuf,
}

impl FillContext<'_> {
    fn data(&self) -> &Path {
        self.repository.data_directory()
    }

    /// What may be stored, and the cluster's system identifier; or why nothing is looked for.
    async fn find(&self) -> Result<Result<(Vec<Candidate>, u64), String>, FillError> {
        let Some(cluster) = segment_header::cluster_in(self.data()) else {
            let data = self.data().display();
            return Ok(Err(format!("{data} is no data directory")));
        };
        let mut names = whole_files(self.data());
        let segments: Vec<&String> = names.iter().filter(|name| name.len() == 24).collect();
        let size = segments.iter().find_map(|name| {
            let path = self.data().join("pg_wal").join(name);
            segment_header::size_of(name, &path, cluster)
        });
        let Some(size) = size else {
            return Ok(Err("pg_wal holds no whole segment".to_owned()));
        };
        let line = match self.line(cluster, size).await? {
            Ok(line) => line,
            Err(reason) => return Ok(Err(reason)),
        };
        names.retain(|name| line.wants(name));
        let missing = self.missing(&names, size).await?.into_iter();
        let candidates = missing.map(|name| Candidate {
            history: line.history_of(&name).filter(|_| name.len() < 24),
            name,
        });
        Ok(Ok((candidates.collect(), cluster)))
    }

    /// The line that leads to the primary's high-water mark; or why it is not known.
    async fn line(
        &self,
        cluster: u64,
        size: SegmentSize,
    ) -> Result<Result<ArchivedLine, String>, FillError> {
        let shared = &self.repository.shared;
        let mark = shared.high_water().await?.filter(|mark| {
            mark.system_identifier == cluster
                && mark.repository == self.repository.location.to_string()
        });
        let Some(HighWater { timeline, lsn, .. }) = mark else {
            let reason = "no primary's daemon has set a high-water mark: how far it has archived is not known";
            return Ok(Err(reason.to_owned()));
        };
        let ancestry = match ancestry::of_timeline(self.data(), timeline) {
            Some(ancestry) => Some(ancestry),
            None => ancestry::stored(self.repository, timeline).await?,
        };
        let Some(ancestry) = ancestry else {
            return Ok(Err(format!(
                "the history of timeline {timeline} cannot be read"
            )));
        };
        let pruned = shared.pruned((cluster, &self.repository.location)).await?;
        Ok(self
            .superseded_at(cluster, &ancestry)
            .await?
            .map(|superseded_at| ArchivedLine {
                ancestry,
                archived: lsn,
                superseded_at,
                pruned_before: pruned.and_then(|pruned| pruned.before),
                size,
            }))
    }

    /// Where a newer timeline in the archive left that of `line`; or why that is not known.
    async fn superseded_at(
        &self,
        cluster: u64,
        line: &Ancestry,
    ) -> Result<Result<Option<Lsn>, String>, FillError> {
        let own = ServerPosition {
            system_identifier: cluster,
            timeline: line.timeline,
            // Wherever it left: a server that is on the old one may have written on.
            lsn: Lsn(u64::MAX),
            history: Some(line.history.clone()),
        };
        let timelines = Timelines::of(self.repository, self.state.clone());
        Ok(left_at(&own, &timelines.newer(&own).await?))
    }

    /// The `names` that the bucket does not hold whole; a segment has `size`.
    async fn missing(&self, names: &[String], size: SegmentSize) -> Result<Vec<String>, FillError> {
        let (names, histories): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| ArchiveFile::of(name) == Some(ArchiveFile::Segment));
        let mut missing: BTreeSet<&str> = names.iter().copied().collect();
        for history in histories {
            let stored = self.repository.stored_as(history).await?;
            let is_stored = stored.iter().any(|object| object.size > 0);
            missing.extend(Some(history).filter(|_| !is_stored));
        }
        let prefix = self.repository.key("wal_005/");
        let timelines: BTreeSet<&str> = names.iter().filter_map(|name| name.get(..8)).collect();
        for timeline in timelines {
            let of = || {
                names
                    .iter()
                    .copied()
                    .filter(|name| name.starts_with(timeline))
            };
            let (Some(first), Some(last)) = (of().min(), of().max()) else {
                continue;
            };
            // What sorts behind the name begins with it, as all its compressions do.
            let last = format!("{last}~");
            let each = |object: crate::storage::Object| {
                let name = object.key.strip_prefix(&prefix).unwrap_or_default();
                if name > last.as_str() {
                    return ControlFlow::Break(());
                }
                if !is_whole(&object, size.bytes()) {
                    return ControlFlow::Continue(());
                }
                let kept = catalog::COMPRESSIONS.iter().find_map(|suffix| {
                    let name = name.strip_suffix(suffix)?;
                    name.strip_suffix('.')
                });
                missing.remove(kept.unwrap_or(name));
                ControlFlow::Continue(())
            };
            // Just before the first one, which may be stored without compression.
            let after = format!("{prefix}{}", &first[..23]);
            let within = format!("{prefix}{timeline}");
            self.repository
                .bucket
                .list_each(&within, Some(after), each)
                .await?;
        }
        Ok(missing.into_iter().map(str::to_owned).collect())
    }
}

/// The segments in `pg_wal` that PostgreSQL has marked for the archive, which it does when they are complete, and the
/// histories that still wait.
///
/// A primary's `.ready` ones are its archiver's to store.
fn whole_files(data_directory: &Path) -> Vec<String> {
    let is_standby = in_recovery(data_directory);
    let marks = std::fs::read_dir(data_directory.join("pg_wal/archive_status"));
    let marks = marks.into_iter().flatten().flatten();
    let names = marks.filter_map(|mark| mark.file_name().into_string().ok());
    let whole = |mark: String| {
        let (name, state) = mark.rsplit_once('.')?;
        let kind = ArchiveFile::of(name)?;
        let wanted = match (kind, state) {
            (ArchiveFile::Segment, "done") => true,
            (ArchiveFile::Segment | ArchiveFile::TimelineHistory, "ready") => is_standby,
            _ => false,
        };
        let path = data_directory.join("pg_wal").join(name);
        (wanted && path.is_file()).then(|| name.to_owned())
    };
    let mut whole: Vec<String> = names.filter_map(whole).collect();
    whole.sort_unstable();
    whole.dedup();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_has_marked_is_whole() {
        let data = tempfile::tempdir().unwrap();
        let status = data.path().join("pg_wal/archive_status");
        std::fs::create_dir_all(&status).unwrap();
        let segment = |number: u32| format!("0000000100000000{number:08X}");
        for (name, mark) in [
            (segment(3), "done"),
            (segment(4), "ready"),
            ("00000002.history".to_owned(), "ready"),
            (format!("{}.partial", segment(5)), "done"),
        ] {
            std::fs::write(data.path().join("pg_wal").join(&name), "").unwrap();
            std::fs::write(status.join(format!("{name}.{mark}")), "").unwrap();
        }
        // Its file is gone; it has no mark.
        std::fs::write(status.join(format!("{}.done", segment(6))), "").unwrap();
        std::fs::write(data.path().join("pg_wal").join(segment(7)), "").unwrap();
        assert_eq!(whole_files(data.path()), [segment(3)]);
        std::fs::write(data.path().join("standby.signal"), "").unwrap();
        let all = [segment(3), segment(4), "00000002.history".to_owned()];
        assert_eq!(whole_files(data.path()), all);
    }
}
