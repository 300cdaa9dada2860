//! What a finding makes of an alert. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::{AlertState, Finding, Severity};

/// What to tell, and what to remember.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// Nothing to tell; `None` when all is well.
    Silent(Option<AlertState>),
    Raise(AlertState),
    Escalate(AlertState),
    /// Still bad, but less so.
    Lower(AlertState),
    /// All is well again: the alert as it was, with the reason for its end.
    Resolve(AlertState),
}

/// Judges `finding` against what was known of its alert.
///
/// Findings must be other than ok for all of `hold` before the alert is raised. Unknown is never
/// ok: it raises an alert of its own, keeps `hold` running, and leaves the severity of a raised alert as it stands.
pub fn transition(
    previous: Option<&AlertState>,
    finding: &Finding,
    now: Timestamp,
    hold: Duration,
) -> Transition {
    let raised = previous.filter(|state| state.raised_at.is_some());
    let Some(severity) = Severity::of(&finding.verdict) else {
        return match raised {
            Some(raised) => Transition::Resolve(AlertState {
                reason: "ok again".to_owned(),
                value: finding.value,
                threshold: finding.threshold,
                ..raised.clone()
            }),
            None => Transition::Silent(None),
        };
    };
    let current = |since, raised_at| AlertState {
        severity,
        since,
        raised_at,
        reason: finding.verdict.reason().unwrap_or_default().to_owned(),
        value: finding.value,
        threshold: finding.threshold,
        runbook: finding.runbook.clone(),
        notice: previous
            .map(|known| known.notice.clone())
            .unwrap_or_default(),
    };
    let Some(raised) = raised else {
        // After the clock was set back, the time starts again: otherwise it would never end.
        let since = previous.map_or(now, |pending| pending.since.min(now));
        let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
        return if now.duration_since(since) >= hold {
            Transition::Raise(current(since, Some(now)))
        } else {
            Transition::Silent(Some(current(since, None)))
        };
    };
    if severity == Severity::Unknown && raised.severity != Severity::Unknown {
        return Transition::Silent(Some(not_seen(raised, finding)));
    }
    let current = current(raised.since, raised.raised_at);
    match severity.cmp(&raised.severity) {
        Ordering::Greater => Transition::Escalate(current),
        Ordering::Equal => Transition::Silent(Some(current)),
        Ordering::Less => Transition::Lower(current),
    }
}

/// Parts what was known from why it cannot be checked.
const NOT_SEEN: &str = "; cannot be checked now: ";

/// The alert as it was known, with why it cannot be checked.
fn not_seen(raised: &AlertState, finding: &Finding) -> AlertState {
    let known = raised.reason.split(NOT_SEEN).next().unwrap_or_default();
    let why = finding.verdict.reason().unwrap_or_default();
    AlertState {
        reason: format!("{known}{NOT_SEEN}{why}"),
        ..raised.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scope, Verdict};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_778_666_069 + second).unwrap()
    }

    fn verdict(word: &str) -> Verdict {
        let reason = format!("is {word}");
        match word {
            "ok" => Verdict::Ok,
            "warning" => Verdict::Warning(reason),
            "critical" => Verdict::Critical(reason),
            "unknown" => Verdict::Unknown(reason),
            _ => unreachable!(),
        }
    }

    /// Feeds `findings` (second, verdict) one after the other; gives what was told, as "second word since".
    fn told(hold_secs: u64, findings: &[(i64, &str)]) -> Vec<String> {
        let mut state = None;
        let mut told = Vec::new();
        for (second, word) in findings {
            let finding = Finding::new("lag", Scope::Cluster, "db2", verdict(word));
            let step = transition(
                state.as_ref(),
                &finding,
                at(*second),
                Duration::from_secs(hold_secs),
            );
            let (kind, next) = match step {
                Transition::Silent(next) => {
                    state = next;
                    continue;
                }
                Transition::Raise(next) => ("raise", Some(next)),
                Transition::Escalate(next) => ("escalate", Some(next)),
                Transition::Lower(next) => ("lower", Some(next)),
                Transition::Resolve(was) => {
                    told.push(format!("{second} resolve {}", was.severity.word()));
                    state = None;
                    continue;
                }
            };
            let next = next.unwrap();
            let since = next.since.duration_since(at(0)).as_secs();
            told.push(format!(
                "{second} {kind} {} since {since}",
                next.severity.word()
            ));
            state = Some(next);
        }
        told
    }

    #[test]
    fn each_history_is_told_so() {
        for (about, hold, findings, expected) in [
            ("all is well", 0, &[(0, "ok"), (1, "ok")][..], &[][..]),
            (
                "raised once, resolved once",
                0,
                &[(0, "critical"), (1, "critical"), (2, "ok"), (3, "ok")],
                &["0 raise critical since 0", "2 resolve critical"],
            ),
            (
                "worse and better",
                0,
                &[(0, "warning"), (1, "critical"), (2, "warning"), (3, "ok")],
                &[
                    "0 raise warning since 0",
                    "1 escalate critical since 0",
                    "2 lower warning since 0",
                    "3 resolve warning",
                ],
            ),
            (
                "too short to tell",
                60,
                &[
                    (0, "critical"),
                    (59, "critical"),
                    (60, "ok"),
                    (61, "critical"),
                    (120, "warning"),
                ],
                &[],
            ),
            (
                "long enough",
                60,
                &[
                    (0, "warning"),
                    (30, "warning"),
                    (60, "critical"),
                    (90, "ok"),
                ],
                &["60 raise critical since 0", "90 resolve critical"],
            ),
            (
                "not to look is its own severity",
                0,
                &[(0, "unknown"), (1, "unknown"), (2, "ok")],
                &["0 raise unknown since 0", "2 resolve unknown"],
            ),
            (
                "not to look neither resolves nor softens",
                0,
                &[
                    (0, "critical"),
                    (1, "unknown"),
                    (2, "unknown"),
                    (3, "critical"),
                    (4, "ok"),
                ],
                &["0 raise critical since 0", "4 resolve critical"],
            ),
            (
                "not to look does not start the time anew",
                60,
                &[(0, "critical"), (30, "unknown"), (60, "critical")],
                &["60 raise critical since 0"],
            ),
            (
                "then it turns out to be bad",
                0,
                &[(0, "unknown"), (1, "warning"), (2, "critical")],
                &[
                    "0 raise unknown since 0",
                    "1 escalate warning since 0",
                    "2 escalate critical since 0",
                ],
            ),
            (
                "the clock is set back by an hour while pending",
                60,
                &[
                    (0, "warning"),
                    (-3600, "warning"),
                    (-3570, "warning"),
                    (-3540, "warning"),
                ],
                &["-3540 raise warning since -3600"],
            ),
            (
                "the clock is set back while raised",
                60,
                &[
                    (0, "warning"),
                    (60, "warning"),
                    (-3600, "warning"),
                    (-3599, "ok"),
                ],
                &["60 raise warning since 0", "-3599 resolve warning"],
            ),
        ] {
            assert_eq!(told(hold, findings), expected, "{about}");
        }
    }

    #[test]
    fn a_silent_alert_keeps_what_was_measured_last_and_an_unseen_one_what_was_known() {
        let finding = |word, value| Finding {
            value: Some(value),
            threshold: Some(60.0),
            ..Finding::new("lag", Scope::Cluster, "", verdict(word))
        };
        let Transition::Raise(raised) =
            transition(None, &finding("warning", 70.0), at(0), Duration::ZERO)
        else {
            panic!("not raised")
        };
        let Transition::Silent(Some(later)) = transition(
            Some(&raised),
            &finding("warning", 80.0),
            at(1),
            Duration::ZERO,
        ) else {
            panic!("not silent")
        };
        assert_eq!(
            later,
            AlertState {
                value: Some(80.0),
                ..raised
            }
        );
        let unseen = transition(
            Some(&later),
            &finding("unknown", 0.0),
            at(2),
            Duration::ZERO,
        );
        let reason = "is warning; cannot be checked now: is unknown";
        let expected = AlertState {
            reason: reason.to_owned(),
            ..later
        };
        assert_eq!(unseen, Transition::Silent(Some(expected.clone())));
        // Said once, however long it lasts.
        let again = transition(
            Some(&expected),
            &finding("unknown", 0.0),
            at(3),
            Duration::ZERO,
        );
        assert_eq!(again, Transition::Silent(Some(expected)));
    }
}
