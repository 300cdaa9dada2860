//! One transaction of the store: takes findings in, and makes the events for consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::event::{Alert, Event, EventKind};
use super::judges::Judged;
use super::notice::{Situation, judge_notice};
use super::rules::Rules;
use super::transition::{Transition, transition};
use crate::model::{AlertKey, AlertState, Notice, Scope, Severity, Verdict};
use crate::store::{StoreError, Writing};

/// Who reports, and by which rules.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub cluster: String,
    pub hostname: String,
    pub rules: Arc<Rules>,
}

/// One transaction's work.
pub(super) struct AlertTransaction<'a, 'b> {
    writing: &'a Writing<'b>,
    reporter: &'a Reporter,
    now: Timestamp,
    /// In the order of the events.
    touched: Vec<(AlertKey, Change)>,
    told: Outgoing,
}

enum Change {
    Stands,
    /// Consumers believed it to be over, and knew it with this severity, where that is another one.
    Again(Option<Severity>),
    Ended(Box<AlertState>),
}

/// What one look at a check found.
#[derive(Debug, Default)]
struct Look<'a> {
    objects: BTreeSet<&'a str>,
    unknown: Vec<&'a str>,
}

impl Look<'_> {
    /// Whether `object` would have been seen, and was not. An unknown check saw nothing, and in an unknown database nothing of
    /// what is called `DATABASE/…` was seen.
    fn misses(&self, object: &str) -> bool {
        let is_in = |unknown: &&str| {
            unknown.is_empty()
                || object
                    .strip_prefix(*unknown)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        !self.objects.contains(object) && !self.unknown.iter().any(is_in)
    }
}

/// What came of a transaction.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub events: Vec<Event>,
    /// A raised alert is not as it was, and no event says so.
    pub changed: bool,
}

impl<'a, 'b> AlertTransaction<'a, 'b> {
    pub(super) fn open(writing: &'a Writing<'b>, reporter: &'a Reporter, now: Timestamp) -> Self {
        Self {
            writing,
            reporter,
            now,
            touched: Vec::new(),
            told: Outgoing::default(),
        }
    }

    pub(super) fn take(&mut self, judged: &Judged) -> Result<(), StoreError> {
        let key = AlertKey::of(&judged.finding);
        let previous = self.writing.alert(&key)?;
        let step = transition(previous.as_ref(), &judged.finding, self.now, judged.hold);
        match step {
            Transition::Resolve(state) => self.close_alert(key, state),
            Transition::Silent(None) => match previous {
                Some(_) => self.writing.set_alert(&key, None),
                None => Ok(()),
            },
            Transition::Silent(Some(state))
            | Transition::Raise(state)
            | Transition::Escalate(state)
            | Transition::Lower(state) => {
                if previous.as_ref() == Some(&state) {
                    return Ok(());
                }
                self.told.changed |= previous.is_some_and(|known| known.raised_at.is_some());
                self.writing.set_alert(&key, Some(&state))?;
                self.touched.push((key, Change::Stands));
                Ok(())
            }
        }
    }

    pub(super) fn resolve_the_gone(&mut self, judged: &[Judged]) -> Result<(), StoreError> {
        let mut looks: BTreeMap<(&str, &Scope), Look<'_>> = BTreeMap::new();
        for Judged { finding, .. } in judged {
            let look = looks.entry((&finding.check, &finding.scope)).or_default();
            look.objects.insert(&finding.object);
            if matches!(finding.verdict, Verdict::Unknown(_)) {
                look.unknown.push(&finding.object);
            }
        }
        let gone = |key: &AlertKey| {
            let look = looks.get(&(key.check.as_str(), &key.scope));
            look.is_some_and(|look| look.misses(&key.object))
        };
        self.end_those(gone, "no longer found")
    }

    /// Ends the alerts of `which`; a pending one goes without an event.
    pub(super) fn end_those(
        &mut self,
        which: impl Fn(&AlertKey) -> bool,
        reason: &str,
    ) -> Result<(), StoreError> {
        for (key, state) in self.writing.alerts()? {
            if !which(&key) {
                continue;
            }
            if state.raised_at.is_none() {
                self.writing.set_alert(&key, None)?;
                continue;
            }
            let reason = reason.to_owned();
            self.close_alert(key, AlertState { reason, ..state })?;
        }
        Ok(())
    }

    /// Raises once more what consumers believe to be over.
    pub(super) fn raise_again(
        &mut self,
        key: AlertKey,
        state: AlertState,
    ) -> Result<(), StoreError> {
        let from = state.told_before();
        let state = AlertState {
            raised_at: Some(self.now),
            notice: Notice::default(),
            ..state
        };
        self.writing.set_alert(&key, Some(&state))?;
        self.touched.push((key, Change::Again(from)));
        Ok(())
    }

    fn close_alert(&mut self, key: AlertKey, state: AlertState) -> Result<(), StoreError> {
        self.writing.set_alert(&key, None)?;
        self.touched.push((key, Change::Ended(Box::new(state))));
        Ok(())
    }

    /// Tells what came of it, and what has become due for the other alerts.
    pub(super) fn close(mut self) -> Result<Outgoing, StoreError> {
        let alerts = self.writing.alerts()?;
        let silences = self.writing.silences()?;
        let is_raised = |state: &AlertState| state.raised_at.is_some();
        let standing: Vec<(AlertKey, bool)> = alerts
            .iter()
            .map(|(key, state)| (key.clone(), is_raised(state)))
            .collect();
        let situation = Situation {
            silences: &silences,
            inhibitions: &self.reporter.rules.inhibitions,
            standing: &standing,
            reminders: self.reporter.rules.reminders,
            now: self.now,
        };
        let mut raised: BTreeMap<AlertKey, AlertState> = alerts.into_iter().collect();
        raised.retain(|_, state| is_raised(state));
        for (key, change) in std::mem::take(&mut self.touched) {
            match change {
                Change::Ended(state) => {
                    self.tell(&key, EventKind::Resolved, state.told_before(), &state)?;
                }
                Change::Stands => {
                    if let Some(state) = raised.remove(&key) {
                        self.notify(&key, state, None, &situation)?;
                    }
                }
                Change::Again(from) => {
                    if let Some(state) = raised.remove(&key) {
                        self.notify(&key, state, from, &situation)?;
                    }
                }
            }
        }
        for (key, state) in raised {
            self.notify(&key, state, None, &situation)?;
        }
        Ok(self.told)
    }

    fn notify(
        &mut self,
        key: &AlertKey,
        state: AlertState,
        known: Option<Severity>,
        situation: &Situation<'_>,
    ) -> Result<(), StoreError> {
        let (kind, notice) = judge_notice(key, &state, situation);
        if kind.is_none() && notice == state.notice {
            return Ok(());
        }
        let is_new = state.notice == Notice::default();
        let from = state.told_before().or(known);
        self.told.changed |= notice.marks != state.notice.marks;
        let state = AlertState { notice, ..state };
        self.writing.set_alert(key, Some(&state))?;
        match kind {
            Some(kind) => self.tell(key, kind, from, &state),
            // Redis shows what it publishes no event of.
            None if is_new => self.tell(key, EventKind::Raised, None, &state),
            None => Ok(()),
        }
    }

    fn tell(
        &mut self,
        key: &AlertKey,
        kind: EventKind,
        from: Option<Severity>,
        state: &AlertState,
    ) -> Result<(), StoreError> {
        let event = Event {
            kind,
            at: self.now,
            from,
            alert: Alert::new(key, state, &self.reporter.hostname),
        };
        let json = event.to_json();
        self.writing.queue_event(&json)?;
        queue_notices(self.writing, self.reporter, &event, &json)?;
        self.told.events.push(event);
        Ok(())
    }
}

/// Queues `event`, which is `json`, for the receivers that want it.
pub(super) fn queue_notices(
    writing: &Writing<'_>,
    reporter: &Reporter,
    event: &Event,
    json: &str,
) -> Result<(), StoreError> {
    let subscriptions = reporter.rules.subscriptions.iter();
    for subscription in subscriptions.filter(|one| one.wants(event)) {
        let id = event.id(&reporter.cluster);
        writing.queue_notice(&subscription.receiver, &id, json)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unknown_database_holds_is_not_gone() {
        let look = |objects: &[&'static str], unknown: &[&'static str]| Look {
            objects: objects.iter().copied().collect(),
            unknown: unknown.to_vec(),
        };
        let seen = look(&["shop", "blog/public.a"], &["shop"]);
        for (object, is_gone) in [
            ("shop", false),
            ("shop/public.x", false),
            ("shopping/public.x", true),
            ("blog/public.a", false),
            ("blog/public.b", true),
        ] {
            assert_eq!(seen.misses(object), is_gone, "{object}");
        }
        assert!(!look(&[""], &[""]).misses("anything"));
        assert!(look(&[""], &[]).misses("anything"));
    }
}
