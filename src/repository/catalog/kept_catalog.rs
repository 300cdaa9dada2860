//! A kept listing of a repository, and the few requests that bring it up to date.
//!
//! It does not show a deletion before all is listed again, at least once a day. The WAL that the newest backups cannot be
//! restored without is listed each time.

use std::ops::ControlFlow;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::object_versions::{AT_ONCE, ObjectVersions, tag_of};
use super::read::parse_stored_history;
use super::segment_size::{self, SizedBy};
use super::wal::{Stored, archived_name, least_stored};
use super::{Backup, Catalog, SegmentRange, Wal, backup_listing};
use crate::model::{ArchiveFile, Timeline, WalSegment};
use crate::repository::{Repository, RepositoryError};
use crate::storage::{Cause, Object, StorageError};

/// Of another version, a kept one is not read.
const VERSION: u32 = 4;
/// All is listed again after this time.
const WHOLE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Beyond so many holes, one listing of all is the quicker one.
const MOST_HOLES: usize = 8;
/// Backups whose own WAL is looked at each time, the newest ones.
const MOST_LOOKED_AT: usize = 8;

/// A repository as it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptCatalog {
    v: u32,
    /// When all of it was last listed.
    listed_at: Timestamp,
    pub catalog: Catalog,
    /// What tells the size of its segments.
    sized_by: SizedBy,
    #[serde(rename = "seen")]
    versions: ObjectVersions,
}

impl KeptCatalog {
    /// One that was kept as [`KeptCatalog::to_json`] gave it; `None` for what another version kept, or what is damaged.
    pub(crate) fn of_json(json: &str) -> Option<Self> {
        let kept: Self = serde_json::from_str(json).ok()?;
        (kept.v == VERSION).then_some(kept)
    }

    /// What was read, without what is of another cluster.
    pub(crate) fn into_catalog(self) -> Catalog {
        let mut catalog = self.catalog;
        catalog.set_foreign_aside();
        catalog
    }

    /// Whether a restore test has failed since all of it was listed.
    pub(crate) fn is_older_than_a_failure(&self) -> bool {
        let tests = self.catalog.backups.iter();
        let mut tests = tests.filter_map(|backup| backup.tests.newest.as_ref());
        tests.any(|test| !test.passed && test.at >= self.listed_at)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values")
    }

    /// Reads all of `repository`.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(crate) async fn read(
        repository: &Repository,
        now: Timestamp,
    ) -> Result<Self, RepositoryError> {
        let mut snapshot = Self {
            v: VERSION,
            listed_at: now,
            catalog: Catalog {
                backups: Vec::new(),
                wal: Wal::default(),
            },
            sized_by: SizedBy::Nothing,
            versions: ObjectVersions::new(),
        };
        snapshot.read_backups(repository).await?;
        let backups = &snapshot.catalog.backups;
        (snapshot.catalog.wal.size, snapshot.sized_by) =
            segment_size::find(repository, backups).await?;
        snapshot.read_wal(repository, vec![(None, None)]).await?;
        snapshot.catalog.read_owners(repository).await?;
        Ok(snapshot)
    }

    /// Reads what came to `repository` since; all of it where this one is too old, or was overtaken by a deletion.
    ///
    /// Where nothing came, that is two listings of a page each, one more for each of the newest backups, and one for each hole that
    /// a recovery would fall in.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(crate) async fn refresh(
        mut self,
        repository: &Repository,
        now: Timestamp,
    ) -> Result<Self, RepositoryError> {
        if self.may_be_caught_up(now) && self.catch_up(repository).await? {
            return Ok(self);
        }
        Self::read(repository, now).await
    }

    /// One of the future was kept by a clock that was wrong.
    fn may_be_caught_up(&self, now: Timestamp) -> bool {
        (SignedDuration::ZERO..WHOLE_AFTER).contains(&now.duration_since(self.listed_at))
    }

    /// `false` where what is known does not hold any more.
    async fn catch_up(&mut self, repository: &Repository) -> Result<bool, RepositoryError> {
        let known: Vec<String> = self
            .catalog
            .backups
            .iter()
            .map(|b| b.name.clone())
            .collect();
        self.read_backups(repository).await?;
        // Retention deletes WAL together with a backup, which a listing of new objects does not show.
        let deleted = known.iter().any(|name| self.catalog.backup(name).is_none());
        let same_size = match self.sized_by {
            SizedBy::Header => true,
            SizedBy::Names => {
                segment_size::of_names(&self.catalog.backups) == Some(self.catalog.wal.size)
            }
            SizedBy::Nothing => false,
        };
        if deleted || !same_size || self.lost_own_wal(repository).await? {
            return Ok(false);
        }
        let newest = self.catalog.wal.runs.last_key_value();
        let newest = newest.and_then(|(timeline, _)| self.catalog.wal.newest(*timeline));
        // Those that are still there are in the tail, or in a hole.
        self.catalog.wal.cut.clear();
        let tail = (newest.map(|newest| self.key_after(newest)), None);
        self.read_wal(repository, vec![tail]).await?;
        // Segments do not come in order, and the end of a timeline may come after the next one began.
        let (spans, histories) = self.catalog.wanted();
        if spans.len() + histories.len() > MOST_HOLES {
            return Ok(false);
        }
        let holes = spans.into_iter().map(|span| self.around(span));
        let holes = holes.chain(histories.into_iter().map(around_history));
        let holes = holes.collect();
        self.read_wal(repository, holes).await?;
        self.catalog.read_owners(repository).await?;
        Ok(true)
    }

    async fn read_backups(&mut self, repository: &Repository) -> Result<(), StorageError> {
        let known = &self.catalog.backups;
        self.catalog.backups = backup_listing::read(repository, known, &mut self.versions).await?;
        Ok(())
    }

    /// Takes in what is listed in `wal_005/` between each pair of names.
    async fn read_wal(
        &mut self,
        repository: &Repository,
        ranges: Vec<Range>,
    ) -> Result<(), StorageError> {
        let prefix = repository.key("wal_005/");
        let segment_bytes = self.segment_bytes();
        let mut histories: Vec<(Timeline, Object)> = Vec::new();
        for (after, until) in ranges {
            let after = after.map(|name| format!("{prefix}{name}"));
            let wal = &mut self.catalog.wal;
            let each = |object: Object| {
                let Some(name) = object.key.strip_prefix(&prefix) else {
                    return ControlFlow::Continue(());
                };
                if until.as_deref().is_some_and(|until| name > until) {
                    return ControlFlow::Break(());
                }
                if let Some(timeline) = take(wal, name, &object, segment_bytes) {
                    histories.push((timeline, object));
                }
                ControlFlow::Continue(())
            };
            repository.bucket.list_each(&prefix, after, each).await?;
        }
        let (versions, known) = (&mut self.versions, &self.catalog.wal.histories);
        histories.retain(|(timeline, object)| {
            let tag = tag_of(object);
            let is_new = versions.insert(timeline.history_file(), tag.clone()) != Some(tag);
            is_new || !known.contains_key(timeline)
        });
        let reads = histories.iter().map(|(timeline, object)| async move {
            match repository.bucket.get(&object.key).await {
                // Deleted since the listing.
                Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
                Err(error) => Err(error),
                Ok(stored) => Ok(Some((
                    *timeline,
                    parse_stored_history(&object.key, &stored),
                ))),
            }
        });
        // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
        let reads: Vec<_> = reads.map(Box::pin).collect();
        let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        self.catalog
            .wal
            .histories
            .extend(read.into_iter().flatten());
        Ok(())
    }

    /// Without their size nothing but an empty one is known to be cut.
    fn segment_bytes(&self) -> u64 {
        match self.sized_by {
            SizedBy::Nothing => 1,
            SizedBy::Header | SizedBy::Names => self.catalog.wal.size.bytes(),
        }
    }

    /// Whether the bucket lacks WAL that one of the newest backups needs to be whole, and that was there.
    async fn lost_own_wal(&self, repository: &Repository) -> Result<bool, StorageError> {
        let prefix = &repository.key("wal_005/");
        let mut newest: Vec<&Backup> = self.catalog.backups.iter().collect();
        newest.sort_by_key(|backup| std::cmp::Reverse(backup.finished_at));
        let size = self.catalog.wal.size;
        let spans = newest.into_iter().filter_map(|backup| backup.own_wal(size));
        let looks = spans.take(MOST_LOOKED_AT).map(|span| async move {
            let (after, until) = self.around(span);
            let mut there = Wal {
                size,
                ..Wal::default()
            };
            let each = |object: Object| {
                let name = object.key.strip_prefix(prefix.as_str()).unwrap_or_default();
                if until.as_deref().is_some_and(|until| name > until) {
                    return ControlFlow::Break(());
                }
                take(&mut there, name, &object, self.segment_bytes());
                ControlFlow::Continue(())
            };
            let after = after.map(|name| format!("{prefix}{name}"));
            repository.bucket.list_each(prefix, after, each).await?;
            let of = |wal: &Wal| {
                wal.stored_numbers(span.timeline, span.first, span.last)
                    .segments
            };
            Ok(of(&there) < of(&self.catalog.wal))
        });
        // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
        let looks: Vec<_> = looks.map(Box::pin).collect();
        let lost: Vec<bool> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        Ok(lost.contains(&true))
    }

    /// What sorts behind all that belongs to `segment`, and before the next one.
    fn key_after(&self, segment: WalSegment) -> String {
        format!("{}/", segment.name(self.catalog.wal.size))
    }

    fn around(&self, span: SegmentRange) -> Range {
        let segment = |number| {
            let timeline = span.timeline;
            WalSegment { timeline, number }
        };
        let before = span.first.checked_sub(1).map(segment);
        let after = before.map_or_else(
            || format!("{:08X}", span.timeline.0),
            |before| self.key_after(before),
        );
        (Some(after), Some(self.key_after(segment(span.last))))
    }
}

/// Reads what `repository` holds, all of it.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn read(repository: &Repository) -> Result<Catalog, RepositoryError> {
    let snapshot = KeptCatalog::read(repository, Timestamp::now()).await?;
    Ok(snapshot.into_catalog())
}

/// Names in `wal_005/`: after the first, up to the second.
type Range = (Option<String>, Option<String>);

fn around_history(timeline: Timeline) -> Range {
    let digits = format!("{:08X}", timeline.0);
    let until = format!("{digits}0");
    (Some(digits), Some(until))
}

/// Takes in a segment of `segment_bytes` bytes; of a history gives the timeline.
fn take(wal: &mut Wal, name: &str, object: &Object, segment_bytes: u64) -> Option<Timeline> {
    let (name, kind) = archived_name(name)?;
    match kind {
        ArchiveFile::Segment => {
            let segment = WalSegment::parse(name, wal.size).ok()?;
            if object.size < least_stored(&object.key, segment_bytes) {
                if wal.get(segment).is_none() {
                    wal.cut.insert(name.to_owned(), object.size);
                }
                return None;
            }
            wal.cut.remove(name);
            let stored = Stored {
                size: object.size,
                last_modified: object.last_modified,
            };
            wal.add(segment, stored);
            None
        }
        ArchiveFile::TimelineHistory => {
            let timeline = u32::from_str_radix(&name[..8], 16).ok()?;
            Some(Timeline(timeline))
        }
        ArchiveFile::Partial | ArchiveFile::BackupHistory => None,
    }
}

#[cfg(test)]
#[path = "kept_catalog_tests.rs"]
mod tests;
