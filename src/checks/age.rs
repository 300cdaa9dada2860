//! Judges how long ago a job last succeeded on any node. Pure.

use jiff::{SignedDuration, Timestamp};

use super::Limits;
use super::values::in_hours;
use crate::model::Verdict;
use crate::repository::Success;

/// The limits are in seconds; what never succeeded is critical.
pub(super) fn judge(success: Option<&Success>, limits: &Limits, now: Timestamp) -> Verdict {
    let Some(success) = success else {
        return Verdict::Critical("never succeeded".to_owned());
    };
    if success.is_of_future(now) {
        return Verdict::Unknown(format!(
            "the last success is of {}, which is yet to come: the clock of {} or of this node is wrong",
            success.finished_at().strftime("%F %T UTC"),
            success.node
        ));
    }
    // A node's clock may be a little ahead.
    let age = now
        .duration_since(success.finished_at())
        .max(SignedDuration::ZERO);
    limits.judge(age.as_secs_f64(), |limit| {
        format!(
            "last succeeded {} ago on {} (limit {})",
            in_hours(age),
            success.node,
            in_hours(SignedDuration::from_secs_f64(limit))
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DumpDetail, JobDetail};

    #[test]
    fn the_age_is_that_of_the_last_success_and_never_is_critical() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-21T12:00:00Z");
        let limits = Limits {
            warning: Some(30.0 * 3600.0),
            critical: Some(54.0 * 3600.0),
            ..Limits::default()
        };
        for (finished, verdict) in [
            ("2026-11-21T02:00:00Z", Verdict::Ok),
            // By a clock that is ahead.
            ("2026-11-21T12:00:05Z", Verdict::Ok),
            (
                "2026-11-20T05:59:00Z",
                Verdict::Warning("last succeeded 30 h ago on db2 (limit 30 h)".to_owned()),
            ),
            (
                "2026-11-19T02:00:00Z",
                Verdict::Critical("last succeeded 58 h ago on db2 (limit 54 h)".to_owned()),
            ),
        ] {
            let detail = JobDetail::Dump(DumpDetail::default());
            let success = Success::new("db2", at(finished), at(finished), detail);
            assert_eq!(judge(Some(&success), &limits, now), verdict, "{finished}");
        }
        let at = at("2026-11-22T12:00:00Z");
        let future = Success::new("db2", at, at, JobDetail::Dump(DumpDetail::default()));
        assert_eq!(judge(Some(&future), &limits, now).word(), "unknown");
        assert_eq!(judge(None, &limits, now).word(), "critical");
        assert_eq!(in_hours(SignedDuration::from_secs(600)), "10 min");
    }
}
