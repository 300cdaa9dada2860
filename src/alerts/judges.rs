//! Which alerts this process has judged, and which have no judge any more. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::{AlertKey, Finding, Scope, Severity};

/// A finding, and how long it must last before it is an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub finding: Finding,
    pub hold: Duration,
}

/// An alert that nothing judges stands at least this long.
const AT_LEAST: Duration = Duration::from_secs(60);
/// And through this many runs of the checks.
const ROUNDS: u64 = 2;

/// When something was seen: by the runs of the checks so far, and by the clock.
#[derive(Debug, Clone, Copy)]
struct Moment {
    round: u64,
    at: Timestamp,
}

impl Moment {
    fn is_long_before(self, now: Self) -> bool {
        let passed = now.at.duration_since(self.at);
        now.round >= self.round + ROUNDS
            && passed >= SignedDuration::try_from(AT_LEAST).unwrap_or(SignedDuration::MAX)
    }
}

/// What was judged since this process began.
#[derive(Debug, Default)]
pub(super) struct Judges {
    rounds: u64,
    /// By check and scope: the objects are the judge's own affair.
    judged: BTreeMap<(String, Scope), Moment>,
    /// Alerts whose last judgement here was bad.
    bad: BTreeSet<AlertKey>,
    /// Standing alerts without a judge, since when.
    without: BTreeMap<AlertKey, Moment>,
}

impl Judges {
    /// Takes in what a look found.
    pub(super) fn saw(&mut self, judged: &[Judged], at: Timestamp) {
        let moment = Moment {
            round: self.rounds,
            at,
        };
        for Judged { finding, .. } in judged {
            let key = AlertKey::of(finding);
            let of = (key.check.clone(), key.scope.clone());
            self.judged.insert(of, moment);
            if Severity::of(&finding.verdict).is_some() {
                self.bad.insert(key);
            } else {
                self.bad.remove(&key);
            }
        }
    }

    /// A run of all checks has ended.
    pub(super) fn round_ended(&mut self) {
        self.rounds += 1;
    }

    /// Whether the last judgement of it by this process was bad.
    pub(super) fn saw_bad(&self, key: &AlertKey) -> bool {
        self.bad.contains(key)
    }

    pub(super) fn forget(&mut self, key: &AlertKey) {
        self.bad.remove(key);
    }

    /// Those of `standing` that nothing has judged for a while.
    pub(super) fn abandoned<'a>(
        &mut self,
        standing: impl Iterator<Item = &'a AlertKey>,
        at: Timestamp,
    ) -> Vec<AlertKey> {
        let now = Moment {
            round: self.rounds,
            at,
        };
        let mut without = BTreeMap::new();
        for key in standing {
            let judged = self.judged.get(&(key.check.clone(), key.scope.clone()));
            if judged.is_some_and(|judged| !judged.is_long_before(now)) {
                continue;
            }
            let since = self.without.get(key).copied().unwrap_or(now);
            without.insert(key.clone(), since);
        }
        self.without = without;
        let long = self.without.iter().filter(|(key, since)| {
            let judged = self.judged.get(&(key.check.clone(), key.scope.clone()));
            judged.is_some() || since.is_long_before(now)
        });
        long.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, Verdict};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(10_000 + second).unwrap()
    }

    fn judged(check: &str, verdict: Verdict) -> Judged {
        Judged {
            finding: Finding::new(check, Scope::Cluster, "", verdict),
            hold: Duration::ZERO,
        }
    }

    fn key(check: &str) -> AlertKey {
        AlertKey::parse(&format!("{check}/cluster/")).unwrap()
    }

    #[test]
    fn only_what_was_judged_neither_for_two_rounds_nor_for_a_minute_is_abandoned() {
        let standing = [key("judged"), key("removed")];
        // Seconds at which a round ends, and what is abandoned after it.
        for (rounds, expected) in [
            (&[15][..], 0),
            (&[15, 30, 45, 60], 0),
            (&[15, 30, 45, 60, 75], 1),
            (&[3600], 0),
            (&[3600, 7200], 0),
            (&[3600, 7200, 10_800], 1),
        ] {
            let mut judges = Judges::default();
            let mut abandoned = Vec::new();
            for second in rounds {
                judges.saw(&[judged("judged", Verdict::Ok)], at(*second));
                judges.round_ended();
                abandoned = judges.abandoned(standing.iter(), at(*second));
            }
            assert_eq!(abandoned.len(), expected, "{rounds:?}");
            assert!(!abandoned.contains(&key("judged")));
        }
    }

    #[test]
    fn a_check_that_is_judged_no_more_is_abandoned_too() {
        let mut judges = Judges::default();
        judges.saw(&[judged("a", Verdict::Warning("w".to_owned()))], at(0));
        assert!(judges.saw_bad(&key("a")));
        let standing = [key("a")];
        for (second, abandoned) in [(15, 0), (30, 0), (61, 1)] {
            judges.round_ended();
            let found = judges.abandoned(standing.iter(), at(second));
            assert_eq!(found.len(), abandoned, "{second}");
        }
        judges.saw(&[judged("a", Verdict::Ok)], at(62));
        assert!(!judges.saw_bad(&key("a")));
        assert!(judges.abandoned(standing.iter(), at(62)).is_empty());
    }
}
