//! The result of one verification of many objects: damage, objects that could not be checked, and remarks.

use serde::Serialize;

use crate::model::Verdict;
use crate::postgres::PostgresError;
use crate::restore::recover::{ErrorCause, error_cause, error_words};

/// Tables and indexes that one reason names; the rest are counted.
const NAMED: usize = 3;
/// The same of databases.
pub(super) const DATABASES: usize = 20;
/// Objects of one verification that a report lists in full.
const LISTED: usize = 50;

/// An object that a verification could not check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UncheckedObject {
    /// The database, and the table or index in it.
    pub object: String,
    pub reason: String,
    /// There is nothing to check, so the test may pass without it.
    #[serde(skip)]
    pub excused: bool,
}

impl UncheckedObject {
    fn is_database(&self) -> bool {
        !self.object.contains(": ")
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObjectFindings {
    bad: Vec<String>,
    unchecked: Vec<UncheckedObject>,
    remarks: Vec<String>,
}

impl ObjectFindings {
    pub(crate) fn damaged(&mut self, object: &str, reason: &str) {
        self.bad.push(format!("{object}: {reason}"));
    }

    pub(crate) fn unchecked(&mut self, object: &str, reason: impl Into<String>) {
        self.unchecked.push(UncheckedObject {
            object: object.to_owned(),
            reason: reason.into(),
            excused: false,
        });
    }

    /// There is nothing to check in `object`.
    pub(crate) fn excused(&mut self, object: &str, reason: impl Into<String>) {
        self.unchecked.push(UncheckedObject {
            object: object.to_owned(),
            reason: reason.into(),
            excused: true,
        });
    }

    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Adds the damage in `other`, and its unchecked objects as remarks: each verification reports its own unchecked objects.
    pub(crate) fn remark_unchecked(&mut self, other: Self) {
        self.bad.extend(other.bad);
        let unseen = other.unchecked.into_iter();
        self.remarks
            .extend(unseen.map(|it| format!("{}: {}", it.object, it.reason)));
    }

    /// The check of `object` failed with `error`: only some errors prove damage.
    pub(crate) fn check_failed(&mut self, object: &str, error: &PostgresError) {
        let words = error_words(error);
        match error_cause(error) {
            ErrorCause::Corrupt => self.damaged(object, &words),
            ErrorCause::Lacking => {
                self.unchecked(object, format!("this node lacks what it needs: {words}"));
            }
            ErrorCause::Unknown => self.unchecked(object, words),
        }
    }

    /// Critical for damage, unknown for an object that could not be checked, a warning for a remark.
    pub(crate) fn verdict(&self) -> Verdict {
        let worded = |it: &UncheckedObject| format!("{}: {}", it.object, it.reason);
        let (databases, objects): (Vec<_>, Vec<_>) =
            self.unchecked.iter().partition(|it| it.is_database());
        let databases = databases.into_iter().map(worded).collect::<Vec<_>>();
        let objects = objects.into_iter().map(worded).collect::<Vec<_>>();
        // A database hides more than a table does.
        let unseen = [
            list_first(&databases, DATABASES),
            list_first(&objects, NAMED),
        ];
        let unseen = unseen.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let unseen = (!unseen.is_empty()).then(|| format!("not looked at: {unseen}"));
        let remarks = list_first(&self.remarks, DATABASES);
        let bad = list_first(&self.bad, NAMED);
        let is_bad = bad.is_some();
        let parts: Vec<String> = [bad, unseen, remarks].into_iter().flatten().collect();
        let reason = parts.join("; ");
        if is_bad {
            Verdict::Critical(reason)
        } else if self.unchecked.iter().any(|it| !it.excused) {
            Verdict::Unknown(reason)
        } else if parts.is_empty() {
            Verdict::Ok
        } else {
            Verdict::Warning(reason)
        }
    }

    /// The first unchecked objects, for the list of a report.
    pub(crate) fn into_unchecked(self) -> Vec<UncheckedObject> {
        let mut list = self.unchecked;
        list.truncate(LISTED);
        list
    }
}

/// The first `most` of `reasons`, and how many more there are; `None` without any.
pub(super) fn list_first(reasons: &[String], most: usize) -> Option<String> {
    let named = reasons[..reasons.len().min(most)].join("; ");
    match reasons.len() {
        0 => None,
        all if all > most => Some(format!("{named}; and {} more", all - most)),
        _ => Some(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_comes_first_and_what_was_not_looked_at_is_never_ok() {
        let mut findings = ObjectFindings::default();
        assert_eq!(findings.verdict(), Verdict::Ok);
        findings.remark("closed was opened".to_owned());
        findings.excused("half", "an interrupted DROP DATABASE left it");
        assert_eq!(
            findings.verdict(),
            Verdict::Warning(
                "not looked at: half: an interrupted DROP DATABASE left it; closed was opened"
                    .to_owned()
            )
        );
        findings.unchecked("shop: public.a", "timeout");
        assert!(matches!(findings.verdict(), Verdict::Unknown(_)));
        findings.damaged("shop: public.b", "bad page");
        let Verdict::Critical(reason) = findings.verdict() else {
            panic!("{:?}", findings.verdict());
        };
        assert!(reason.starts_with("shop: public.b: bad page; not looked at: half"));
        assert!(reason.contains("shop: public.a: timeout"), "{reason}");
        assert_eq!(findings.into_unchecked().len(), 2);
    }

    #[test]
    fn damage_that_keeps_a_database_closed_is_more_than_a_remark() {
        let closed = |is_bad: bool| {
            let mut entered = ObjectFindings::default();
            match is_bad {
                true => entered.damaged("shop", "its map is damaged"),
                false => entered.unchecked("shop", "no locale"),
            }
            let mut findings = ObjectFindings::default();
            findings.remark_unchecked(entered);
            findings.verdict()
        };
        assert_eq!(closed(false), Verdict::Warning("shop: no locale".into()));
        let damage = Verdict::Critical("shop: its map is damaged".into());
        assert_eq!(closed(true), damage);
    }

    #[test]
    fn a_reason_names_a_few_and_counts_the_rest() {
        let mut findings = ObjectFindings::default();
        for n in 1..=5 {
            findings.damaged(&format!("t{n}"), "bad");
        }
        let reason = findings.verdict().reason().unwrap().to_owned();
        assert_eq!(reason, "t1: bad; t2: bad; t3: bad; and 2 more");
    }
}
