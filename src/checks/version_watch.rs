//! Whether a program's version has changed while xdb watched it. Pure.

use std::time::{Duration, Instant};

use super::values::Sampled;

/// A change is worth an alert for this long.
const RECENT: Duration = Duration::from_hours(24);

/// The version that was last seen, and the last change.
#[derive(Debug, Default)]
pub(super) struct VersionWatch {
    pub(super) current: Option<String>,
    changed: Option<(String, Instant)>,
}

impl VersionWatch {
    /// Takes in the version at `now`.
    pub(super) fn saw(&mut self, version: &str, now: Instant) {
        match self.current.replace(version.to_owned()) {
            Some(before) if before != version => self.changed = Some((before, now)),
            _ => {}
        }
    }

    /// 1 for a day after a change; nothing before the version was first seen.
    pub(super) fn value(&self, now: Instant) -> Option<Sampled> {
        let current = self.current.as_deref()?;
        let recent = |(_, at): &&(String, Instant)| now.duration_since(*at) < RECENT;
        let changed = self.changed.as_ref().filter(recent);
        Some(Sampled {
            object: None,
            number: Ok(if changed.is_some() { 1.0 } else { 0.0 }),
            detail: Some(match changed {
                Some((before, _)) => format!("it is {current} now, and was {before}"),
                None => format!("it is {current}"),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_worth_an_alert_for_a_day() {
        let begin = Instant::now();
        let at = |hours| begin + Duration::from_hours(hours);
        let mut watch = VersionWatch::default();
        assert_eq!(watch.value(begin), None);
        watch.saw("PgBouncer 1.24.1", begin);
        assert_eq!(watch.value(begin).unwrap().number, Ok(0.0));
        watch.saw("PgBouncer 1.25.0", at(1));
        watch.saw("PgBouncer 1.25.0", at(2));
        let changed = watch.value(at(24)).unwrap();
        assert_eq!(changed.number, Ok(1.0));
        let detail = "it is PgBouncer 1.25.0 now, and was PgBouncer 1.24.1";
        assert_eq!(changed.detail.as_deref(), Some(detail));
        assert_eq!(watch.value(at(25)).unwrap().number, Ok(0.0));
    }
}
