//! Counters that only grow: what is judged is by how much, and since when.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::values::Sampled;

/// The samples of one object.
type Samples = VecDeque<(Instant, f64)>;

/// The samples of each check's objects, as long as they are needed.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<String, HashMap<Option<String>, Samples>>);

impl Counters {
    /// Turns each value of `check` into its increase within the time before `now`.
    ///
    /// A value that has no earlier sample is left out: how much it grew is not known yet. A counter that fell was reset, and
    /// counts from 0.
    pub(super) fn increases(
        &mut self,
        check: &str,
        values: Vec<Sampled>,
        within: Duration,
        now: Instant,
    ) -> Vec<Sampled> {
        let before = self.0.entry(check.to_owned()).or_default();
        before.retain(|object, _| values.iter().any(|value| value.object == *object));
        let increase = |value: Sampled| {
            let Ok(number) = value.number else {
                return Some(value);
            };
            let samples = before.entry(value.object.clone()).or_default();
            if samples.back().is_some_and(|(_, last)| number < *last) {
                samples.clear();
                samples.push_back((now, 0.0));
            }
            // The newest of those that are too old is where the time begins.
            while samples
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= within)
            {
                samples.pop_front();
            }
            let first = samples.front().copied();
            samples.push_back((now, number));
            let (_, first) = first?;
            Some(Sampled {
                number: Ok(number - first),
                ..value
            })
        };
        values.into_iter().filter_map(increase).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_judged_by_its_growth_within_the_time() {
        let mut counters = Counters::default();
        let begin = Instant::now();
        let mut grown = |second: u64, number: f64| {
            let value = Sampled {
                object: Some("app".to_owned()),
                number: Ok(number),
                detail: None,
            };
            let now = begin + Duration::from_secs(second);
            let within = Duration::from_secs(60);
            let found = counters.increases("conflicts", vec![value], within, now);
            found.first().map(|value| value.number.clone().unwrap())
        };
        assert_eq!(grown(0, 100.0), None);
        assert_eq!(grown(30, 104.0), Some(4.0));
        assert_eq!(grown(60, 104.0), Some(4.0));
        assert_eq!(grown(90, 105.0), Some(1.0));
        assert_eq!(grown(150, 105.0), Some(0.0));
        // It was reset.
        assert_eq!(grown(160, 3.0), Some(3.0));
    }
}
