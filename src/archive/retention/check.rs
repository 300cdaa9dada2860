//! Holds a deletion against the plan: what the program says it would delete, and what the bucket holds afterwards. Pure.

use super::{ArchiveState, PrunePlan, WalPlan};
use crate::model::{Lsn, SegmentSize, WalSegment};
use crate::repository::catalog::Catalog;

const SENTINEL: &str = "_backup_stop_sentinel.json";

/// The backup that `path`, which is relative to `basebackups_005/`, belongs to.
pub(super) fn backup_of(path: &str) -> &str {
    let name = path.split('/').next().unwrap_or(path);
    name.strip_suffix(SENTINEL).unwrap_or(name)
}

impl PrunePlan {
    /// Whether the plan deletes `object`, named relative to the repository, or to `basebackups_005/`.
    ///
    /// What it does not know it keeps.
    pub(super) fn deletes(&self, object: &str, size: SegmentSize) -> bool {
        if let Some(file) = object.strip_prefix("wal_005/") {
            // A segment, or its .partial or .backup file.
            let segment = file
                .get(..24)
                .and_then(|it| WalSegment::parse(it, size).ok());
            return segment.is_some_and(|segment| self.deletes_wal(segment));
        }
        let path = object.strip_prefix("basebackups_005/").unwrap_or(object);
        self.deleted().any(|it| it.name == backup_of(path))
    }

    fn deletes_wal(&self, segment: WalSegment) -> bool {
        let older = self
            .before
            .as_ref()
            .is_some_and(|(_, start)| segment < *start);
        let kept = self.wal.iter().any(|it| {
            it.keep
                && it.timeline == segment.timeline
                && (it.numbers.0..=it.numbers.1).contains(&segment.number)
        });
        older && !kept
    }
}

/// What the bucket holds less or more than the plan; empty where it is as planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// What the plan keeps and is gone.
    pub(super) gone: Vec<String>,
    /// What the plan deletes and is still there.
    pub(super) left: Vec<String>,
}

/// Compares what is there after a deletion with `plan`, which was made from `before`.
pub(super) fn compare(plan: &PrunePlan, before: &ArchiveState, after: &ArchiveState) -> Difference {
    let mut difference = Difference::default();
    for backup in &plan.backups {
        let (was, is) = (
            before.folders.get(&backup.name),
            after.folders.get(&backup.name),
        );
        let objects = was.into_iter().flat_map(|folder| &folder.objects);
        if backup.action.keeps() {
            let is_there = |object: &&String| is.is_some_and(|it| it.objects.contains(*object));
            let gone = objects.filter(|object| !is_there(object));
            difference
                .gone
                .extend(gone.map(|object| format!("basebackups_005/{object}")));
        } else if is.is_some() {
            difference.left.push(backup.name.clone());
        }
    }
    for range in &plan.wal {
        match range.keep {
            true => difference.gone.extend(lost(range, &after.catalog)),
            false => difference.left.extend(left(range, &after.catalog)),
        }
    }
    let histories = before.catalog.wal.histories.keys();
    let gone = histories.filter(|it| !after.catalog.wal.histories.contains_key(*it));
    difference.gone.extend(gone.map(|it| it.history_file()));
    difference
}

fn lost(range: &WalPlan, after: &Catalog) -> Vec<String> {
    let (size, (first, last)) = (after.wal.size, range.numbers);
    let (from, to) = (Lsn(first * size.bytes()), Lsn((last + 1) * size.bytes()));
    let missing = after.wal.missing_between(range.timeline, from, to);
    missing.into_iter().map(|span| span.named(size)).collect()
}

fn left(range: &WalPlan, after: &Catalog) -> Vec<String> {
    let (first, last) = range.numbers;
    let stored = after.wal.stored_between(range.timeline, first, last);
    let size = after.wal.size;
    stored
        .into_iter()
        .map(|(span, _)| span.named(size))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::retention::{Action, BackupPlan};
    use crate::model::Timeline;

    fn backup(name: &str, action: Action) -> BackupPlan {
        BackupPlan {
            name: name.to_owned(),
            action,
            reason: String::new(),
            bytes: 0,
        }
    }

    #[test]
    fn the_programs_list_may_name_only_what_the_plan_deletes() {
        let (old, own, new) = (
            "base_000000010000000000000002",
            "base_000000010000000000000005",
            "base_000000010000000000000008",
        );
        let kept = |first, last| WalPlan {
            timeline: Timeline(1),
            first: String::new(),
            last: String::new(),
            keep: true,
            reason: String::new(),
            bytes: 0,
            numbers: (first, last),
        };
        let start = WalSegment {
            timeline: Timeline(1),
            number: 8,
        };
        let plan = PrunePlan {
            backups: vec![
                backup(old, Action::Delete),
                backup(own, Action::Mark),
                backup(new, Action::Keep),
            ],
            wal: vec![kept(5, 5), kept(8, 20)],
            before: Some((new.to_owned(), start)),
        };
        for (object, deletes) in [
            (
                format!("basebackups_005/{old}/tar_partitions/part_001.tar.lz4"),
                true,
            ),
            (
                format!("basebackups_005/{old}_backup_stop_sentinel.json"),
                true,
            ),
            // `delete target` of wal-g leaves the folder out.
            (format!("{old}/metadata.json"), true),
            (format!("basebackups_005/{own}/metadata.json"), false),
            (
                format!("basebackups_005/{new}_backup_stop_sentinel.json"),
                false,
            ),
            (
                format!("basebackups_005/{old}_D_000000010000000000000001/metadata.json"),
                false,
            ),
            ("wal_005/000000010000000000000002.lz4".to_owned(), true),
            (
                "wal_005/000000010000000000000007.00000028.backup.lz4".to_owned(),
                true,
            ),
            ("wal_005/000000010000000000000005.lz4".to_owned(), false),
            ("wal_005/000000010000000000000008.lz4".to_owned(), false),
            ("wal_005/000000020000000000000002.lz4".to_owned(), false),
            ("wal_005/00000002.history.lz4".to_owned(), false),
            ("xdb/main/locks/prune".to_owned(), false),
        ] {
            assert_eq!(
                plan.deletes(&object, SegmentSize::default()),
                deletes,
                "{object}"
            );
        }
    }
}
