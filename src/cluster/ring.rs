//! When did the primary's WAL pass a position? The one measure of lag that is right when idle, paused, cut off or restarted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{Lsn, age};

/// The primary's positions with their times, oldest first: each second for some minutes, then thinned to one in many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LsnRing(Vec<(Timestamp, Lsn)>);

/// Ten minutes of seconds; older samples stand a minute apart.
const FINE: usize = 600;
const COARSE_SECS: i64 = 60;
/// A day of minutes beside the seconds.
const LIMIT: usize = FINE + 1440;

/// How far a standby is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    pub bytes: u64,
    /// Since the primary's position first passed the standby's.
    pub time: Duration,
    /// The primary had passed it before the oldest sample: it is `time` or more.
    pub at_least: bool,
}

impl LsnRing {
    /// How far `replayed` is behind the newest position; `None` without one.
    pub(crate) fn lag(&self, replayed: Lsn, now: Timestamp) -> Option<Lag> {
        let (_, newest) = self.0.last()?;
        let passed = self.0.iter().position(|(_, lsn)| *lsn > replayed);
        let since = passed.and_then(|index| self.0.get(index));
        Some(Lag {
            // The two were sampled at two moments: the standby's may be ahead.
            bytes: newest.0.saturating_sub(replayed.0),
            time: since.map_or(Duration::ZERO, |(at, _)| age(*at, now)),
            at_least: passed == Some(0),
        })
    }

    /// Adds a sample. A clock or a position (of another timeline) that went back empties the ring first.
    pub(crate) fn push(&mut self, at: Timestamp, lsn: Lsn) {
        if let Some((last_at, last_lsn)) = self.0.last().copied() {
            if lsn < last_lsn || at.duration_since(last_at).as_secs() < 0 {
                self.0.clear();
            } else if at.duration_since(last_at).as_millis() < 500 {
                // The same sample, heard twice.
                return;
            }
        }
        self.0.push((at, lsn));
        self.thin();
    }

    /// Puts what another node kept before what is known here; its clock is `ahead` of this one by that much.
    pub(crate) fn prepend(&mut self, other: &Self, ahead: SignedDuration) {
        let older = |(at, lsn): &(Timestamp, Lsn)| {
            let at = at.checked_sub(ahead).ok()?;
            let first = self.0.first();
            first
                .is_none_or(|(first_at, first_lsn)| at < *first_at && lsn <= first_lsn)
                .then_some((at, *lsn))
        };
        let mut samples: Vec<_> = other.0.iter().filter_map(older).collect();
        samples.append(&mut self.0);
        self.0 = samples;
        self.0.drain(..self.0.len().saturating_sub(LIMIT));
    }

    pub(crate) fn samples(&self) -> &[(Timestamp, Lsn)] {
        &self.0
    }

    fn thin(&mut self) {
        let Some(oldest_fine) = self.0.len().checked_sub(FINE) else {
            return;
        };
        // The newest of the coarse part may stand too near to the one before it.
        if oldest_fine >= 2 {
            let (before, this) = (self.0[oldest_fine - 2].0, self.0[oldest_fine - 1].0);
            if this.duration_since(before).as_secs() < COARSE_SECS {
                self.0.remove(oldest_fine - 1);
            }
        }
        if self.0.len() > LIMIT {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ring(samples: &[(i64, u64)]) -> LsnRing {
        let mut ring = LsnRing::default();
        for (second, lsn) in samples {
            ring.push(at(*second), Lsn(*lsn));
        }
        ring
    }

    #[test]
    fn a_ring_of_days_stays_small_and_keeps_its_ends() {
        let mut ring = LsnRing::default();
        for second in 0..200_000 {
            ring.push(at(second), Lsn(second.cast_unsigned()));
        }
        let all = ring.samples();
        assert!(all.len() <= LIMIT, "{}", all.len());
        assert_eq!(all.last().unwrap().1, Lsn(199_999));
        assert!(all[0].0.as_second() < 200_000 - 20 * 3600, "{:?}", all[0]);
        assert!(all.is_sorted());
    }

    #[test]
    fn seconds_count_from_when_the_primary_passed_the_standby() {
        let lag = |samples: &[(i64, u64)], replayed| {
            let lag = ring(samples).lag(Lsn(replayed), at(1000))?;
            Some((lag.bytes, lag.time.as_secs(), lag.at_least))
        };
        let busy = [(990, 100), (995, 200), (1000, 300)];
        assert_eq!(lag(&busy, 300), Some((0, 0, false)));
        assert_eq!(lag(&busy, 250), Some((50, 0, false)));
        assert_eq!(lag(&busy, 100), Some((200, 5, false)));
        assert_eq!(lag(&busy, 99), Some((201, 10, true)));
        // The standby was asked a moment later than the primary.
        assert_eq!(lag(&busy, 301), Some((0, 0, false)));
        assert_eq!(lag(&[], 1), None);
        // An idle primary makes no lag, and hides none that was there before.
        let idle = [(900, 100), (950, 100), (1000, 100)];
        assert_eq!(lag(&idle, 100), Some((0, 0, false)));
        let written = [(900, 100), (910, 200), (1000, 200)];
        assert_eq!(lag(&written, 100), Some((100, 90, false)));
    }

    #[test]
    fn what_goes_back_starts_anew_and_what_is_heard_twice_counts_once() {
        assert_eq!(
            ring(&[(1, 10), (2, 20), (3, 15)]).samples(),
            [(at(3), Lsn(15))]
        );
        assert_eq!(ring(&[(5, 10), (3, 20)]).samples(), [(at(3), Lsn(20))]);
        assert_eq!(ring(&[(5, 10), (5, 20)]).samples(), [(at(5), Lsn(10))]);
    }

    #[test]
    fn another_nodes_samples_come_before_ones_own_by_this_clock() {
        let other = ring(&[(100, 1), (101, 2), (102, 9)]);
        let ahead = SignedDuration::from_secs(40);
        let mut own = LsnRing::default();
        own.prepend(&other, ahead);
        assert_eq!(
            own.samples(),
            [(at(60), Lsn(1)), (at(61), Lsn(2)), (at(62), Lsn(9))]
        );
        // What is newer than the first here, or of another history, is left.
        let mut restarted = ring(&[(62, 3)]);
        restarted.prepend(&other, ahead);
        assert_eq!(
            restarted.samples(),
            [(at(60), Lsn(1)), (at(61), Lsn(2)), (at(62), Lsn(3))]
        );
    }
}
