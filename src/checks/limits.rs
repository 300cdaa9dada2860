//! The limits that a number is held against. Pure.

use crate::model::{Severity, Verdict};

/// From which value on it is a warning, and from which critical; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    pub warning: Option<f64>,
    pub critical: Option<f64>,
    pub worse: Worse,
    /// How far a value must come back behind a limit before an alert that stands is lowered or resolved.
    pub recover: f64,
}

/// The direction in which a value gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Worse {
    #[default]
    Above,
    Below,
}

impl Worse {
    /// The word for it in a file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl Limits {
    /// Judges `number`; `reason` is given the limit that it reaches.
    pub(super) fn judge(&self, number: f64, reason: impl Fn(f64) -> String) -> Verdict {
        self.judge_standing(number, None, reason)
    }

    /// The same where an alert of this severity stands: it is held until the value is back by [`Limits::recover`].
    pub(super) fn judge_standing(
        &self,
        number: f64,
        standing: Option<Severity>,
        reason: impl Fn(f64) -> String,
    ) -> Verdict {
        let reached = |limit: Option<f64>, severity| {
            let margin = match standing {
                Some(standing) if standing >= severity => self.recover,
                _ => 0.0,
            };
            limit.filter(|limit| match self.worse {
                Worse::Above => number >= limit - margin,
                Worse::Below => number <= limit + margin,
            })
        };
        let critical = reached(self.critical, Severity::Critical);
        match (critical, reached(self.warning, Severity::Warning)) {
            (Some(limit), _) => Verdict::Critical(reason(limit)),
            (None, Some(limit)) => Verdict::Warning(reason(limit)),
            (None, None) => Verdict::Ok,
        }
    }

    /// The limit that belongs to `verdict`; for ok the one that comes first.
    pub(super) fn threshold(&self, verdict: &Verdict) -> Option<f64> {
        match verdict {
            Verdict::Critical(_) => self.critical,
            Verdict::Unknown(_) => None,
            _ => self.warning.or(self.critical),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(limits: &Limits, standing: Option<Severity>, numbers: &[f64]) -> Vec<&'static str> {
        let judge = |number: &f64| limits.judge_standing(*number, standing, |_| String::new());
        numbers.iter().map(|number| judge(number).word()).collect()
    }

    #[test]
    fn a_limit_works_in_either_direction() {
        let above = Limits {
            warning: Some(80.0),
            critical: Some(95.0),
            ..Limits::default()
        };
        let numbers = [79.9, 80.0, 94.9, 95.0, f64::INFINITY];
        let expected = ["ok", "warning", "warning", "critical", "critical"];
        assert_eq!(words(&above, None, &numbers), expected);
        let below = Limits {
            warning: Some(20.0),
            critical: Some(5.0),
            worse: Worse::Below,
            ..Limits::default()
        };
        let numbers = [20.1, 20.0, 5.1, 5.0, f64::NEG_INFINITY];
        assert_eq!(words(&below, None, &numbers), expected);
        assert_eq!(words(&Limits::default(), None, &[1e9]), ["ok"]);
    }

    #[test]
    fn an_alert_that_stands_is_held_until_the_value_is_back_by_the_margin() {
        let above = Limits {
            warning: Some(80.0),
            critical: Some(95.0),
            recover: 5.0,
            ..Limits::default()
        };
        let numbers = [74.9, 75.0, 89.9, 90.0];
        let free = ["ok", "ok", "warning", "warning"];
        assert_eq!(words(&above, None, &numbers), free);
        // An alert on what could not be seen holds nothing.
        assert_eq!(words(&above, Some(Severity::Unknown), &numbers), free);
        let warned = ["ok", "warning", "warning", "warning"];
        assert_eq!(words(&above, Some(Severity::Warning), &numbers), warned);
        let held = ["ok", "warning", "warning", "critical"];
        assert_eq!(words(&above, Some(Severity::Critical), &numbers), held);
        let below = Limits {
            warning: Some(20.0),
            critical: None,
            worse: Worse::Below,
            recover: 5.0,
        };
        let standing = Some(Severity::Warning);
        assert_eq!(words(&below, standing, &[25.0, 25.1]), ["warning", "ok"]);
    }
}
