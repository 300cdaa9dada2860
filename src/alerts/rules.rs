//! What a node is set to do with alerts.

use std::time::Duration;

use super::event::{Event, EventKind};
use super::notice::{Inhibition, Reminders};
use crate::model::Severity;

/// The reminders, what follows from what, and the receivers beside Redis.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub reminders: Reminders,
    pub inhibitions: Vec<Inhibition>,
    pub subscriptions: Vec<Subscription>,
}

/// The default is never.
impl Default for Reminders {
    fn default() -> Self {
        Self {
            critical: Duration::ZERO,
            warning: Duration::ZERO,
        }
    }
}

/// A receiver beside Redis, and its minimum severity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub receiver: String,
    pub minimum: Severity,
    /// It keeps an incident until that is ended, and takes an end of what it does not know.
    pub keeps_incidents: bool,
}

/// The check on the receivers themselves; its object is the receiver's name.
pub const DELIVERY: &str = "alert-delivery";

impl Subscription {
    /// Whether the receiver gets `event`.
    ///
    /// It also gets the event of an alert that falls below its minimum, which would else stand there for ever; the end of one
    /// that it knows, whatever that has become meanwhile; never that it cannot be reached itself.
    pub(super) fn wants(&self, event: &Event) -> bool {
        let alert = &event.alert;
        let known = event.from.unwrap_or(alert.severity);
        let worst = match event.kind {
            EventKind::Resolved | EventKind::Silenced => known,
            _ => known.max(alert.severity),
        };
        let is_its_own = alert.check == DELIVERY && alert.object == self.receiver;
        // With another minimum before it may have been told.
        let is_end = self.keeps_incidents && event.kind == EventKind::Resolved;
        let matters = is_end || worst >= self.minimum;
        !alert.hidden && event.kind != EventKind::Test && matters && !is_its_own
    }
}
