//! Which WAL goes: what lies before the oldest recovery, but for what permanent backups need to be whole. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::{SegmentSize, Timeline, WalSegment};
use crate::repository::catalog::{Backup, Catalog, SegmentRange};

/// Segments without one missing in between, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalPlan {
    pub timeline: Timeline,
    pub first: String,
    pub last: String,
    pub keep: bool,
    pub reason: String,
    /// As stored.
    pub bytes: u64,
    #[serde(skip)]
    pub numbers: (u64, u64),
}

/// Where a backup stands in the order of both programs' deletions: the segment in its name, by timeline and number.
pub(super) fn position(backup: &Backup, size: SegmentSize) -> Option<WalSegment> {
    WalSegment::parse(Backup::segment_of(&backup.name)?, size).ok()
}

/// Decides on each stored segment: both programs delete what precedes `before` in their order, whole older timelines
/// included, but for the WAL from start to finish of the backups that they spare.
pub(super) fn plan_wal(
    catalog: &Catalog,
    before: Option<&(&Backup, WalSegment)>,
    spared: &BTreeSet<&str>,
) -> Vec<WalPlan> {
    let wal = &catalog.wal;
    let mut plans = Vec::new();
    for timeline in wal.timelines() {
        // The first number on this timeline that is left alone.
        let limit = match before {
            Some((_, start)) if timeline < start.timeline => u64::MAX,
            Some((_, start)) if timeline == start.timeline => start.number,
            _ => 0,
        };
        let mut decide = |first: u64, last: u64, keep: bool, reason: &str| {
            for (span, bytes) in wal.stored_between(timeline, first, last) {
                let (from, to) = span.ends(wal.size);
                plans.push(WalPlan {
                    timeline,
                    first: from,
                    last: to,
                    keep,
                    reason: reason.to_owned(),
                    bytes,
                    numbers: (span.first, span.last),
                });
            }
        };
        let oldest = before.map_or("", |(backup, _)| backup.name.as_str());
        let older = format!("older than {oldest}, from which on all is kept");
        let mut next = 0;
        let whole = catalog
            .backups
            .iter()
            .filter(|backup| backup.timeline == timeline && spared.contains(backup.name.as_str()));
        let mut whole: Vec<(SegmentRange, &Backup)> = whole
            .filter_map(|backup| Some((backup.own_wal(wal.size)?, backup)))
            .collect();
        whole.sort_by_key(|(span, _)| span.first);
        for (span, backup) in whole.into_iter().filter(|(span, _)| span.first < limit) {
            if span.first > next {
                decide(next, span.first - 1, false, &older);
            }
            let (first, last) = (span.first.max(next), span.last.min(limit - 1));
            if first <= last {
                let reason = format!("{} needs it to be restored to its own end", backup.name);
                decide(first, last, true, &reason);
                next = last + 1;
            }
        }
        if next < limit {
            decide(next, limit - 1, false, &older);
        }
        let reason = match before {
            Some(_) => format!("from {oldest} on all is kept"),
            None => "nothing bounds what a recovery may need".to_owned(),
        };
        decide(limit, u64::MAX, true, &reason);
    }
    plans
}
