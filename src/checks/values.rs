//! Judges measured numbers. Pure.

use std::collections::HashMap;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

use super::Limits;
use crate::model::{Severity, Verdict};

/// What a file says of the numbers of its check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    /// `s`, `B` and `%` are also shown and exported as such; anything else only names the number.
    pub unit: String,
    pub limits: Limits,
    /// An answer without rows is ok: each row is something to object to.
    pub may_be_empty: bool,
    /// What is judged is by how much the value grew within this time; `None` is the value itself.
    pub increase: Option<Duration>,
}

/// One measured number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sampled {
    pub object: Option<String>,
    /// Why there is none, otherwise.
    pub number: Result<f64, String>,
    /// What else there is to say when it is not ok.
    pub detail: Option<String>,
}

/// The verdict on one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judgement {
    pub object: Option<String>,
    pub verdict: Verdict,
    /// In the check's unit.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
}

impl From<(Option<String>, Verdict)> for Judgement {
    fn from((object, verdict): (Option<String>, Verdict)) -> Self {
        Self {
            object,
            verdict,
            value: None,
            threshold: None,
        }
    }
}

impl Sampled {
    /// Reads a column as the server writes it; `None` is NULL.
    pub(super) fn parse(text: Option<&str>) -> Result<f64, String> {
        let Some(text) = text else {
            return Err("there is no value (NULL)".to_owned());
        };
        match text.trim() {
            "t" | "yes" => Ok(1.0),
            "f" | "no" => Ok(0.0),
            text => match text.parse::<f64>() {
                Ok(number) if number.is_nan() => Err("the value is NaN".to_owned()),
                Ok(number) => Ok(number),
                Err(_) => Err(format!("the value {text:?} is no number")),
            },
        }
    }
}

impl Measure {
    fn judge(&self, value: &Sampled, standing: Option<Severity>) -> Judgement {
        let (number, verdict) = match &value.number {
            Err(reason) => (
                None,
                Verdict::Unknown(with_detail(reason, value.detail.as_deref())),
            ),
            Ok(number) => {
                let reason = |limit: f64| self.reason(*number, limit, value.detail.as_deref());
                let verdict = self.limits.judge_standing(*number, standing, reason);
                (Some(*number), verdict)
            }
        };
        Judgement {
            object: value.object.clone(),
            threshold: number.and_then(|_| self.limits.threshold(&verdict)),
            verdict,
            value: number,
        }
    }

    /// As "85 % (limit 80 %); 17 of 20". Without a unit the detail is all there is to say.
    fn reason(&self, number: f64, limit: f64, detail: Option<&str>) -> String {
        if let (true, Some(detail)) = (self.unit.is_empty(), detail) {
            return detail.to_owned();
        }
        let limit = match self.unit.as_str() {
            "s" | "B" | "%" => shown(limit, &self.unit),
            _ => shown(limit, ""),
        };
        let within = self.increase.map_or_else(String::new, |within| {
            format!(" within {}", shown(within.as_secs_f64(), "s"))
        });
        let reason = format!("{}{within} (limit {limit})", shown(number, &self.unit));
        with_detail(&reason, detail)
    }

    /// Judges each value; `standing` knows the alerts that are raised by their object.
    ///
    /// Of two values of one object the worse counts: they would raise and resolve one alert in turn.
    pub(super) fn judge_all(
        &self,
        values: &[Sampled],
        standing: impl Fn(&str) -> Option<Severity>,
    ) -> Vec<Judgement> {
        if values.is_empty() {
            let verdict = match self.may_be_empty {
                true => Verdict::Ok,
                false => Verdict::Unknown("the answer has no row".to_owned()),
            };
            return vec![(None, verdict).into()];
        }
        let mut at: HashMap<Option<&str>, usize> = HashMap::new();
        let mut judged: Vec<Judgement> = Vec::new();
        for value in values {
            let object = value.object.as_deref();
            let next = self.judge(value, standing(object.unwrap_or_default()));
            match at.get(&object).and_then(|index| judged.get_mut(*index)) {
                Some(before) => {
                    if Verdict::worst([&before.verdict, &next.verdict]) != before.verdict {
                        *before = next;
                    }
                }
                None => {
                    at.insert(object, judged.len());
                    judged.push(next);
                }
            }
        }
        judged
    }
}

fn with_detail(reason: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{reason}; {detail}"),
        None => reason.to_owned(),
    }
}

/// As "35 min" or "30 h".
pub(super) fn in_hours(duration: SignedDuration) -> String {
    match duration.as_hours() {
        0 => format!("{} min", duration.as_mins()),
        hours => format!("{hours} h"),
    }
}

/// As "85 %", "35 min", "16.0 MiB" or "3 clients"; two digits after the point where there are any.
pub(super) fn shown(number: f64, unit: &str) -> String {
    let rounded = |number: f64| (number * 100.0).round() / 100.0;
    match unit {
        "s" if number.is_finite() && number >= 120.0 => {
            let (minutes, hours, days) = (number / 60.0, number / 3600.0, number / 86400.0);
            match minutes {
                minutes if minutes < 120.0 => format!("{} min", minutes.floor()),
                _ if hours < 48.0 => format!("{} h", hours.floor()),
                _ => format!("{} d", days.floor()),
            }
        }
        "B" if (1024.0..9e18).contains(&number) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "for showing; it is positive and below 2^63"
            )]
            let bytes = number as u64;
            ByteSize(bytes).to_string()
        }
        _ => format!("{} {unit}", rounded(number)).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(unit: &str) -> Measure {
        Measure {
            unit: unit.to_owned(),
            limits: Limits {
                warning: Some(80.0),
                critical: Some(95.0),
                ..Limits::default()
            },
            may_be_empty: false,
            increase: None,
        }
    }

    fn value(object: &str, number: Result<f64, String>) -> Sampled {
        Sampled {
            object: Some(object.to_owned()),
            number,
            detail: Some("see".to_owned()),
        }
    }

    #[test]
    fn a_number_is_judged_by_the_limit_it_reaches() {
        let warning = |reason: &str| Verdict::Warning(reason.to_owned());
        let critical = |reason: &str| Verdict::Critical(reason.to_owned());
        let unknown = |reason: &str| Verdict::Unknown(reason.to_owned());
        for (text, unit, verdict) in [
            (Some("79.99"), "%", Verdict::Ok),
            (Some("80"), "%", warning("80 % (limit 80 %); see")),
            (Some("95.004"), "%", critical("95 % (limit 95 %); see")),
            (Some("Infinity"), "%", critical("inf % (limit 95 %); see")),
            (Some("90"), "clients", warning("90 clients (limit 80); see")),
            // Without a unit a number says nothing that the detail does not.
            (Some("90"), "", warning("see")),
            // Neither is small, and neither is well.
            (Some("NaN"), "%", unknown("the value is NaN; see")),
            (None, "%", unknown("there is no value (NULL); see")),
            (
                Some("many"),
                "%",
                unknown("the value \"many\" is no number; see"),
            ),
            (Some("f"), "", Verdict::Ok),
        ] {
            let value = value("a", Sampled::parse(text));
            let judged = measure(unit).judge_all(&[value], |_| None);
            assert_eq!(judged.len(), 1);
            assert_eq!(judged[0].verdict, verdict, "{text:?}");
        }
    }

    #[test]
    fn no_row_is_unknown_unless_the_file_says_otherwise() {
        let mut measure = measure("");
        let judge = |measure: &Measure| measure.judge_all(&[], |_| None).remove(0).verdict;
        assert_eq!(judge(&measure).word(), "unknown");
        measure.may_be_empty = true;
        assert_eq!(judge(&measure), Verdict::Ok);
    }

    #[test]
    fn one_object_has_one_verdict_the_worst() {
        let number = |object, number| value(object, Ok(number));
        let values = [number("a", 5.0), number("b", 85.0), number("a", 99.0)];
        let judged = measure("%").judge_all(&values, |_| None);
        let shown: Vec<_> = judged
            .iter()
            .map(|one| {
                (
                    one.object.as_deref().unwrap(),
                    one.verdict.word(),
                    one.value,
                    one.threshold,
                )
            })
            .collect();
        let expected = [
            ("a", "critical", Some(99.0), Some(95.0)),
            ("b", "warning", Some(85.0), Some(80.0)),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn durations_and_sizes_are_shown_in_words() {
        for (number, unit, expected) in [
            (90.0, "s", "90 s"),
            (1800.0, "s", "30 min"),
            (10_800.0, "s", "3 h"),
            (259_200.0, "s", "3 d"),
            (512.0, "B", "512 B"),
            (16_777_216.0, "B", "16.0 MiB"),
            (12.345, "%", "12.35 %"),
            (3.0, "", "3"),
        ] {
            assert_eq!(shown(number, unit), expected);
        }
        assert_eq!(in_hours(SignedDuration::from_secs(600)), "10 min");
    }
}
