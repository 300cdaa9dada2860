//! How long PostgreSQL waited for the segments that the daemon pushed, for the metrics.
//!
//! A push that the client made itself, because the daemon refused it or did not answer, is not among them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the classes, in seconds; the last class has none.
pub(crate) const PUSH_CLASSES: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// The pushes of this process so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PushTimes {
    /// How many ended within each class, and not in the one before it; the last are those above all.
    pub classes: [u64; PUSH_CLASSES.len() + 1],
    pub total_secs: f64,
    /// Requests that the daemon refused: their clients pushed by themselves.
    pub refused: u64,
}

impl PushTimes {
    const NONE: Self = Self {
        classes: [0; PUSH_CLASSES.len() + 1],
        total_secs: 0.0,
        refused: 0,
    };

    fn add(&mut self, stored: bool, took: Duration) {
        if !stored {
            self.refused += 1;
            return;
        }
        let secs = took.as_secs_f64();
        let class = PUSH_CLASSES.partition_point(|end| *end < secs);
        self.classes[class] += 1;
        self.total_secs += secs;
    }
}

static SUM: Mutex<PushTimes> = Mutex::new(PushTimes::NONE);

pub(crate) fn push_times() -> PushTimes {
    *SUM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in one request that was answered.
pub(super) fn note(stored: bool, took: Duration) {
    let mut sum = SUM.lock().unwrap_or_else(PoisonError::into_inner);
    sum.add(stored, took);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_counts_in_the_first_class_that_holds_it() {
        let mut times = PushTimes::default();
        for (secs, stored) in [(0.01, true), (0.02, true), (31.0, true), (0.02, false)] {
            times.add(stored, Duration::from_secs_f64(secs));
        }
        assert_eq!(times.classes, [1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((times.refused, times.total_secs), (1, 31.03));
    }
}
