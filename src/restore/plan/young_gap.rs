//! A gap near the end of the archive may be an upload that has not ended: segments are stored in parallel, so that a later
//! one can be listed first. Such a gap is checked again before it is reported.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::restore_plan::Plan;
use crate::model::WalSegment;
use crate::repository::catalog::{Catalog, SegmentRange};

/// Between two checks.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);
/// A gap that stays for this long is not closed by an upload that was running.
const PERMANENT_AFTER: Duration = Duration::from_secs(20);
/// The limit of all checks. Where gaps have opened and closed until then, uploads run all the time.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// No upload still runs beside a segment that was stored earlier than this. S3's clock may differ by as much.
const RECENT: SignedDuration = SignedDuration::from_mins(2);
/// The most segments that an archiver stores out of order.
const AHEAD: u64 = 64;

/// What to do about a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapDecision {
    /// Believe the listing: it shows no gap, or a permanent one.
    Believe,
    Recheck,
    /// Report that its segments may still be uploading. Uploads are `under_way` where others arrived between the checks and
    /// the missing ones are not known to have been archived: then the gap proves nothing yet.
    MayClose {
        under_way: bool,
    },
    /// Take the archive to end before it.
    EndBefore,
}

/// The earlier checks.
#[derive(Debug)]
pub(crate) struct GapWatch {
    began: Instant,
    /// The gap of the last check, and since when it is the same.
    gap: Option<(SegmentRange, Instant)>,
    moved: bool,
    /// The newest segment of the first check that showed a gap.
    newest: Option<WalSegment>,
}

impl GapWatch {
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            began: now,
            gap: None,
            moved: false,
            newest: None,
        }
    }

    /// Judges the gap of the listing that was read at `now`; `clock` is the same moment by this node's clock.
    ///
    /// PostgreSQL archives in order: a gap before the segment that it `archived` last is no running upload, however many
    /// segments arrive behind it.
    pub(crate) fn judge(
        &mut self,
        (plan, catalog): (&Plan, &Catalog),
        archived: Option<WalSegment>,
        (now, clock): (Instant, Timestamp),
    ) -> GapDecision {
        let gap = plan.path.missing.first().copied();
        let is_damaged = |gap: &SegmentRange| {
            catalog
                .wal
                .damaged
                .contains_key(&gap.ends(catalog.wal.size).0)
        };
        let gap = gap.filter(|gap| !is_damaged(gap));
        let Some(gap) = gap.filter(|gap| is_young(*gap, catalog, clock)) else {
            return GapDecision::Believe;
        };
        let since = match self.gap {
            Some((known, since)) if known.timeline == gap.timeline && known.first == gap.first => {
                since
            }
            Some(_) => {
                self.moved = true;
                now
            }
            None => now,
        };
        self.gap = Some((gap, since));
        let newest = plan.path.newest;
        let arrives = newest.is_some_and(|newest| newest > *self.newest.get_or_insert(newest));
        if now.duration_since(since) >= PERMANENT_AFTER {
            let was_archived = archived.is_some_and(|archived| {
                archived.timeline == gap.timeline && archived.number >= gap.first
            });
            if was_archived {
                return GapDecision::Believe;
            }
            let under_way = self.moved || arrives;
            GapDecision::MayClose { under_way }
        } else if now.duration_since(self.began) < CHECK_LIMIT {
            GapDecision::Recheck
        } else {
            GapDecision::EndBefore
        }
    }
}

/// Whether a few segments beyond `gap` were stored in the bucket a moment ago.
fn is_young(gap: SegmentRange, catalog: &Catalog, clock: Timestamp) -> bool {
    let (timeline, number) = (gap.timeline, gap.last + 1);
    let beyond = catalog.wal.get(WalSegment { timeline, number });
    beyond.is_some_and(|run| {
        let age = clock.duration_since(run.last_modified);
        run.segments() <= AHEAD && age <= RECENT
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timeline, Verdict};
    use crate::repository::catalog::{Backup, Sentinel, Stored, Tests, Wal};
    use crate::restore::plan::restore_plan::{GAP_MAY_CLOSE, Pick, plan_restore};
    use crate::storage::Location;

    const SEGMENT: u64 = 16 << 20;

    fn catalog(numbers: &[u64], at: Timestamp) -> Catalog {
        let mut wal = Wal::default();
        for number in numbers {
            let stored = Stored {
                size: 100,
                last_modified: at,
            };
            let (timeline, number) = (Timeline(1), *number);
            wal.add(WalSegment { timeline, number }, stored);
        }
        let json = format!(
            r#"{{"LSN":{},"FinishLSN":{},"PgVersion":170011}}"#,
            2 * SEGMENT + 40,
            2 * SEGMENT + 80
        );
        let backup = Backup {
            name: "base_000000010000000000000002".to_owned(),
            timeline: Timeline(1),
            sentinel: Some(Sentinel::parse(json.as_bytes()).unwrap()),
            damage: None,
            finished_at: Some(at),
            stored: None,
            tests: Tests::default(),
        };
        Catalog {
            backups: vec![backup],
            wal,
        }
    }

    fn planned(catalog: &Catalog) -> Plan {
        let repository = Location {
            bucket: "walg-test".to_owned(),
            prefix: "main/pg17".to_owned(),
        };
        plan_restore(catalog, &repository, (None, Pick::Newest), None).unwrap()
    }

    #[test]
    fn a_gap_is_believed_once_it_stays_or_is_old() {
        let clock = Timestamp::from_second(1_800_000_000).unwrap();
        let began = Instant::now();
        let at = |secs| began + Duration::from_secs(secs);
        let judge = |watch: &mut GapWatch, numbers: &[u64], secs| {
            let catalog = catalog(numbers, clock);
            watch.judge((&planned(&catalog), &catalog), None, (at(secs), clock))
        };
        let mut watch = GapWatch::begin(began);
        assert_eq!(judge(&mut watch, &[2, 3, 5], 0), GapDecision::Recheck);
        assert_eq!(judge(&mut watch, &[2, 3, 5], 19), GapDecision::Recheck);
        let still = GapDecision::MayClose { under_way: false };
        assert_eq!(judge(&mut watch, &[2, 3, 5], 20), still);
        assert_eq!(judge(&mut watch, &[2, 3, 4, 5], 21), GapDecision::Believe);

        // Others arrive, and this one does not.
        let mut watch = GapWatch::begin(began);
        assert_eq!(judge(&mut watch, &[2, 3, 5], 0), GapDecision::Recheck);
        let arriving = GapDecision::MayClose { under_way: true };
        assert_eq!(judge(&mut watch, &[2, 3, 5, 6], 20), arriving);
        let catalog_then = catalog(&[2, 3, 5, 6], clock);
        for (archived, expected) in [
            (3, arriving),
            (4, GapDecision::Believe),
            (6, GapDecision::Believe),
        ] {
            let mut watch = GapWatch::begin(began);
            assert_eq!(judge(&mut watch, &[2, 3, 5], 0), GapDecision::Recheck);
            let (timeline, number) = (Timeline(1), archived);
            let archived = Some(WalSegment { timeline, number });
            let then = (&planned(&catalog_then), &catalog_then);
            let judged = watch.judge(then, archived, (at(20), clock));
            assert_eq!(judged, expected, "{archived:?}");
        }
        for (under_way, is_unknown) in [(true, true), (false, false)] {
            let mut plan = planned(&catalog_then);
            plan.gap_may_close(under_way);
            assert_eq!(matches!(plan.gaps, Verdict::Unknown(_)), is_unknown);
            let reason = plan.gaps.reason().unwrap();
            assert!(reason.ends_with(GAP_MAY_CLOSE), "{reason}");
        }

        // A drain: the gap is another one each time.
        let mut watch = GapWatch::begin(began);
        for (number, secs) in [(5, 0), (7, 15), (9, 30), (11, 45)] {
            let stored: Vec<u64> = (2..=number).filter(|it| *it != number - 1).collect();
            assert_eq!(
                judge(&mut watch, &stored, secs),
                GapDecision::Recheck,
                "{secs}"
            );
        }
        let stored: Vec<u64> = (2..=13).filter(|it| *it != 12).collect();
        assert_eq!(judge(&mut watch, &stored, 61), GapDecision::EndBefore);
        let catalog_then = catalog(&stored, clock);
        let mut plan = planned(&catalog_then);
        plan.end_before_gap();
        assert!(plan.path.missing.is_empty() && plan.path.reachable == plan.path.newest);

        let old = catalog(&[2, 3, 5], clock - RECENT - SignedDuration::from_secs(1));
        let mut watch = GapWatch::begin(began);
        let judged = watch.judge((&planned(&old), &old), None, (began, clock));
        assert_eq!(judged, GapDecision::Believe);
    }
}
