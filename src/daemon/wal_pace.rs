//! How much WAL one run of `pg_waldump` reads, after runs that reached their deadline. Pure.

use std::time::{Duration, Instant};

/// At first.
const MOST: u64 = 1 << 29;
const LEAST: u64 = 1 << 24;
/// A run that fails sooner has another reason.
const SLOW: Duration = Duration::from_secs(15);
const SHORTEST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_mins(5);

/// A slow volume must not be read without a pause, and never get to an end.
#[derive(Debug)]
pub(super) struct Pace {
    at_once: u64,
    /// For how long nothing is read after the next slow run.
    next_rest: Duration,
    /// Until when nothing is read, and the reason of the run that failed.
    rest: Option<(Instant, String)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            at_once: MOST,
            next_rest: SHORTEST_REST,
            rest: None,
        }
    }
}

impl Pace {
    /// Bytes of one run.
    pub(super) fn at_once(&self) -> u64 {
        self.at_once
    }

    /// # Errors
    /// While nothing is read: why the last run failed.
    pub(super) fn may_read(&self, now: Instant) -> Result<(), String> {
        match &self.rest {
            Some((until, reason)) if now < *until => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Takes in a run that ended at `now`, after `took`; gives its result back.
    pub(super) fn ran<T>(
        &mut self,
        result: Result<T, String>,
        took: Duration,
        now: Instant,
    ) -> Result<T, String> {
        match &result {
            Ok(_) => (self.next_rest, self.rest) = (SHORTEST_REST, None),
            Err(reason) if took >= SLOW => {
                self.at_once = (self.at_once / 2).max(LEAST);
                self.rest = Some((now + self.next_rest, reason.clone()));
                self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
            }
            Err(_) => {}
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_volume_is_read_in_shorter_stretches_and_with_pauses() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        let mut now = begun;
        let slow = || Err::<(), _>("timed out".to_owned());
        for (at_once, rest) in [(1 << 28, 10), (1 << 27, 20), (1 << 26, 40)] {
            assert_eq!(pace.may_read(now), Ok(()));
            assert!(pace.ran(slow(), Duration::from_secs(20), now).is_err());
            assert_eq!(pace.at_once(), at_once);
            let early = now + Duration::from_secs(rest - 1);
            assert_eq!(pace.may_read(early), Err("timed out".to_owned()));
            now += Duration::from_secs(rest);
        }
        for _ in 0..20 {
            let _ = pace.ran(slow(), Duration::from_secs(20), now);
        }
        assert_eq!(pace.at_once(), LEAST);
        assert_eq!(pace.may_read(now + LONGEST_REST), Ok(()));
        // One that works ends the pauses; the stretches stay short.
        assert_eq!(pace.ran(Ok(()), Duration::from_secs(19), now), Ok(()));
        assert_eq!(pace.may_read(now), Ok(()));
        assert_eq!(pace.at_once(), LEAST);
    }

    #[test]
    fn a_run_that_fails_at_once_is_repeated_at_once() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let failed = Err::<(), _>("no such file".to_owned());
        assert!(pace.ran(failed, Duration::from_secs(1), now).is_err());
        assert_eq!((pace.may_read(now), pace.at_once()), (Ok(()), MOST));
    }
}
