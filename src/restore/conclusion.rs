//! How a test of a backup or of a dump ended: one judgement of its outcome and of its verifications.

use serde::Serialize;

use super::error::RestoreError;
use super::verifications::{Verifications, named_reason};
use crate::log;
use crate::model::Verdict;

/// How a restore test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conclusion {
    Passed,
    /// Done or tried, and bad.
    Failed,
    /// Restored, nothing bad was found, and some checks could not be made.
    Incomplete,
    /// Not tried, for safety.
    Refused,
    /// Could not be run to its end, so the backup was not judged.
    NotRun,
}

impl Conclusion {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Failed => "FAILED",
            Self::Incomplete => "INCOMPLETE",
            Self::Refused => "REFUSED",
            Self::NotRun => "NOT RUN",
        }
    }
}

/// The conclusion of a test that ended with `error`.
pub(crate) fn conclusion_of(error: &RestoreError) -> Conclusion {
    match error {
        RestoreError::Bad(_) | RestoreError::Unreachable { .. } => Conclusion::Failed,
        RestoreError::Refused { .. } | RestoreError::Busy { .. } => Conclusion::Refused,
        _ => Conclusion::NotRun,
    }
}

/// What differs between the tests of backups and those of dumps.
pub(crate) struct Advice {
    /// The hint where a verification found something bad.
    pub bad: &'static str,
    /// The conclusion and the hint where a verification could not be made.
    pub unknown: (Conclusion, &'static str),
}

/// A conclusion and its reason.
#[derive(Debug)]
pub(crate) struct Concluded {
    pub conclusion: Conclusion,
    /// Why the test did not pass.
    pub reason: Option<String>,
    pub hint: Option<String>,
}

/// Concludes from the outcome of the work and from its verifications.
pub(crate) fn conclude(
    outcome: &Result<(), RestoreError>,
    verifications: &Verifications,
    advice: &Advice,
) -> Concluded {
    let decisive = verifications.decisive();
    let is_bad = decisive.is_some_and(|made| matches!(made.verdict, Verdict::Critical(_)));
    let seen = decisive.map(named_reason);
    let advised = |(conclusion, hint): (Conclusion, &str), reason| Concluded {
        conclusion,
        reason: Some(reason),
        hint: Some(hint.to_owned()),
    };
    let error = match (outcome, seen) {
        (Ok(()), None) => {
            return Concluded {
                conclusion: Conclusion::Passed,
                reason: None,
                hint: None,
            };
        }
        (Ok(()), Some(seen)) if is_bad => return advised((Conclusion::Failed, advice.bad), seen),
        (Ok(()), Some(seen)) => return advised(advice.unknown, seen),
        (Err(error), seen) => (error, seen),
    };
    let (error, seen) = error;
    let message = log::chain(error);
    match (conclusion_of(error), seen) {
        // Damage that was found counts, however the test ended.
        (Conclusion::NotRun | Conclusion::Refused, Some(seen)) if is_bad => advised(
            (Conclusion::Failed, advice.bad),
            format!("{seen} (then: {message})"),
        ),
        (conclusion, seen) => Concluded {
            conclusion,
            reason: Some(match seen {
                Some(seen) if conclusion == Conclusion::Failed => format!("{message} ({seen})"),
                _ => message,
            }),
            hint: error.hint(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADVICE: Advice = Advice {
        bad: "bad",
        unknown: (Conclusion::Incomplete, "unknown"),
    };

    #[test]
    fn what_was_found_bad_stays_bad_and_what_could_not_be_checked_passes_only_if_excused() {
        let lost = || RestoreError::StorageLost {
            doing: "a dump was read",
            message: "timed out".to_owned(),
        };
        let refused = || RestoreError::Refused {
            reason: "a server runs here".to_owned(),
            hint: "stop it".to_owned(),
        };
        let critical = || Verdict::Critical("cut".to_owned());
        let unknown = || Verdict::Unknown("no postgis".to_owned());
        let warning = || Verdict::Warning("half".to_owned());
        let then = "a: cut (then: S3 was lost while a dump was read: timed out)";
        for (verdicts, outcome, conclusion, reason) in [
            (vec![Verdict::Ok, warning()], Ok(()), Conclusion::Passed, ""),
            (
                vec![unknown(), critical()],
                Ok(()),
                Conclusion::Failed,
                "b: cut",
            ),
            (vec![critical()], Err(lost()), Conclusion::Failed, then),
            (
                vec![critical()],
                Err(RestoreError::Bad("it stopped".to_owned())),
                Conclusion::Failed,
                "it stopped (a: cut)",
            ),
            (
                vec![critical()],
                Err(refused()),
                Conclusion::Failed,
                "a: cut (then: refused: a server runs here)",
            ),
            (
                vec![unknown()],
                Err(refused()),
                Conclusion::Refused,
                "refused: a server runs here",
            ),
            (
                vec![Verdict::Ok],
                Err(lost()),
                Conclusion::NotRun,
                "S3 was lost while a dump was read: timed out",
            ),
            (
                vec![unknown(), Verdict::Ok],
                Ok(()),
                Conclusion::Incomplete,
                "a: no postgis",
            ),
            (
                vec![Verdict::Ok, Verdict::Ok, unknown()],
                Ok(()),
                Conclusion::Passed,
                "",
            ),
        ] {
            let mut verifications = Verifications::default();
            verifications.excuse("c");
            for (name, verdict) in ["a", "b", "c"].into_iter().zip(verdicts) {
                verifications.add(name, verdict);
            }
            let concluded = conclude(&outcome, &verifications, &ADVICE);
            assert_eq!(
                (
                    concluded.conclusion,
                    concluded.reason.as_deref().unwrap_or("")
                ),
                (conclusion, reason)
            );
            let passed = conclusion == Conclusion::Passed;
            assert_eq!(concluded.hint.is_none(), passed);
        }
    }
}
