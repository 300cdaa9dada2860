//! Which of a series of backups `[retention]` keeps, and why: base backups and dump sets alike. Pure.
//!
//! It counts only what may stand in for something older; what that is, and all that else keeps a backup, is the caller's.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::Retention;

/// By how much two clocks may differ.
pub(crate) const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// A backup or a dump set, as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetentionItem<'a> {
    pub name: &'a str,
    /// `None` where it does not tell: it is the oldest then, and no rule of age keeps it.
    pub at: Option<Timestamp>,
    /// It builds on no other.
    pub is_full: bool,
    /// It leads on to the next one. What followed a pruned base backup is gone, so that it is no part of any window.
    pub recovers: bool,
    /// Its newest test passed.
    pub is_proven: bool,
}

/// The rule that keeps something for its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgeRule {
    Window,
    /// The window begins after it.
    BeforeWindow,
    OneOfFulls,
    NewerThanFulls,
}

/// The rules of one policy at one moment.
#[derive(Debug)]
pub(crate) struct RetentionRules<'a> {
    policy: Retention,
    now: Timestamp,
    /// Oldest first.
    counted: Vec<RetentionItem<'a>>,
    /// The last full one of a period, for those whose turn it is; with the period.
    keepers: BTreeMap<&'a str, String>,
}

impl<'a> RetentionRules<'a> {
    /// The rules by which `counted`, in any order, and what is older is kept.
    pub(crate) fn new(
        mut counted: Vec<RetentionItem<'a>>,
        policy: Retention,
        now: Timestamp,
    ) -> Self {
        counted.sort_by_key(|one| one.at);
        Self {
            keepers: keepers(&counted, policy),
            policy,
            now,
            counted,
        }
    }

    /// The last one; `None` where nothing counts, so that nothing may be deleted.
    pub(crate) fn newest(&self) -> Option<&'a str> {
        self.counted.last().map(|newest| newest.name)
    }

    /// By backup, not by test: testing an old one once more proves no less of a newer one.
    pub(crate) fn newest_proven(&self) -> Option<&'a str> {
        let mut newest_first = self.counted.iter().rev();
        newest_first
            .find(|one| one.is_proven)
            .map(|proven| proven.name)
    }

    /// The first rule of age that keeps `one`, whether it counts or not; `None` where none does.
    pub(crate) fn age_rule(&self, one: &RetentionItem<'_>) -> Option<AgeRule> {
        let at = one.at?;
        if one.recovers && self.window_begin().is_none_or(|begin| at >= begin) {
            return Some(AgeRule::Window);
        }
        if self.before_window() == Some(one.name) {
            return Some(AgeRule::BeforeWindow);
        }
        let oldest = self.oldest_full()?;
        if one.recovers && at >= oldest.at? {
            return Some(match one.is_full {
                true => AgeRule::OneOfFulls,
                false => AgeRule::NewerThanFulls,
            });
        }
        None
    }

    /// The period whose last full one `name` is.
    pub(crate) fn keeper_of(&self, name: &str) -> Option<&str> {
        self.keepers.get(name).map(String::as_str)
    }

    /// `rule` in words; `fulls` is what the newest N are called, such as "full backups".
    pub(crate) fn words(&self, rule: AgeRule, fulls: &str) -> String {
        let (days, count) = (
            self.policy.window_days.unwrap_or_default(),
            self.policy.fulls,
        );
        match rule {
            AgeRule::Window => format!("within the window of {days} days"),
            AgeRule::BeforeWindow => format!("the window of {days} days begins after it"),
            AgeRule::OneOfFulls => format!("one of the newest {count} {fulls}"),
            AgeRule::NewerThanFulls => format!("not older than the newest {count} {fulls}"),
        }
    }

    /// `None` where it lies before all time.
    fn window_begin(&self) -> Option<Timestamp> {
        let days = i64::from(self.policy.window_days.unwrap_or_default());
        self.now
            .checked_sub(SignedDuration::from_hours(24 * days))
            .ok()
    }

    /// The newest from before the window: without it, the window's first moments could not be recovered to.
    fn before_window(&self) -> Option<&'a str> {
        let begin = self.window_begin()?;
        let mut recoverable = self.counted.iter().filter(|one| one.recovers);
        let before = recoverable.rfind(|one| one.at.is_some_and(|at| at < begin));
        before.map(|one| one.name)
    }

    fn oldest_full(&self) -> Option<&RetentionItem<'a>> {
        let fulls = self.counted.iter().rev();
        let fulls = fulls.filter(|one| one.recovers && one.is_full);
        fulls.take(self.policy.fulls as usize).last()
    }
}

/// Why nothing may be deleted for its age: by a clock that is wrong, anything may be too old.
pub(crate) fn why_clock_is_wrong(now: Timestamp, of_s3: Timestamp) -> Option<String> {
    let off = now.duration_since(of_s3);
    (off.abs() > CLOCKS_DIFFER).then(|| {
        let (now, of_s3) = (now.strftime("%F %T UTC"), of_s3.strftime("%F %T UTC"));
        format!("this node's clock says {now} and S3's {of_s3}, so no age is known")
    })
}

/// Why something goes that no rule keeps; `fulls` as in [`RetentionRules::words`].
pub(crate) fn older_than_all(policy: Retention, fulls: &str) -> String {
    let (days, count) = (policy.window_days.unwrap_or_default(), policy.fulls);
    format!("older than the window of {days} days and the newest {count} {fulls}")
}

/// The last full one of each of the newest days, weeks, months and years that have one.
fn keepers<'a>(counted: &[RetentionItem<'a>], policy: Retention) -> BTreeMap<&'a str, String> {
    type Period = fn(Date) -> String;
    let periods: [(u32, Period); 4] = [
        (policy.yearly, |date| {
            date.strftime("the year %Y").to_string()
        }),
        (policy.monthly, |date| {
            date.strftime("the month %Y-%m").to_string()
        }),
        (policy.weekly, |date| {
            date.strftime("the week %G-W%V").to_string()
        }),
        (policy.daily, |date| date.strftime("the day %F").to_string()),
    ];
    let mut keepers = BTreeMap::new();
    for (count, period) in periods {
        let mut seen: Vec<String> = Vec::new();
        for one in counted.iter().rev().filter(|one| one.is_full) {
            let Some(at) = one.at else {
                continue;
            };
            let period = period(at.to_zoned(TimeZone::UTC).date());
            if seen.contains(&period) {
                continue;
            }
            if seen.len() >= count as usize {
                break;
            }
            // The longest period is named: it keeps the backup for longest.
            keepers.entry(one.name).or_insert_with(|| period.clone());
            seen.push(period);
        }
    }
    keepers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_differ_from_that_of_s3_by_ten_minutes() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (minutes, is_wrong) in [
            (0, false),
            (10, false),
            (-10, false),
            (11, true),
            (-11, true),
        ] {
            let of_s3 = now + SignedDuration::from_mins(minutes);
            let why = why_clock_is_wrong(now, of_s3);
            assert_eq!(why.is_some(), is_wrong, "{minutes}: {why:?}");
        }
    }
}
