//! Which queries were slow: they come last, so that the others are judged in time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A query that takes this long comes last in the next run: others must not wait for it.
const SLOW: Duration = Duration::from_secs(1);

/// The checks whose queries were slow last; one in a database of its own as `check/database`.
#[derive(Debug, Default)]
pub(super) struct SlowQueries(Mutex<HashSet<String>>);

impl SlowQueries {
    fn took(&self, name: String, time: Duration) {
        let mut slow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if time >= SLOW {
            slow.insert(name);
        } else {
            slow.remove(&name);
        }
    }

    /// Notes the time until the result is dropped.
    pub(super) fn timed(&self, name: String) -> Timed<'_> {
        Timed {
            slow: self,
            name,
            began: Instant::now(),
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let slow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slow.contains(name)
    }
}

/// Notes how long a query takes, also where it is given up.
pub(super) struct Timed<'a> {
    slow: &'a SlowQueries,
    name: String,
    began: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.slow.took(name, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_slow_until_it_is_fast_again() {
        let slow = SlowQueries::default();
        slow.took("own".to_owned(), SLOW);
        assert!(slow.contains("own") && !slow.contains("other"));
        drop(slow.timed("own".to_owned()));
        assert!(!slow.contains("own"));
    }
}
