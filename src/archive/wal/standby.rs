//! What a standby's archiver may let go: what the bucket holds, and what is proven to come no more.
//!
//! Until then the standby keeps the file, and stores it once promoted. Without a proof it waits, also where it could not look.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::WalError;
use super::waits::Waits;
use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline, WalSegment};
use crate::repository::ancestry::{self, Ancestry, Place};
use crate::repository::{Acknowledgement, HighWater, Repository, SharedError, segment_header};

/// How long a standby waits for the primary's upload before PostgreSQL asks again. Its archiver retries three times a
/// second apart and then each minute, so the usual race must be no failure.
const WAIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(500);
/// The primary stores most files within this time; only then is asked for more than the file itself.
const USUAL: Duration = Duration::from_secs(5);

/// Waits until the bucket holds `name`, or until it is proven that it can no longer come, and says why.
///
/// With `archive_mode=on` a standby would mark what it streams as archived, and a failover would lose what the primary
/// had not stored.
///
/// # Errors
/// [`WalError::Kept`] where the standby must keep it for now; otherwise when the bucket cannot be asked.
pub(in crate::archive) async fn await_stored(
    repository: &Repository,
    (here, name): (&Path, &str),
) -> Result<Option<NeverComes>, WalError> {
    let begun = Instant::now();
    let file = here.join("pg_wal").join(name);
    let bytes = std::fs::metadata(&file).map_or(0, |found| found.len());
    let usual = if is_older(&file, USUAL) {
        Duration::ZERO
    } else {
        USUAL
    };
    let mut why = None;
    loop {
        let whole = repository.whole_as(name, bytes).await?;
        if !whole.is_empty() {
            return Ok(None);
        }
        if why.is_none() && begun.elapsed() >= usual {
            match list_stored(repository, (here, name)).await? {
                Ok(never) => return Ok(Some(never)),
                Err(waits) => why = Some(waits),
            }
        }
        if let Some(why) = why.take_if(|_| begun.elapsed() > WAIT) {
            let name = name.to_owned();
            return Err(WalError::Kept { name, why });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the file at `path` was last written before.
fn is_older(path: &Path, age: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|found| found.modified());
    let elapsed = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    elapsed.is_ok_and(|elapsed| elapsed > age)
}

/// Why a file can come into the bucket no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) enum NeverComes {
    /// Retention has deleted what precedes this segment.
    Pruned { before: String },
    /// A person has acknowledged its loss.
    Acknowledged { by: String, why: String },
    /// The timeline that this server follows left the file's timeline before the file's end; or it does not lead here at all.
    Left {
        timeline: Timeline,
        to: Timeline,
        at: Option<Lsn>,
    },
}

impl fmt::Display for NeverComes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pruned { before } => write!(f, "retention has deleted all WAL before {before}"),
            Self::Acknowledged { by, why } => {
                write!(f, "{by} has acknowledged its loss: {why}")
            }
            Self::Left {
                timeline,
                to,
                at: Some(at),
            } => write!(
                f,
                "timeline {to} left timeline {timeline} at {at}, before the end of this file"
            ),
            Self::Left {
                timeline,
                to,
                at: None,
            } => write!(f, "timeline {timeline} does not lead to timeline {to}"),
        }
    }
}

/// What is known of a file that the bucket lacks.
struct Facts<'a> {
    name: &'a str,
    size: SegmentSize,
    /// The line of the server here.
    ancestry: Option<&'a Ancestry>,
    pruned_before: Option<&'a str>,
    acknowledgements: &'a [Acknowledgement],
    /// The bucket holds the segment by which the newer timeline replaces a `.partial` one.
    is_replaced: bool,
}

impl Facts<'_> {
    /// Why the file can come no more; `None` where that is not proven.
    fn judge(&self) -> Option<NeverComes> {
        self.left()
            .or_else(|| self.pruned())
            .or_else(|| self.acknowledged())
    }

    fn left(&self) -> Option<NeverComes> {
        let kind = ArchiveFile::of(self.name)?;
        let ancestry = self.ancestry?;
        let timeline = ancestry::timeline_of(self.name)?;
        let left = |at| NeverComes::Left {
            timeline,
            to: ancestry.timeline,
            at,
        };
        match ancestry.place(timeline) {
            Place::Current => None,
            Place::Elsewhere => Some(left(None)),
            Place::LeftAt(at) => {
                let never = match kind {
                    ArchiveFile::Segment => self.segment()?.end(self.size) > at,
                    // Written when another server was promoted, which archives it before any segment of its own timeline.
                    ArchiveFile::Partial => self.is_replaced,
                    // Only a primary of that timeline writes and stores one.
                    ArchiveFile::BackupHistory => true,
                    // Every node that follows has it, and the primary stores it.
                    ArchiveFile::TimelineHistory => false,
                };
                never.then(|| left(Some(at)))
            }
        }
    }

    fn pruned(&self) -> Option<NeverComes> {
        let before = self.pruned_before?;
        let precedes = match ArchiveFile::of(self.name)? {
            // Of timelines that retention has passed nothing is left to follow.
            ArchiveFile::TimelineHistory => self.name.get(..8)? < before.get(..8)?,
            _ => self.name.get(..24)? < before,
        };
        precedes.then(|| NeverComes::Pruned {
            before: before.to_owned(),
        })
    }

    fn acknowledged(&self) -> Option<NeverComes> {
        let name = self.name.get(..24)?;
        // An acknowledgement that has ended only raises the alarm again: what is lost is no less lost.
        let known = self.acknowledgements.iter().find(|known| {
            known.first.get(..8) == name.get(..8)
                && known.first.as_str() <= name
                && name <= known.last.as_str()
        })?;
        Some(NeverComes::Acknowledged {
            by: known.by.clone(),
            why: known.why.clone(),
        })
    }

    fn segment(&self) -> Option<WalSegment> {
        WalSegment::parse(self.name.get(..24)?, self.size).ok()
    }
}

/// Reads the facts, and judges: why the file can come no more, or what it waits for.
async fn list_stored(
    repository: &Repository,
    (here, name): (&Path, &str),
) -> Result<Result<NeverComes, Waits>, WalError> {
    let cluster = segment_header::cluster_in(here);
    let size = cluster.and_then(|cluster| segment_size(here, cluster));
    let (Some(cluster), Some(size)) = (cluster, size) else {
        return Ok(Err(Waits::Unknown));
    };
    let ancestry = ancestry::followed(here, cluster);
    let mut facts = Facts {
        name,
        size,
        ancestry: ancestry.as_ref(),
        pruned_before: None,
        acknowledgements: &[],
        is_replaced: false,
    };
    // Without a question to S3: after a failover there are many of these.
    if let Some(never) = facts.judge() {
        return Ok(Ok(never));
    }
    let replacement = facts.segment().zip(ancestry.as_ref());
    if let Some((segment, ancestry)) = replacement
        && ArchiveFile::of(name) == Some(ArchiveFile::Partial)
    {
        facts.is_replaced = is_replaced(repository, (segment, size), ancestry).await?;
    }
    let shared = &repository.shared;
    let pruned = shared.pruned((cluster, &repository.location)).await?;
    let before = pruned.and_then(|pruned| pruned.before);
    let known = shared
        .acknowledgements(&repository.location.to_string())
        .await?;
    facts.pruned_before = before.as_deref();
    facts.acknowledgements = &known;
    if let Some(never) = facts.judge() {
        return Ok(Ok(never));
    }
    let mark = match shared.high_water().await {
        Err(SharedError::Content { .. }) => None,
        mark => mark?,
    };
    let mark = mark.filter(|mark| {
        mark.system_identifier == cluster && mark.repository == repository.location.to_string()
    });
    Ok(Err(waits_for(name, mark.as_ref())))
}

/// Whether the bucket holds segment `segment` of the timeline that left its own.
async fn is_replaced(
    repository: &Repository,
    (segment, size): (WalSegment, SegmentSize),
    ancestry: &Ancestry,
) -> Result<bool, WalError> {
    let later = ancestry.history.0.iter().map(|switch| switch.timeline);
    let later = later.chain([ancestry.timeline]);
    for timeline in later.filter(|timeline| *timeline > segment.timeline) {
        let number = segment.number;
        let name = WalSegment { timeline, number }.name(size);
        let whole = repository.whole_as(&name, size.bytes()).await?;
        if !whole.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// By the primary's high-water mark: it archives a timeline's files in the order of their names, histories first.
fn waits_for(name: &str, mark: Option<&HighWater>) -> Waits {
    let Some(mark) = mark else {
        return Waits::Unknown;
    };
    let archived = mark.segment.clone();
    let of = |name: &str| name.get(..24).unwrap_or(name).to_owned();
    if of(name) <= of(&archived) {
        Waits::Passed { archived }
    } else {
        Waits::Primary { archived }
    }
}

/// The size of the segments in `pg_wal`, by the first that tells.
fn segment_size(here: &Path, cluster: u64) -> Option<SegmentSize> {
    let mut names = ancestry::segments(here);
    names.sort_unstable();
    let size = |name: &String| {
        let path = here.join("pg_wal").join(name);
        segment_header::size_of(name, &path, cluster)
    };
    names.iter().find_map(size)
}

#[cfg(test)]
#[path = "standby_tests.rs"]
mod tests;
