//! Judges numbers against limits. Pure.

use jiff::SignedDuration;

use super::Limits;
use crate::model::Verdict;

/// One measured number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub object: Option<String>,
    /// `None` is SQL's NULL: no sample.
    pub number: Option<f64>,
    /// What else there is to say when it is not ok.
    pub detail: Option<String>,
}

impl Value {
    pub(super) fn judge(&self, limits: &Limits, unit: &str) -> Verdict {
        let Some(number) = self.number.filter(|number| !number.is_nan()) else {
            return Verdict::Unknown("there is no value".to_owned());
        };
        let detail = self.detail.as_ref();
        let detail = detail.map_or_else(String::new, |detail| format!("; {detail}"));
        limits.judge(number, |limit| {
            format!(
                "{} (limit {}){detail}",
                shown(number, unit),
                shown(limit, "")
            )
        })
    }
}

impl Limits {
    /// Judges `number`; `reason` is given the limit that it reaches.
    pub(super) fn judge(&self, number: f64, reason: impl Fn(f64) -> String) -> Verdict {
        let reached = |limit: Option<f64>| limit.filter(|limit| number >= *limit);
        match (reached(self.critical), reached(self.warning)) {
            (Some(limit), _) => Verdict::Critical(reason(limit)),
            (None, Some(limit)) => Verdict::Warning(reason(limit)),
            (None, None) => Verdict::Ok,
        }
    }
}

/// As "35 min" or "30 h".
pub(super) fn in_hours(duration: SignedDuration) -> String {
    match duration.as_hours() {
        0 => format!("{} min", duration.as_mins()),
        hours => format!("{hours} h"),
    }
}

/// As "85 %" or "3 clients"; two digits after the point where there are any.
fn shown(number: f64, unit: &str) -> String {
    let rounded = (number * 100.0).round() / 100.0;
    format!("{rounded} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_judged_by_the_limit_it_reaches() {
        let limits = Limits {
            warning: Some(80.0),
            critical: Some(95.0),
        };
        for (number, verdict) in [
            (Some(79.99), Verdict::Ok),
            (
                Some(80.0),
                Verdict::Warning("80 % (limit 80); see".to_owned()),
            ),
            (
                Some(95.004),
                Verdict::Critical("95 % (limit 95); see".to_owned()),
            ),
            (
                Some(f64::INFINITY),
                Verdict::Critical("inf % (limit 95); see".to_owned()),
            ),
            // Neither is small, and neither is well.
            (
                Some(f64::NAN),
                Verdict::Unknown("there is no value".to_owned()),
            ),
            (None, Verdict::Unknown("there is no value".to_owned())),
        ] {
            let value = Value {
                object: None,
                number,
                detail: Some("see".to_owned()),
            };
            assert_eq!(value.judge(&limits, "%"), verdict, "{number:?}");
        }
        assert_eq!(Limits::default().judge(1e9, |_| String::new()), Verdict::Ok);
    }
}
