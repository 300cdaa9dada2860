//! Timelines that are not of the cluster whose backups a repository holds: they lead nowhere, and say nothing of its backups.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{Catalog, archived_name, backup_listing, stored_header};
use crate::model::{ArchiveFile, Timeline, TimelineHistory, WalSegment};
use crate::repository::{Repository, RepositoryError};
use crate::storage::Object;

/// The system identifiers of those who own `repository`: of its backups, and where there are none, of its first segment.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn owners(repository: &Repository) -> Result<Vec<u64>, RepositoryError> {
    let owners = backup_listing::identifiers(repository).await?;
    if !owners.is_empty() {
        return Ok(owners.into_iter().collect());
    }
    let mut first: Option<Object> = None;
    let prefix = repository.key("wal_005/");
    let each = |object: Object| {
        let name = object.key.strip_prefix(&prefix).and_then(archived_name);
        if !matches!(name, Some((_, ArchiveFile::Segment))) {
            return ControlFlow::Continue(());
        }
        first = Some(object);
        ControlFlow::Break(())
    };
    repository.bucket.list_each(&prefix, None, each).await?;
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let header = stored_header(&repository.bucket, &first).await?;
    Ok(header
        .map(|header| header.system_identifier)
        .into_iter()
        .collect())
}

impl Catalog {
    /// Reads from a segment of each timeline whose it is, unless a backup tells that or it was read before.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn read_owners(
        &mut self,
        repository: &Repository,
    ) -> Result<(), RepositoryError> {
        let told = self.told_by_backups();
        let all = self.wal.runs.keys().chain(self.wal.histories.keys());
        let unknown = |timeline: &Timeline| {
            !told.contains(timeline) && !self.wal.owners.contains_key(timeline)
        };
        let unknown: BTreeSet<Timeline> = all.copied().filter(unknown).collect();
        for timeline in unknown {
            let Some(name) = self.first_file_of(timeline) else {
                continue;
            };
            let stored = repository.stored_as(&name).await?;
            let Some(object) = stored.first() else {
                continue;
            };
            let header = stored_header(&repository.bucket, object).await?.ok();
            let owner = header.map(|header| header.system_identifier);
            self.wal.owners.insert(timeline, owner);
        }
        Ok(())
    }

    /// Its first segment; before there is one, what the promoted server stored of the timeline that it left.
    fn first_file_of(&self, timeline: Timeline) -> Option<String> {
        let size = self.wal.size;
        if let Some(run) = self.wal.runs.get(&timeline).and_then(|runs| runs.first()) {
            let number = run.first;
            return Some(WalSegment { timeline, number }.name(size));
        }
        let history = self.wal.histories.get(&timeline)?.as_ref().ok()?;
        let left = history.parent()?;
        let segment = WalSegment::holding(left.timeline, left.at, size);
        Some(format!("{}.partial", segment.name(size)))
    }

    /// Timelines on which a backup was taken.
    fn told_by_backups(&self) -> BTreeSet<Timeline> {
        let told = self.backups.iter().filter(|backup| {
            let sentinel = backup.sentinel.as_ref();
            sentinel.is_some_and(|sentinel| sentinel.system_identifier.is_some())
        });
        told.map(|backup| backup.timeline).collect()
    }

    /// Takes the histories that are not this cluster's out of what recoveries follow.
    pub(super) fn set_foreign_aside(&mut self) {
        let sentinels = self.backups.iter().filter_map(|b| b.sentinel.as_ref());
        let own: BTreeSet<u64> = sentinels.filter_map(|s| s.system_identifier).collect();
        if own.is_empty() {
            return;
        }
        let told = self.told_by_backups();
        let all = self.wal.runs.keys().chain(self.wal.histories.keys());
        let all: BTreeSet<Timeline> = all.copied().filter(|it| !told.contains(it)).collect();
        for timeline in all {
            if let Some(reason) = self.why_foreign(timeline, &own) {
                self.wal.histories.remove(&timeline);
                self.wal.foreign.insert(timeline, reason);
            } else if self.is_ahead(timeline) {
                self.wal.histories.remove(&timeline);
            }
        }
    }

    fn why_foreign(&self, timeline: Timeline, own: &BTreeSet<u64>) -> Option<String> {
        match self.wal.owners.get(&timeline) {
            Some(Some(owner)) if !own.contains(owner) => Some(format!(
                "timeline {timeline} is of another cluster: its WAL has the system identifier {owner}"
            )),
            Some(_) => None,
            None if self.wal.runs.contains_key(&timeline) => None,
            // Nothing of it is stored but the history.
            None => match self.wal.histories.get(&timeline)? {
                Err(reason) => Some(format!(
                    "timeline {timeline} has no WAL, and its history cannot be read: {reason}"
                )),
                Ok(history) => self.contradicted(history).map(|ancestor| {
                    format!(
                        "timeline {timeline} has no WAL, and timeline {ancestor} did not end where its history says"
                    )
                }),
            },
        }
    }

    /// Nothing of it is stored but a history that left its ancestor behind the end of the archive: the WAL up to there may
    /// still come, and until then it leads nowhere.
    fn is_ahead(&self, timeline: Timeline) -> bool {
        let known =
            self.wal.owners.contains_key(&timeline) || self.wal.runs.contains_key(&timeline);
        let history = self.wal.histories.get(&timeline);
        let history = history.and_then(|history| history.as_ref().ok());
        !known
            && history.is_some_and(|history| {
                history.0.iter().any(|switch| {
                    let left = WalSegment::holding(switch.timeline, switch.at, self.wal.size);
                    let newest = self.wal.newest(switch.timeline);
                    newest.is_some_and(|newest| left.number > newest.number + 1)
                })
            })
    }

    /// An ancestor in `history` of which WAL is stored behind the switch.
    fn contradicted(&self, history: &TimelineHistory) -> Option<Timeline> {
        let goes_on = history.0.iter().find(|switch| {
            let last = WalSegment::holding(switch.timeline, switch.at, self.wal.size);
            self.wal.newest(switch.timeline) > Some(last)
        });
        goes_on.map(|switch| switch.timeline)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::repository::catalog::{Backup, Stored, Wal};

    /// A backup of cluster 7 on timeline 1, segments 1 to 9 of it, and a second timeline that left in segment 7.
    fn catalog(owner: Option<Option<u64>>, segments_of_2: bool, history: &str) -> Catalog {
        let mut wal = Wal::default();
        let stored = Stored {
            size: 100,
            last_modified: Timestamp::UNIX_EPOCH,
        };
        let mut add = |timeline, number| {
            let timeline = Timeline(timeline);
            wal.add(WalSegment { timeline, number }, stored);
        };
        (1..=9).for_each(|number| add(1, number));
        if segments_of_2 {
            add(2, 7);
        }
        let history = history.parse().map_err(|_| "bad".to_owned());
        wal.histories.insert(Timeline(2), history);
        wal.owners.extend(owner.map(|owner| (Timeline(2), owner)));
        Catalog {
            backups: vec![Backup::sample(1, 1, r#","SystemIdentifier":7"#)],
            wal,
        }
    }

    #[test]
    fn a_timeline_of_another_cluster_is_followed_by_nothing() {
        let (early, late) = ("1\t0/70000A0\tr\n", "1\t0/90000A0\tr\n");
        for (what, owner, segments, history, aside) in [
            ("ours", Some(Some(7)), true, early, false),
            ("ours, by what it left", Some(Some(7)), false, early, false),
            ("another cluster's", Some(Some(8)), true, early, true),
            (
                "another's, by what it left",
                Some(Some(8)),
                false,
                late,
                true,
            ),
            ("encrypted", Some(None), true, early, false),
            ("only a history, and ours went on", None, false, early, true),
            ("only a history, where ours ends", None, false, late, false),
            ("only a history, of nothing", None, false, "nonsense", true),
            (
                "a history that is damaged",
                Some(Some(7)),
                true,
                "nonsense",
                false,
            ),
        ] {
            let mut catalog = catalog(owner, segments, history);
            catalog.set_foreign_aside();
            let gone = !catalog.wal.histories.contains_key(&Timeline(2));
            assert_eq!(gone, aside, "{what}: {:?}", catalog.wal.foreign);
            assert_eq!(
                catalog.wal.foreign.contains_key(&Timeline(2)),
                aside,
                "{what}"
            );
        }
    }

    #[test]
    fn a_history_that_runs_ahead_of_the_archive_is_not_followed_and_no_fault() {
        for (history, owner, followed) in [
            ("1\t0/B0000A0\tr\n", None, false),
            ("1\t0/B0000A0\tr\n", Some(Some(7)), true),
            ("1\t0/A0000A0\tr\n", None, true),
        ] {
            let mut catalog = catalog(owner, false, history);
            catalog.set_foreign_aside();
            assert_eq!(
                catalog.wal.histories.len(),
                usize::from(followed),
                "{history}"
            );
            assert!(catalog.wal.foreign.is_empty(), "{history}");
        }
    }

    #[test]
    fn its_first_segment_tells_whose_a_timeline_is_and_before_that_what_it_left() {
        let history = "1\t0/70000A0\tr\n";
        let name = |segments| catalog(None, segments, history).first_file_of(Timeline(2));
        assert_eq!(name(true).as_deref(), Some("000000020000000000000007"));
        assert_eq!(
            name(false).as_deref(),
            Some("000000010000000000000007.partial")
        );
    }
}
