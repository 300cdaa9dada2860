//! The WAL segments on the way of a recovery, and the names of their objects.

use super::survey::Survey;
use crate::model::WalSegment;

/// Every segment that is stored between the backup's start and the end, in the order of the replay; of what several
/// timelines hold PostgreSQL takes one.
pub(crate) fn stored_segments(survey: &Survey) -> Vec<WalSegment> {
    let (plan, wal) = (&survey.plan, &survey.catalog.wal);
    let Some(last) = plan.path.reachable else {
        return Vec::new();
    };
    let first = WalSegment::holding(plan.backup.timeline, plan.sentinel.start_lsn, wal.size);
    let timelines: Vec<_> = wal
        .runs
        .range(plan.backup.timeline..=plan.path.timeline)
        .map(|(timeline, _)| *timeline)
        .collect();
    let of = |number| {
        timelines.iter().map(move |timeline| WalSegment {
            timeline: *timeline,
            number,
        })
    };
    (first.number..=last.number)
        .flat_map(of)
        .filter(|segment| wal.get(*segment).is_some())
        .collect()
}

/// How the names of objects end; `None` for what xdb does not read.
pub(crate) fn object_suffix(compression: &str) -> Option<&'static str> {
    match compression {
        "lz4" => Some(".lz4"),
        "zstd" => Some(".zst"),
        "none" => Some(""),
        _ => None,
    }
}
