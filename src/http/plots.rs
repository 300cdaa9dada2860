//! What is plotted: some series over the last hour, day and week. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::store::StoredSample;

/// A stretch of time that is plotted, and its resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub name: &'static str,
    pub step_secs: i64,
    /// So many steps are kept.
    pub steps: i64,
}

pub(crate) const SPANS: [Span; 3] = [
    Span {
        name: "hour",
        step_secs: 30,
        steps: 120,
    },
    Span {
        name: "day",
        step_secs: 600,
        steps: 144,
    },
    Span {
        name: "week",
        step_secs: 3600,
        steps: 168,
    },
];

/// One series, as it is named in the store and on the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    pub name: &'static str,
    pub title: &'static str,
    pub is_bytes: bool,
}

/// What is plotted.
pub(crate) static SERIES: [Series; 4] = [
    Series {
        name: "rpo",
        title: "RPO",
        is_bytes: false,
    },
    Series {
        name: "rto",
        title: "RTO, forecast",
        is_bytes: false,
    },
    Series {
        name: "lag",
        title: "Replication lag",
        is_bytes: false,
    },
    Series {
        name: "waiting-wal",
        title: "WAL that waits to be archived",
        is_bytes: true,
    },
];

/// The highest value of each series in each step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plots(BTreeMap<(&'static str, i64), BTreeMap<i64, f64>>);

impl Plots {
    /// Takes in what was stored, beside what it has; series that this version does not know are left out.
    pub(crate) fn restore(&mut self, stored: &[StoredSample], now: Timestamp) {
        for sample in stored {
            let series = SERIES.iter().find(|series| series.name == sample.series);
            let span = SPANS.iter().find(|span| span.step_secs == sample.step_secs);
            if let (Some(series), Some(span)) = (series, span) {
                self.put(series.name, *span, sample.at_secs, sample.value);
            }
        }
        self.forget(now);
    }

    /// Takes in values of now, and returns what to store of them: a series without a value has a hole there.
    pub(crate) fn take(
        &mut self,
        values: &[(&'static str, Option<f64>)],
        now: Timestamp,
    ) -> Vec<StoredSample> {
        let mut taken = Vec::new();
        for (series, value) in values {
            let Some(value) = value.filter(|value| value.is_finite()) else {
                continue;
            };
            for span in SPANS {
                let at_secs = now.as_second().div_euclid(span.step_secs) * span.step_secs;
                self.put(series, span, at_secs, value);
                taken.push(StoredSample {
                    series: (*series).to_owned(),
                    step_secs: span.step_secs,
                    at_secs,
                    value,
                });
            }
        }
        self.forget(now);
        taken
    }

    /// For each resolution where the oldest step begins that is kept at `now`.
    pub(crate) fn oldest(now: Timestamp) -> [(i64, i64); SPANS.len()] {
        SPANS.map(|span| {
            let newest = now.as_second().div_euclid(span.step_secs);
            (span.step_secs, (newest - span.steps + 1) * span.step_secs)
        })
    }

    /// The points of `series`, as the second that their step begins at and their value.
    pub(crate) fn points(&self, series: &str, span: Span) -> impl Iterator<Item = (i64, f64)> {
        let found = self
            .0
            .iter()
            .find(|((name, step), _)| *name == series && *step == span.step_secs);
        let points = found.into_iter().flat_map(|(_, points)| points);
        points.map(|(at, value)| (*at, *value))
    }

    fn put(&mut self, series: &'static str, span: Span, at_secs: i64, value: f64) {
        let points = self.0.entry((series, span.step_secs)).or_default();
        let highest = points.entry(at_secs).or_insert(value);
        *highest = highest.max(value);
    }

    /// What is older, or of a clock that was ahead.
    fn forget(&mut self, now: Timestamp) {
        for (step_secs, oldest) in Self::oldest(now) {
            let of_step = self
                .0
                .iter_mut()
                .filter(|((_, step), _)| *step == step_secs);
            for (_, points) in of_step {
                points.retain(|at, _| (oldest..=now.as_second()).contains(at));
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

    #[test]
    fn a_step_shows_its_highest_value_and_a_hole_where_nothing_was_known() {
        let mut plots = Plots::default();
        for (second, value) in [(0, Some(1.0)), (29, Some(3.0)), (31, None), (60, Some(2.0))] {
            plots.take(&[("rpo", value)], at(second));
        }
        let points = |span: Span| plots.points("rpo", span).collect::<Vec<_>>();
        assert_eq!(points(SPANS[0]), [(0, 3.0), (60, 2.0)]);
        assert_eq!(points(SPANS[2]), [(0, 3.0)]);
    }

    #[test]
    fn a_year_leaves_a_bounded_number_of_points_and_the_store_gives_them_back() {
        let mut plots = Plots::default();
        let mut stored = Vec::new();
        for step in 0..100_000 {
            let now = at(step * 300);
            stored.extend(plots.take(&[("rpo", Some(1.0))], now));
        }
        let now = at(99_999 * 300);
        let counts = SPANS.map(|span| plots.points("rpo", span).count());
        assert_eq!(counts, [12, 144, 168]);
        let mut restored = Plots::default();
        restored.restore(&stored, now);
        assert_eq!(restored, plots);
    }

    #[test]
    fn steps_of_a_clock_that_was_ahead_are_forgotten() {
        let mut plots = Plots::default();
        plots.take(&[("rpo", Some(9.0))], at(1_000_000));
        plots.take(&[("rpo", Some(1.0))], at(500_000));
        assert_eq!(plots.points("rpo", SPANS[0]).count(), 1);
    }
}
