//! Whether the archive holds what its backups need. Pure.
//!
//! A segment is missing only where a recovery along the timelines' histories would ask for it: around a switch the file
//! names alone show holes that are none (wal-g#1390).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::read::EMPTY_HISTORY;
use super::{Backup, Catalog, End, SegmentRange, UnreadHistory, plan_recovery};
use crate::model::{SegmentSize, Timeline, WalSegment};
use crate::repository::Acknowledgement;

/// A repository, judged by a full list of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// What is stored, by timeline and position.
    pub wal: Vec<WalRange>,
    pub gaps: Vec<Gap>,
    /// What else keeps a backup from being restored, or the archive from being followed.
    pub problems: Vec<String>,
    /// Backups without a sentinel: at work, or never finished.
    pub unfinished: Vec<String>,
    /// The segment that the primary archived last, by its high-water mark.
    pub mark: Option<String>,
    /// Why it is not known whether the last segment is the end; `None` where the mark tells.
    pub end_unverified: Option<String>,
}

/// Segments without one missing in between, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalRange {
    pub timeline: Timeline,
    pub first: String,
    pub last: String,
    pub segments: u64,
    /// As stored.
    pub bytes: u64,
}

/// Segments that are missing and that a recovery would ask for, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub timeline: Timeline,
    pub first: String,
    pub last: String,
    pub segments: u64,
    /// It is the end of the archive: nothing of its timeline is stored after it, and the high-water mark lies in it.
    pub at_end: bool,
    /// Its segments that are stored with too few bytes to be whole.
    pub cut: Vec<String>,
    /// Its segments that are stored, and that a restore test found damaged.
    pub damaged: Vec<String>,
    /// The backups that cannot be recovered past it.
    pub cuts_off: Vec<String>,
    /// The acknowledgement of the gap; of several the one that ends first. `None` where not all of the gap is acknowledged.
    pub acknowledged: Option<Acknowledgement>,
}

impl Gap {
    pub fn named(&self) -> String {
        if self.first == self.last {
            self.first.clone()
        } else {
            format!("{} to {}", self.first, self.last)
        }
    }
}

impl Verified {
    /// The gap that `backup` cannot get past: the first that is not acknowledged, otherwise the first.
    pub fn first_gap_of(&self, backup: &str) -> Option<&Gap> {
        let cuts_off = |gap: &&Gap| gap.cuts_off.iter().any(|name| name == backup);
        let mut gaps = self.gaps.iter().filter(cuts_off);
        let unknown = gaps.clone().find(|gap| gap.acknowledged.is_none());
        unknown.or_else(|| gaps.next())
    }

    /// No problems, and no gaps that are not acknowledged.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.gaps.iter().all(|gap| gap.acknowledged.is_some())
    }
}

impl Catalog {
    /// Judges all of it; `acknowledgements` are those of this repository.
    pub fn verify(&self, acknowledgements: &[Acknowledgement], now: Timestamp) -> Verified {
        let standing: Vec<_> = acknowledgements
            .iter()
            .filter(|acknowledgement| acknowledgement.stands(now))
            .collect();
        let mut missing: Vec<(SegmentRange, &str)> = Vec::new();
        let mut problems = self.strangers();
        problems.extend(self.wal.foreign.values().cloned());
        let mut unfinished = Vec::new();
        for backup in &self.backups {
            if backup.finished_at.is_none() {
                unfinished.push(backup.name.clone());
                continue;
            }
            problems.extend(
                self.why_bad(backup)
                    .map(|reason| format!("{}: {reason}", backup.name)),
            );
            let (spans, reason) = self.missing_for(backup);
            missing.extend(spans.into_iter().map(|span| (span, &*backup.name)));
            problems.extend(reason.map(|(_, reason)| reason));
        }
        problems.extend(self.empty_histories().map(|history| history.to_string()));
        let mut told = BTreeSet::new();
        problems.retain(|problem| told.insert(problem.clone()));
        if self.newest().is_none() {
            problems.push("there is no base backup".to_owned());
        }
        let gaps = merged(missing).into_iter();
        let gaps = gaps.map(|(span, cuts_off)| Gap {
            at_end: self
                .wal
                .mark()
                .is_some_and(|mark| mark.timeline == span.timeline && mark.number == span.last),
            cut: self.cut_within(span),
            damaged: self.damaged_within(span),
            ..gap(span, cuts_off, &standing, self.wal.size)
        });
        Verified {
            wal: self.ranges(),
            gaps: gaps.collect(),
            problems,
            unfinished,
            mark: self.wal.mark().map(|mark| mark.name(self.wal.size)),
            end_unverified: match &self.wal.end {
                End::Unverified(reason) => Some(reason.clone()),
                End::Marked(_) => None,
            },
        }
    }

    /// Histories that are stored and hold nothing. No backup on the timeline itself needs one, but a standby on the timeline
    /// before it does.
    fn empty_histories(&self) -> impl Iterator<Item = UnreadHistory> {
        let histories = self.wal.histories.iter();
        histories.filter_map(|(timeline, history)| {
            let reason = history.as_ref().err()?;
            (reason == EMPTY_HISTORY).then(|| UnreadHistory {
                timeline: *timeline,
                reason: reason.clone(),
            })
        })
    }

    /// The names and bytes of the segments in `span` that are stored and not whole.
    fn cut_within(&self, span: SegmentRange) -> Vec<String> {
        let (first, last) = span.ends(self.wal.size);
        let cut = self.wal.cut.range(first..=last);
        cut.map(|(name, bytes)| format!("{name} is stored with {bytes} bytes"))
            .collect()
    }

    fn damaged_within(&self, span: SegmentRange) -> Vec<String> {
        let (first, last) = span.ends(self.wal.size);
        let names = self.wal.damaged.range(first..=last).map(|(name, _)| name);
        names
            .filter_map(|name| self.wal.why_damaged(name))
            .collect()
    }

    /// Whether all that `acknowledgement` names lies in one gap; or no backup needs it, but the primary took it for archived,
    /// none of it is there, and a standby may wait for it.
    pub fn covers_gap_of(&self, acknowledgement: &Acknowledgement) -> bool {
        let parse = |name: &str| WalSegment::parse(name, self.wal.size).ok();
        let Some((first, last)) = parse(&acknowledgement.first).zip(parse(&acknowledgement.last))
        else {
            return false;
        };
        if first.timeline != last.timeline || first > last {
            return false;
        }
        let gaps = self.verify(&[], acknowledgement.at).gaps;
        let in_gap = |gap: &Gap| parse(&gap.first) <= Some(first) && Some(last) <= parse(&gap.last);
        let is_passed = self.wal.mark().is_some_and(|mark| last <= mark);
        let (from, to) = (first.number, last.number);
        let stored = self.wal.stored_numbers(first.timeline, from, to);
        gaps.iter().any(in_gap) || (is_passed && stored.segments == 0)
    }

    /// What a recovery of any backup would ask for and not find: segments, and the histories of timelines.
    pub(super) fn wanted(&self) -> (Vec<SegmentRange>, BTreeSet<Timeline>) {
        let mut missing: Vec<(SegmentRange, &str)> = Vec::new();
        let mut histories = BTreeSet::new();
        for backup in &self.backups {
            let (spans, unread) = self.missing_for(backup);
            missing.extend(spans.into_iter().map(|span| (span, &*backup.name)));
            histories.extend(unread.map(|(timeline, _)| timeline));
        }
        histories.extend(self.empty_histories().map(|history| history.timeline));
        let spans = merged(missing).into_iter().map(|(span, _)| span);
        (spans.collect(), histories)
    }

    /// What a recovery of `backup` would ask for and not find; the timeline whose history it needs and has not, and why there may be more.
    fn missing_for(&self, backup: &Backup) -> (Vec<SegmentRange>, Option<(Timeline, String)>) {
        let Some(sentinel) = &backup.sentinel else {
            return (Vec::new(), None);
        };
        let mut missing = self.missing_within(backup);
        let (start, finish) = (sentinel.start_lsn, sentinel.finish_lsn);
        match plan_recovery(&self.wal, backup.timeline, start, finish) {
            Ok(path) => {
                missing.extend(path.missing);
                let why = path.without_history.map(|timeline| {
                    let why = format!("timeline {timeline} has WAL and no history: whether it can be followed is not known");
                    (timeline, why)
                });
                (missing, why)
            }
            Err(error) => (missing, Some((error.timeline, error.to_string()))),
        }
    }

    /// What is known against `backup` beside WAL that is missing, which gaps tell.
    pub fn why_bad(&self, backup: &Backup) -> Option<String> {
        self.why_damaged(backup)
            .or_else(|| self.why_doubtful(backup))
            .or_else(|| self.why_disproved(backup))
    }

    /// Two clusters in one prefix.
    fn strangers(&self) -> Vec<String> {
        let sentinels = self.backups.iter().filter_map(|b| b.sentinel.as_ref());
        let mut identifiers: Vec<u64> = sentinels.filter_map(|s| s.system_identifier).collect();
        identifiers.sort_unstable();
        identifiers.dedup();
        match identifiers.as_slice() {
            [] | [_] => Vec::new(),
            several => {
                let several: Vec<_> = several.iter().map(u64::to_string).collect();
                let several = several.join(" and ");
                vec![format!(
                    "backups of different clusters are here, with system identifiers {several}"
                )]
            }
        }
    }

    fn ranges(&self) -> Vec<WalRange> {
        let runs = self.wal.runs.iter();
        let all = runs.flat_map(|(timeline, runs)| runs.iter().map(|run| (*timeline, run)));
        let shown = all.map(|(timeline, run)| {
            let (first, last) = SegmentRange::of(timeline, run.first, run.last).ends(self.wal.size);
            WalRange {
                timeline,
                first,
                last,
                segments: run.segments(),
                bytes: run.bytes,
            }
        });
        shown.collect()
    }
}

/// Spans that overlap or touch become one, with the backups of each.
fn merged(mut missing: Vec<(SegmentRange, &str)>) -> Vec<(SegmentRange, Vec<String>)> {
    missing.sort_by_key(|(span, _)| (span.timeline, span.first));
    let mut merged: Vec<(SegmentRange, Vec<String>)> = Vec::new();
    for (span, backup) in missing {
        match merged.last_mut() {
            Some((last, backups))
                if last.timeline == span.timeline && span.first <= last.last + 1 =>
            {
                last.last = last.last.max(span.last);
                if !backups.iter().any(|known| known == backup) {
                    backups.push(backup.to_owned());
                }
            }
            _ => merged.push((span, vec![backup.to_owned()])),
        }
    }
    merged
}

fn gap(
    span: SegmentRange,
    cuts_off: Vec<String>,
    standing: &[&Acknowledgement],
    size: SegmentSize,
) -> Gap {
    let covers = |acknowledgement: &Acknowledgement, number: u64| {
        let parse = |name: &str| WalSegment::parse(name, size).ok();
        let ends = parse(&acknowledgement.first).zip(parse(&acknowledgement.last));
        ends.is_some_and(|(first, last)| {
            first.timeline == span.timeline && (first.number..=last.number).contains(&number)
        })
    };
    let mut ends_first: Option<&Acknowledgement> = None;
    let mut all = true;
    for number in span.first..=span.last {
        let known = standing.iter().filter(|one| covers(one, number));
        // Of one segment the longest counts, of the gap the segment that is known for the shortest.
        match known.max_by_key(|one| one.until) {
            Some(one) if ends_first.is_none_or(|other| one.until < other.until) => {
                ends_first = Some(one);
            }
            Some(_) => {}
            None => {
                all = false;
                break;
            }
        }
    }
    let (first, last) = span.ends(size);
    Gap {
        timeline: span.timeline,
        first,
        last,
        segments: span.segments(),
        at_end: false,
        cut: Vec::new(),
        damaged: Vec::new(),
        cuts_off,
        acknowledged: ends_first.filter(|_| all).cloned(),
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
