//! What is due: pure, from the last runs and `now`. Survives restarts and missed hours, and never fires twice.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::RunnerError;
use crate::config;
use crate::jobs::Job;

/// When a job is meant to run.
#[derive(Debug, Clone)]
pub(crate) enum Schedule {
    /// Minute, hour, day of month, month, day of week, in a time zone.
    Cron(Box<Cron>, TimeZone),
    Every(Duration),
}

/// What the schedule goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastRuns {
    /// Its last start, whatever came of it.
    pub last_run: Option<Timestamp>,
    /// The start of its last run that could be judged, good or bad.
    pub last_judged: Option<Timestamp>,
    /// Runs in a row that could not look.
    pub unknown_in_a_row: u32,
    /// When it was last put off, because of a missing prerequisite (no backup yet) or a lock: no outcome, tried again soon.
    pub put_off_at: Option<Timestamp>,
    /// When this node's role last changed; for what is done once for the cluster, which then waits a while.
    pub role_changed_at: Option<Timestamp>,
}

/// After a role change: a promoted server has better to do first, and a failover may not be the last.
const GRACE: SignedDuration = SignedDuration::from_mins(30);
/// After an attempt that was put off.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(15);
/// Back-off after a run that could not look: doubled each time, up to the longest.
const SHORTEST_BACK_OFF: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_BACK_OFF: SignedDuration = SignedDuration::from_hours(1);

impl Schedule {
    /// Reads `0 1 * * *` or a duration such as `15s`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        if let Ok(every) = text.parse::<SignedDuration>() {
            let every = Duration::try_from(every)
                .ok()
                .filter(|every| !every.is_zero());
            return every
                .map(Self::Every)
                .ok_or_else(|| format!("{text:?} is no duration above zero"));
        }
        let cron = Cron::from_str(text)
            .map_err(|error| format!("{text:?} is no cron pattern: {error}"))?;
        Ok(Self::Cron(Box::new(cron), zone))
    }

    /// The first planned time after `after`; `None` for a pattern that never comes.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => after
                .checked_add(SignedDuration::try_from(*every).ok()?)
                .ok(),
            Self::Cron(cron, zone) => {
                let next = cron
                    .find_next_occurrence(&after.to_zoned(zone.clone()), false)
                    .ok()?;
                Some(next.timestamp())
            }
        }
    }

    /// The longest time between two planned runs of those after `after`: a weekday pattern's weekend.
    pub(crate) fn period(&self, after: Timestamp) -> Option<SignedDuration> {
        /// A week of daily runs, and one more.
        const LOOKED_AT: usize = 8;
        let next = |at: &Timestamp| self.next_after(*at);
        let planned = std::iter::successors(self.next_after(after), next);
        let planned: Vec<Timestamp> = planned.take(LOOKED_AT).collect();
        let gaps = planned.windows(2);
        gaps.map(|pair| pair[1].duration_since(pair[0])).max()
    }
}

/// When `job` is meant to run, as configured.
///
/// # Errors
/// When its schedule is neither a pattern nor a duration.
pub(crate) fn schedule_of(job: &Job, settings: &config::Schedule) -> Result<Schedule, RunnerError> {
    let schedule = Schedule::parse(job.schedule(settings), TimeZone::UTC);
    schedule.map_err(|reason| RunnerError::Schedule {
        job: job.name,
        reason,
    })
}

/// When a job with these last runs runs next; at or before `now`, it is due.
///
/// Never judged: at once. After an unknown: back-off. Else the first planned time after the last judged run, however long
/// ago that was: what was missed while nothing ran is caught up once.
pub(crate) fn next_run(schedule: &Schedule, last: &LastRuns, now: Timestamp) -> Option<Timestamp> {
    let planned = match last.last_judged {
        None => now,
        // A clock that was set back must not stop a job until it has caught up; two nodes' clocks may differ a little.
        Some(judged) if judged.duration_since(now) > tolerance(schedule, now) => now,
        Some(judged) => schedule.next_after(judged)?,
    };
    let after = |at: Option<Timestamp>, pause: SignedDuration| {
        at.filter(|at| *at <= now)
            .and_then(|at| at.checked_add(pause).ok())
    };
    let failed_at = last.last_run.filter(|_| last.unknown_in_a_row > 0);
    let not_before = [
        after(failed_at, back_off(last.unknown_in_a_row)),
        after(last.put_off_at, PUT_OFF),
        after(last.role_changed_at, GRACE),
    ];
    not_before.into_iter().flatten().chain([planned]).max()
}

/// How far in the future a run may stand and still count.
fn tolerance(schedule: &Schedule, now: Timestamp) -> SignedDuration {
    let most = SignedDuration::from_mins(5);
    schedule.period(now).map_or(most, |period| period.min(most))
}

fn back_off(unknown_in_a_row: u32) -> SignedDuration {
    let doubled = 2_i32.saturating_pow(unknown_in_a_row.saturating_sub(1).min(10));
    SHORTEST_BACK_OFF
        .saturating_mul(doubled)
        .min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn daily() -> Schedule {
        Schedule::parse("0 1 * * *", TimeZone::UTC).unwrap()
    }

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn next(last: LastRuns) -> Timestamp {
        next_run(&daily(), &last, at(NOW)).unwrap()
    }

    #[test]
    fn what_never_succeeded_is_due_at_once_and_what_did_waits_for_its_time() {
        assert_eq!(next(LastRuns::default()), at(NOW));
        let judged = |text| LastRuns {
            last_run: Some(at(text)),
            last_judged: Some(at(text)),
            ..LastRuns::default()
        };
        assert_eq!(
            next(judged("2026-11-21T01:00:03Z")),
            at("2026-11-22T01:00:00Z")
        );
        // Missed while nothing ran: due now, once.
        assert_eq!(
            next(judged("2026-11-18T01:00:00Z")),
            at("2026-11-19T01:00:00Z")
        );
    }

    #[test]
    fn an_unknown_is_tried_again_with_a_growing_pause_and_a_prerequisite_soon() {
        let unknown = |times| LastRuns {
            last_run: Some(at(NOW)),
            unknown_in_a_row: times,
            ..LastRuns::default()
        };
        for (times, pause) in [
            (1, "2026-11-21T12:01:00Z"),
            (3, "2026-11-21T12:04:00Z"),
            (99, "2026-11-21T13:00:00Z"),
        ] {
            assert_eq!(next(unknown(times)), at(pause), "{times}");
        }
        let put_off = LastRuns {
            put_off_at: Some(at(NOW)),
            ..LastRuns::default()
        };
        assert_eq!(next(put_off), at("2026-11-21T12:00:15Z"));
        // A pause never outlasts the regular time by going back.
        let known_before = LastRuns {
            last_judged: Some(at("2026-11-21T01:00:00Z")),
            ..unknown(1)
        };
        assert_eq!(next(known_before), at("2026-11-22T01:00:00Z"));
    }

    #[test]
    fn after_a_role_change_what_is_due_waits_for_half_an_hour() {
        let changed = |text| LastRuns {
            role_changed_at: Some(at(text)),
            ..LastRuns::default()
        };
        for (changed_at, due) in [
            ("2026-11-21T11:59:00Z", "2026-11-21T12:29:00Z"),
            (NOW, "2026-11-21T12:30:00Z"),
            // Long ago, or by a clock that was set back since: no reason to wait.
            ("2026-11-21T11:29:00Z", NOW),
            ("2026-11-21T13:00:00Z", NOW),
        ] {
            assert_eq!(next(changed(changed_at)), at(due), "{changed_at}");
        }
        // What is planned for later is not brought forward.
        let planned = LastRuns {
            last_judged: Some(at("2026-11-21T01:00:00Z")),
            ..changed(NOW)
        };
        assert_eq!(next(planned), at("2026-11-22T01:00:00Z"));
    }

    #[test]
    fn a_run_of_the_future_stops_nothing() {
        let judged_at = |text| LastRuns {
            last_judged: Some(at(text)),
            ..LastRuns::default()
        };
        // Two clocks differ a little: what was done is done.
        assert_eq!(
            next(judged_at("2026-11-21T12:00:30Z")),
            at("2026-11-22T01:00:00Z")
        );
        // The clock was set back: due now, and still so whenever it is asked again.
        for now in [NOW, "2026-11-21T12:00:15Z", "2026-12-01T00:00:00Z"] {
            let last = judged_at("2027-11-21T12:00:00Z");
            assert_eq!(next_run(&daily(), &last, at(now)), Some(at(now)));
        }
        let checks = Schedule::parse("15s", TimeZone::UTC).unwrap();
        let last = judged_at("2026-11-21T12:00:16Z");
        assert_eq!(next_run(&checks, &last, at(NOW)), Some(at(NOW)));
    }

    #[test]
    fn the_period_is_the_longest_time_between_two_planned_runs() {
        for (schedule, hours) in [
            ("0 1 * * *", 24),
            ("0 1 * * 1-5", 72),
            ("0 4 * * 0", 168),
            ("6h", 6),
        ] {
            let schedule = Schedule::parse(schedule, TimeZone::UTC).unwrap();
            let period = schedule.period(at(NOW)).unwrap();
            assert_eq!(period, SignedDuration::from_hours(hours), "{schedule:?}");
        }
    }

    #[test]
    fn a_night_with_a_clock_change_has_one_run_at_its_hour() {
        let zone = TimeZone::get("Europe/London").unwrap();
        let midnight = Schedule::parse("0 0 * * *", zone).unwrap();
        let first = midnight.next_after(at("2026-03-28T12:00:00Z")).unwrap();
        assert_eq!(first, at("2026-03-29T00:00:00Z"));
        assert_eq!(midnight.next_after(first), Some(at("2026-03-29T23:00:00Z")));
    }

    #[test]
    fn a_wrong_schedule_is_refused() {
        for text in ["", "daily", "0 25 * * *", "-5s"] {
            assert!(Schedule::parse(text, TimeZone::UTC).is_err(), "{text:?}");
        }
    }
}
