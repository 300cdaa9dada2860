//! The result of one verification of many objects: damage, objects that could not be checked, and remarks.

use serde::Serialize;

use super::cause::{Cause, cause, in_words};
use crate::model::Verdict;
use crate::postgres::PostgresError;

/// Tables and indexes that one reason names; the rest are counted.
const NAMED: usize = 3;
/// The same of databases.
pub(super) const DATABASES: usize = 20;
/// Objects of one verification that a report lists in full.
const LISTED: usize = 50;

/// An object that a verification did not look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotLookedAt {
    /// The database, and the table or index in it.
    pub object: String,
    pub reason: String,
    /// There is nothing to look at, so the test may pass without it.
    #[serde(skip)]
    pub excused: bool,
}

impl NotLookedAt {
    fn is_database(&self) -> bool {
        !self.object.contains(": ")
    }
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    bad: Vec<String>,
    not_looked_at: Vec<NotLookedAt>,
    remarks: Vec<String>,
}

impl Look {
    pub fn bad(&mut self, object: &str, reason: &str) {
        self.bad.push(format!("{object}: {reason}"));
    }

    pub fn not_looked_at(&mut self, object: &str, reason: impl Into<String>) {
        self.not_looked_at.push(NotLookedAt {
            object: object.to_owned(),
            reason: reason.into(),
            excused: false,
        });
    }

    /// There is nothing to look at in `object`.
    pub fn nothing_in(&mut self, object: &str, reason: impl Into<String>) {
        self.not_looked_at.push(NotLookedAt {
            object: object.to_owned(),
            reason: reason.into(),
            excused: true,
        });
    }

    pub fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Adds the damage in `other`, and its unchecked objects as remarks: each verification reports its own unchecked objects.
    pub fn remark_not_looked_at(&mut self, other: Self) {
        self.bad.extend(other.bad);
        let unseen = other.not_looked_at.into_iter();
        self.remarks
            .extend(unseen.map(|it| format!("{}: {}", it.object, it.reason)));
    }

    /// The check of `object` failed with `error`: only some errors prove damage.
    pub fn failed(&mut self, object: &str, error: &PostgresError) {
        let words = in_words(error);
        match cause(error) {
            Cause::Corrupt => self.bad(object, &words),
            Cause::Lacking => {
                self.not_looked_at(object, format!("this node lacks what it needs: {words}"));
            }
            Cause::Unknown => self.not_looked_at(object, words),
        }
    }

    /// Critical for damage, unknown for an object that could not be checked, a warning for a remark.
    pub fn verdict(&self) -> Verdict {
        let told = |it: &NotLookedAt| format!("{}: {}", it.object, it.reason);
        let (databases, objects): (Vec<_>, Vec<_>) =
            self.not_looked_at.iter().partition(|it| it.is_database());
        let databases = databases.into_iter().map(told).collect::<Vec<_>>();
        let objects = objects.into_iter().map(told).collect::<Vec<_>>();
        // A database hides more than a table does.
        let unseen = [listed(&databases, DATABASES), listed(&objects, NAMED)];
        let unseen = unseen.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let unseen = (!unseen.is_empty()).then(|| format!("not looked at: {unseen}"));
        let remarks = listed(&self.remarks, DATABASES);
        let bad = listed(&self.bad, NAMED);
        let is_bad = bad.is_some();
        let parts: Vec<String> = [bad, unseen, remarks].into_iter().flatten().collect();
        let reason = parts.join("; ");
        if is_bad {
            Verdict::Critical(reason)
        } else if self.not_looked_at.iter().any(|it| !it.excused) {
            Verdict::Unknown(reason)
        } else if parts.is_empty() {
            Verdict::Ok
        } else {
            Verdict::Warning(reason)
        }
    }

    /// What a report lists: the first of all that was not looked at.
    pub fn into_list(self) -> Vec<NotLookedAt> {
        let mut list = self.not_looked_at;
        list.truncate(LISTED);
        list
    }
}

/// The first `most` of `reasons`, and how many more there are; `None` without any.
pub(super) fn listed(reasons: &[String], most: usize) -> Option<String> {
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
        let mut look = Look::default();
        assert_eq!(look.verdict(), Verdict::Ok);
        look.remark("closed was opened".to_owned());
        look.nothing_in("half", "an interrupted DROP DATABASE left it");
        assert_eq!(
            look.verdict(),
            Verdict::Warning(
                "not looked at: half: an interrupted DROP DATABASE left it; closed was opened"
                    .to_owned()
            )
        );
        look.not_looked_at("shop: public.a", "timeout");
        assert!(matches!(look.verdict(), Verdict::Unknown(_)));
        look.bad("shop: public.b", "bad page");
        let Verdict::Critical(reason) = look.verdict() else {
            panic!("{:?}", look.verdict());
        };
        assert!(reason.starts_with("shop: public.b: bad page; not looked at: half"));
        assert!(reason.contains("shop: public.a: timeout"), "{reason}");
        assert_eq!(look.into_list().len(), 2);
    }

    #[test]
    fn damage_that_keeps_a_database_closed_is_more_than_a_remark() {
        let closed = |is_bad: bool| {
            let mut entered = Look::default();
            match is_bad {
                true => entered.bad("shop", "its map is damaged"),
                false => entered.not_looked_at("shop", "no locale"),
            }
            let mut look = Look::default();
            look.remark_not_looked_at(entered);
            look.verdict()
        };
        assert_eq!(closed(false), Verdict::Warning("shop: no locale".into()));
        let damage = Verdict::Critical("shop: its map is damaged".into());
        assert_eq!(closed(true), damage);
    }

    #[test]
    fn a_reason_names_a_few_and_counts_the_rest() {
        let mut look = Look::default();
        for n in 1..=5 {
            look.bad(&format!("t{n}"), "bad");
        }
        let reason = look.verdict().reason().unwrap().to_owned();
        assert_eq!(reason, "t1: bad; t2: bad; t3: bad; and 2 more");
    }
}
