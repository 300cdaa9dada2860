//! What the measurement of the live RPO rests on: which end of the archive counts, where reading goes on, what is lost. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::{ArchiveEnd, Evidence, Knowledge, Loss, Rpo, ServerSample};
use crate::model::{Lsn, SegmentSize, Timeline};
use crate::postgres::Commit;

/// A record that crosses into a segment may begin within this distance before it.
const CROSSING: u64 = 1 << 20;

/// Whether a commit has waited for `long`.
pub(super) fn waited(rpo: &Rpo, long: Duration) -> bool {
    let since = match rpo.loss {
        Loss::Since { commit_at } => commit_at,
        Loss::AtMostSince { at, .. } => at,
        Loss::Nothing | Loss::Unknown { .. } => return false,
    };
    let long = SignedDuration::try_from(long).unwrap_or(SignedDuration::MAX);
    rpo.at.duration_since(since) >= long
}

/// The archive's end by the look at the buckets; a look that failed since does not take it away.
pub(super) fn listed_end(evidence: Option<&Evidence>) -> Result<ArchiveEnd, String> {
    let evidence = evidence.ok_or("the buckets have not been checked yet")?;
    let Some(backup) = &evidence.base_backup else {
        let error = evidence.base_backup_error.clone();
        return Err(error.unwrap_or_else(|| "there is no base backup".to_owned()));
    };
    let none = || format!("the archive holds no WAL for {}", backup.backup);
    backup.to.ok_or_else(none)
}

/// The archive's end by a listing of this node's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnEnd {
    pub begun_at: Timestamp,
    pub seen_at: Timestamp,
    pub end: ArchiveEnd,
}

/// Whether the archive, as it was seen at `seen_at`, holds more of the server's timeline than the server had written later, in `sample`.
pub(super) fn is_ahead(end: ArchiveEnd, seen_at: Option<Timestamp>, sample: ServerSample) -> bool {
    end.timeline == sample.timeline
        && seen_at.is_some_and(|seen_at| seen_at < sample.at)
        && sample.position.is_some_and(|position| position < end.lsn)
}

/// Whether the WAL of the system identifier and timeline `of`, read to `read_to`, is still the WAL of the sampled server.
///
/// A cluster that was restored in place has other WAL at the same positions, and may never be sampled in recovery.
pub(super) fn is_same_wal(of: (u64, Timeline), read_to: Option<Lsn>, sample: ServerSample) -> bool {
    let went_back = sample.position.is_some_and(|at| Some(at) < read_to);
    (sample.system_identifier, sample.timeline) == of && !went_back
}

/// A listing of this node's own counts until a look at all of the repository begins after it, which sees what was deleted, too.
pub(super) fn newer_end(
    listed: ArchiveEnd,
    read_at: Option<Timestamp>,
    own: Option<OwnEnd>,
) -> ArchiveEnd {
    let key = |end: &ArchiveEnd| (end.timeline, end.lsn);
    let counts = |own: &OwnEnd| {
        read_at.is_none_or(|read| read <= own.begun_at) && key(&own.end) > key(&listed)
    };
    own.filter(counts).map_or(listed, |own| own.end)
}

/// Where reading goes on after WAL was read to `read`: a record may have been cut there, and may cross into its segment.
pub(super) fn resume_at(read: Lsn, size: SegmentSize) -> Lsn {
    let begin = read.0 / size.bytes() * size.bytes();
    if read.0 - begin < CROSSING {
        Lsn(begin.saturating_sub(size.bytes()))
    } else {
        Lsn(begin)
    }
}

pub(super) fn loss(
    first: Result<Option<Commit>, String>,
    end: ArchiveEnd,
    sample: ServerSample,
    known: &Knowledge,
) -> Loss {
    match first {
        Ok(None) => Loss::Nothing,
        // PostgreSQL wrote the time of the commit, by its own clock.
        Ok(Some(commit)) => Loss::Since {
            commit_at: commit
                .at
                .checked_sub(known.server_ahead)
                .unwrap_or(commit.at),
        },
        Err(reason) => {
            // What follows the archive's end was written after the server passed it, or after that segment was stored.
            let lag = known.positions.lag(end.lsn, sample.at);
            let passed = lag.filter(|lag| !lag.at_least);
            let passed = passed.and_then(|lag| sample.at.checked_sub(lag.time).ok());
            Loss::AtMostSince {
                at: passed.unwrap_or(end.archived_at),
                reason,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn end(timeline: u32, lsn: u64) -> ArchiveEnd {
        ArchiveEnd {
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
            archived_at: at(50),
        }
    }

    fn own_end(begun: i64, end: ArchiveEnd) -> OwnEnd {
        OwnEnd {
            begun_at: at(begun),
            seen_at: at(begun + 1),
            end,
        }
    }

    fn sample(position: u64) -> ServerSample {
        ServerSample {
            at: at(100),
            in_recovery: false,
            timeline: Timeline(1),
            system_identifier: 7,
            streaming: false,
            position: Some(Lsn(position)),
        }
    }

    #[test]
    fn an_archive_ahead_of_the_server_is_of_another_one() {
        for (end, seen_at, ahead) in [
            (end(1, 300), Some(99), false),
            (end(1, 301), Some(99), true),
            // It was archived after the server was sampled.
            (end(1, 301), Some(100), false),
            (end(2, 301), Some(99), false),
            (end(1, 301), None, false),
        ] {
            let found = is_ahead(end, seen_at.map(at), sample(300));
            assert_eq!(found, ahead, "{end:?} {seen_at:?}");
        }
    }

    #[test]
    fn the_wal_of_a_server_that_was_restored_in_place_is_read_from_the_beginning() {
        let of = (7, Timeline(1));
        for (what, of, read_to, same) in [
            ("nothing was read", of, None, true),
            ("it has written more", of, Some(299), true),
            ("it is idle", of, Some(300), true),
            ("it went back", of, Some(301), false),
            ("another timeline", (7, Timeline(2)), Some(200), false),
            ("another cluster", (8, Timeline(1)), Some(200), false),
        ] {
            assert_eq!(
                is_same_wal(of, read_to.map(Lsn), sample(300)),
                same,
                "{what}"
            );
        }
    }

    #[test]
    fn the_newer_of_two_listings_tells_the_archives_end() {
        let listed = end(1, 100);
        for (read_at, own, expected) in [
            (Some(10), None, 100),
            (Some(10), Some((11, 200)), 200),
            // A whole look that began later saw a deletion.
            (Some(12), Some((11, 200)), 100),
            (Some(10), Some((11, 50)), 100),
        ] {
            let own = own.map(|(begun, lsn)| own_end(begun, end(1, lsn)));
            let newer = newer_end(listed, read_at.map(at), own);
            assert_eq!(newer.lsn, Lsn(expected), "{read_at:?} {own:?}");
        }
        let own = Some(own_end(11, end(2, 90)));
        assert_eq!(newer_end(listed, Some(at(10)), own), end(2, 90));
    }

    #[test]
    fn reading_goes_on_before_what_may_have_been_cut() {
        let size = SegmentSize::default();
        let segment = size.bytes();
        for (read, from) in [
            (5 * segment + CROSSING, 5 * segment),
            (5 * segment + 100, 4 * segment),
            (5 * segment, 4 * segment),
            (100, 0),
        ] {
            assert_eq!(resume_at(Lsn(read), size), Lsn(from), "{read}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_at_most_as_old_as_the_position() {
        let sample = sample(300);
        let mut known = Knowledge::default();
        known.positions.push(at(80), Lsn(100));
        known.positions.push(at(90), Lsn(300));
        let cannot = || Err("no WAL".to_owned());
        let reason = "no WAL".to_owned();
        assert_eq!(
            loss(cannot(), end(1, 100), sample, &known),
            Loss::AtMostSince {
                at: at(90),
                reason: reason.clone()
            }
        );
        // The server had passed it before the first sample.
        assert_eq!(
            loss(cannot(), end(1, 50), sample, &known),
            Loss::AtMostSince { at: at(50), reason }
        );
        assert_eq!(loss(Ok(None), end(1, 50), sample, &known), Loss::Nothing);
    }
}
