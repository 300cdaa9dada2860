//! The events of an alert that stands: from its severity, what consumers know, and what hides it. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::event::EventKind;
use crate::model::{
    AcknowledgedBy, AlertKey, AlertMarks, AlertState, Notice, Severity, Silence, SilencedBy, Told,
};

/// After its cause is over, an alert stays hidden for so long: what follows from a stopped server ends a little later than that.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(60);

/// When an alert that stands is reported once more; zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reminders {
    pub critical: Duration,
    /// Also of unknown.
    pub warning: Duration,
}

/// Alerts of a node that follow from another one of the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inhibition {
    /// The check whose alert, raised or pending, hides the others.
    pub cause: &'static str,
    pub effect: String,
    pub covers: Covers,
}

/// Which alerts of the effect's check follow from the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covers {
    /// The check could not be made.
    Unknown,
    /// All, but those with a reason that begins so: they are a fault of their own.
    AllBut(&'static str),
}

/// What bears on all alerts at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub silences: &'a [Silence],
    pub inhibitions: &'a [Inhibition],
    /// All alerts, and whether each is raised or still pending.
    pub standing: &'a [(AlertKey, bool)],
    pub reminders: Reminders,
    pub now: Timestamp,
}

/// What is to be told of a raised alert now, and what consumers know after that.
pub(super) fn judge_notice(
    key: &AlertKey,
    state: &AlertState,
    situation: &Situation<'_>,
) -> (Option<EventKind>, Notice) {
    let now = situation.now;
    let before = &state.notice;
    let (cause, inhibited_at) = match cause_of(key, state, situation) {
        Some((cause, true)) => (Some(cause.to_string()), Some(now)),
        // It may never be raised, so it has no aftermath.
        Some((cause, false)) => (Some(cause.to_string()), None),
        // A clock that was set back must not hide it for longer.
        None => {
            let lasts = |at: &Timestamp| {
                let passed = now.duration_since(*at);
                (SignedDuration::ZERO..AFTERMATH).contains(&passed)
            };
            let inhibited_at = before.inhibited_at.filter(lasts);
            let cause = before.marks.inhibited_by.clone();
            (cause.filter(|_| inhibited_at.is_some()), inhibited_at)
        }
    };
    let marks = AlertMarks {
        silenced: silenced_by(key, state, situation),
        inhibited_by: cause,
        acknowledged: acknowledged_by(key, state, situation),
    };
    let (kind, told) = tell(state, &marks, situation);
    let notice = Notice {
        told,
        inhibited_at,
        marks,
    };
    (kind, notice)
}

fn tell(
    state: &AlertState,
    marks: &AlertMarks,
    situation: &Situation<'_>,
) -> (Option<EventKind>, Option<Told>) {
    let now = situation.now;
    let hidden = marks.silenced.is_some() || marks.inhibited_by.is_some();
    let as_it_stands = Told {
        severity: state.severity,
        at: Some(now),
        quiet: false,
    };
    let say = |kind| (Some(kind), Some(as_it_stands));
    let Some(told) = state.notice.told else {
        return if hidden {
            (None, None)
        } else {
            say(EventKind::Raised)
        };
    };
    if marks.silenced.is_some() && !told.quiet {
        let quiet = Told {
            quiet: true,
            ..told
        };
        return (Some(EventKind::Silenced), Some(quiet));
    }
    if hidden {
        return (None, Some(told));
    }
    if told.quiet {
        return say(EventKind::Raised);
    }
    match state.severity.cmp(&told.severity) {
        Ordering::Greater => return say(EventKind::Escalated),
        Ordering::Less => return say(EventKind::Lowered),
        Ordering::Equal => {}
    }
    if marks.acknowledged.is_some() {
        let is_news = state.notice.marks.acknowledged.is_none();
        return (is_news.then_some(EventKind::Acknowledged), Some(told));
    }
    // Another node told it, or the clock was set back: the time starts again.
    let Some(at) = told.at.filter(|at| *at <= now) else {
        return (None, Some(as_it_stands));
    };
    let interval = match state.severity {
        Severity::Critical => situation.reminders.critical,
        Severity::Warning | Severity::Unknown => situation.reminders.warning,
    };
    let interval = SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX);
    if !interval.is_zero() && now.duration_since(at) >= interval {
        return say(EventKind::Reminded);
    }
    (None, Some(told))
}

/// The silence that lasts longest of those that hide the alert.
fn silenced_by(
    key: &AlertKey,
    state: &AlertState,
    situation: &Situation<'_>,
) -> Option<SilencedBy> {
    let now = situation.now;
    let hides = |silence: &&Silence| silence.is_live(now) && silence.hides(key, state.severity);
    let longest = situation
        .silences
        .iter()
        .filter(hides)
        .max_by_key(|silence| (silence.expires_at, &silence.id));
    let found = longest.map(|silence| SilencedBy {
        id: silence.id.clone(),
        by: silence.author.clone(),
        comment: silence.comment.clone(),
        until: silence.expires_at,
        severity: silence.severity,
    });
    // A node that has lost its store knows of a silence by its alert, before it has read the silences again.
    let unread = || {
        let known = state.notice.marks.silenced.clone()?;
        let is_known = situation.silences.iter().any(|one| one.id == known.id);
        let covered = state.severity <= known.severity;
        (!is_known && covered && now < known.until).then_some(known)
    };
    found.or_else(unread)
}

fn acknowledged_by(
    key: &AlertKey,
    state: &AlertState,
    situation: &Situation<'_>,
) -> Option<AcknowledgedBy> {
    let now = situation.now;
    let mut silences = situation.silences.iter();
    let found =
        silences.find(|one| one.is_live(now) && one.acknowledges(key, state.since, state.severity));
    let found = found.map(|one| AcknowledgedBy {
        id: one.id.clone(),
        by: one.author.clone(),
        comment: one.comment.clone(),
        at: one.created_at,
    });
    let unread = || {
        let known = state.notice.marks.acknowledged.clone()?;
        let is_known = situation.silences.iter().any(|one| one.id == known.id);
        let told = state.notice.told?.severity;
        (!is_known && state.severity <= told).then_some(known)
    };
    found.or_else(unread)
}

/// The alert that this one follows from, and whether that is raised.
fn cause_of<'a>(
    key: &AlertKey,
    state: &AlertState,
    situation: &Situation<'a>,
) -> Option<(&'a AlertKey, bool)> {
    let follows = |rule: &&Inhibition| {
        rule.effect == key.check
            && match rule.covers {
                Covers::Unknown => state.severity == Severity::Unknown,
                Covers::AllBut(reason) => !state.reason.starts_with(reason),
            }
    };
    let mut rules = situation.inhibitions.iter().filter(follows);
    rules.find_map(|rule| {
        let is_cause = |other: &AlertKey| {
            other.check == rule.cause && other.scope == key.scope && other != key
        };
        let mut standing = situation.standing.iter();
        let cause = standing.find(|(other, _)| is_cause(other));
        cause.map(|(other, raised)| (other, *raised))
    })
}

/// Whether a decision can still matter at `now`; one that is over for a day cannot.
pub(super) fn is_worth_keeping(silence: &Silence, now: Timestamp) -> bool {
    const KEPT: SignedDuration = SignedDuration::from_hours(24);
    now.duration_since(silence.expires_at) < KEPT
}

#[cfg(test)]
#[path = "notice_tests.rs"]
mod tests;
