//! From findings to what Redis shows: which finding is an alert, and each of its events delivered once.
//!
//! A state change and its event are one transaction of the store, and the event stays there until
//! Redis has confirmed it: a Redis that is away delays alerts and loses none. It measures nothing.

mod alert_transaction;
mod deliver;
mod event;
mod format;
mod former;
mod judges;
mod notice;
mod published;
mod receiver;
mod reconcile;
mod record;
mod rules;
mod silences;
mod transition;

pub use event::{Alert, Event, EventKind};
pub use judges::Judged;
pub use notice::{Covers, Inhibition, Reminders};
pub use published::Published;
pub use receiver::{Delivery, NotDelivered, Receiver, pause, test_event};
pub use record::{Alerts, Extent};
pub use rules::{DELIVERY, Rules, Subscription};
pub use transition::{Transition, transition};

use crate::redis::RedisError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl AlertsError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(error) => error.hint(),
            Self::Redis(error) => error.hint(),
        }
    }
}
