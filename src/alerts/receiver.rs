//! A receiver of alerts beside Redis: its events in their order, each until it is confirmed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::event::{Alert, Event, EventKind};
use super::format::{Context, messages};
use super::{Alerts, AlertsError, Subscription};
use crate::config::{Notify, NotifyFormat};
use crate::model::{AlertKey, AlertState, Notice, Severity};
use crate::store::{Reading, StoreError, Waiting};
use crate::webhook::{self, Call, WebhookError};

/// After the first failure; doubled after each further one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(2);

/// An event that a receiver refuses as a bad request is tried again for so long: perhaps something between them refuses it.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// An event waits for so long until Redis has decided which node reports it.
const TURN: SignedDuration = SignedDuration::from_secs(10);

/// An older event may come after the end of the alert that another node has reported since.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// One receiver, as it is configured.
#[derive(Debug)]
pub struct Receiver {
    notify: Notify,
    memory: Mutex<Memory>,
}

/// What it has refused.
#[derive(Debug, Default)]
struct Memory {
    /// The event that waits first, and since when it is refused.
    refused: Option<(String, Timestamp)>,
    /// The event before was left out.
    left_out: bool,
}

/// What came of one attempt.
#[derive(Debug)]
pub enum Delivery {
    /// Nothing waits, or what waits first is not this node's to send yet.
    Idle,
    Confirmed,
    /// Another node answers for the alert now, so the event was not sent.
    Skipped,
    /// The receiver will never take it, so it was left out.
    LeftOut {
        /// Such as "raised disk/db1/".
        event: String,
        error: WebhookError,
    },
}

/// An event as it waits for a receiver.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dispatch {
    /// The cluster's former name, of an event from before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    #[serde(flatten)]
    pub event: Event,
}

impl Dispatch {
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has text keys only")
    }
}

impl Receiver {
    pub fn new(notify: &Notify) -> Self {
        Self {
            notify: notify.clone(),
            memory: Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.notify.name
    }

    pub fn subscription(&self) -> Subscription {
        Subscription {
            receiver: self.notify.name.clone(),
            minimum: self.notify.minimum_severity,
            keeps_incidents: matches!(
                self.notify.format,
                NotifyFormat::PagerDuty | NotifyFormat::Alertmanager
            ),
        }
    }

    /// Sends one event.
    ///
    /// # Errors
    /// When the receiver does not confirm it.
    pub async fn send(&self, event: &Event, id: &str, cluster: &str) -> Result<(), WebhookError> {
        let token = match &self.notify.token_file {
            Some(path) => Some(webhook::secret_in(path).await?),
            None => None,
        };
        let is_key = self.notify.format == NotifyFormat::PagerDuty;
        let context = Context {
            cluster,
            format: self.notify.format,
            minimum: self.notify.minimum_severity,
            key: token
                .as_ref()
                .filter(|_| is_key)
                .map(SecretString::expose_secret),
        };
        let messages = messages(event, id, &context);
        for (place, message) in messages.iter().enumerate() {
            // The last one is the event itself; those before it end what it replaces.
            let id = if place + 1 == messages.len() {
                id.to_owned()
            } else {
                format!("{id}-{place}")
            };
            let call = Call {
                path: message.path,
                json: Some(&message.json),
                token: token.as_ref().filter(|_| !is_key),
                id: Some(&id),
                ca_cert_file: self.notify.ca_cert_file.as_deref(),
            };
            webhook::call(&self.notify.url, &call).await?;
        }
        Ok(())
    }

    /// Sends an event that is about nothing.
    ///
    /// # Errors
    /// When the receiver does not confirm it.
    pub async fn send_test(&self, event: &Event, cluster: &str) -> Result<(), WebhookError> {
        let id = event.id(cluster);
        self.send(event, &id, cluster).await?;
        if self.notify.format == NotifyFormat::PagerDuty {
            let over = Event {
                kind: EventKind::Resolved,
                ..event.clone()
            };
            self.send(&over, &format!("{id}-over"), cluster).await?;
        }
        Ok(())
    }

    /// Whether the event `id`, which failed by `error`, must never be sent again.
    ///
    /// One event that the receiver cannot process is left out at once. A receiver that refuses the next one as well, or that calls
    /// it a bad request, may be another program's answer: then each is tried for an hour.
    fn gives_up(&self, id: &str, error: &WebhookError, now: Timestamp) -> bool {
        let mut memory = self.memory();
        if !error.is_refusal() {
            return false;
        }
        let since = match &memory.refused {
            Some((known, since)) if known == id => *since,
            _ => now,
        };
        memory.refused = Some((id.to_owned(), since));
        let gives_up =
            error.is_final() && !memory.left_out || now.duration_since(since) >= PATIENCE;
        if gives_up {
            *memory = Memory {
                refused: None,
                left_out: true,
            };
        }
        gives_up
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event by which a person tries whether events arrive.
pub fn test_event(hostname: &str, author: &str, now: Timestamp) -> Event {
    let key = AlertKey::parse(&format!("test/{hostname}/")).expect("three parts");
    let state = AlertState {
        severity: Severity::Warning,
        since: now,
        raised_at: Some(now),
        reason: format!("a test by {author}: nothing is wrong"),
        value: None,
        threshold: None,
        runbook: None,
        notice: Notice::known(Severity::Warning, Some(now)),
    };
    Event {
        kind: EventKind::Test,
        at: now,
        from: None,
        alert: Alert::new(&key, &state, hostname),
    }
}

/// How long to wait after `failures` in a row; a receiver may ask for longer.
pub fn pause(failures: u32, asked_for: Option<Duration>) -> Duration {
    let doubled = SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.max(asked_for.unwrap_or_default()).min(LONGEST)
}

/// Why an event could not be delivered to a receiver.
#[derive(Debug, thiserror::Error)]
pub enum NotDelivered {
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Alerts(#[from] AlertsError),
}

impl Alerts {
    /// Sends the oldest event that waits for `receiver`.
    ///
    /// It waits on unless the receiver has confirmed it, or will never take it. One that is sent again after an answer was lost has
    /// the same id. Before Redis has decided which node reports an event, it is not sent, for a few seconds at most.
    ///
    /// # Errors
    /// When the receiver does not confirm it, or the store cannot be read or written.
    pub async fn deliver_to(
        &self,
        receiver: &Receiver,
        now: Timestamp,
    ) -> Result<Delivery, NotDelivered> {
        let name = receiver.name().to_owned();
        let minimum = receiver.notify.minimum_severity;
        let next = self.store.read(move |reading| {
            let Some(waiting) = reading.next_notice(&name)? else {
                return Ok(None);
            };
            let dispatch = serde_json::from_str::<Dispatch>(&waiting.event).ok();
            let turn = match &dispatch {
                Some(dispatch) => judge_turn(reading, &waiting, &dispatch.event, minimum, now)?,
                None => Turn::Send,
            };
            Ok(Some((waiting, dispatch, turn)))
        });
        let Some((waiting, dispatch, turn)) = next.await.map_err(AlertsError::from)? else {
            return Ok(Delivery::Idle);
        };
        let delivery = match (dispatch, turn) {
            (_, Turn::Wait) => return Ok(Delivery::Idle),
            (_, Turn::Skip) => Delivery::Skipped,
            (None, Turn::Send) => {
                tracing::warn!(id = waiting.id, "left out an event that cannot be read");
                Delivery::Skipped
            }
            (Some(dispatch), Turn::Send) => {
                self.send_waiting(receiver, &waiting, &dispatch, now)
                    .await?
            }
        };
        let work = move |writing: &crate::store::Writing<'_>| writing.remove_notice(&waiting);
        self.store.write(work).await.map_err(AlertsError::from)?;
        Ok(delivery)
    }

    async fn send_waiting(
        &self,
        receiver: &Receiver,
        waiting: &Waiting,
        dispatch: &Dispatch,
        now: Timestamp,
    ) -> Result<Delivery, WebhookError> {
        let event = &dispatch.event;
        let cluster = dispatch.cluster.as_ref();
        let cluster = cluster.unwrap_or(&self.reporter.cluster);
        match receiver.send(event, &waiting.id, cluster).await {
            Ok(()) => {
                *receiver.memory() = Memory::default();
                Ok(Delivery::Confirmed)
            }
            Err(error) if receiver.gives_up(&waiting.id, &error, now) => Ok(Delivery::LeftOut {
                event: format!("{} {}", event.kind.word(), event.alert.key()),
                error,
            }),
            Err(error) => Err(error),
        }
    }

    /// Forgets what waits for receivers that are not configured any more.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn forget_former_receivers(&self) -> Result<(), StoreError> {
        let subscriptions = self.reporter.rules.subscriptions.iter();
        let names: Vec<String> = subscriptions.map(|one| one.receiver.clone()).collect();
        let work = move |writing: &crate::store::Writing<'_>| writing.keep_receivers(&names);
        self.store.write(work).await
    }
}

/// What is to be done with the event that waits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Send,
    Wait,
    Skip,
}

fn judge_turn(
    reading: &Reading<'_>,
    waiting: &Waiting,
    event: &Event,
    minimum: Severity,
    now: Timestamp,
) -> Result<Turn, StoreError> {
    // While Redis is away people must hear of it all the same; neither may a clock that was set back hold it up.
    let passed = now.duration_since(event.at);
    if (SignedDuration::ZERO..TURN).contains(&passed) && reading.is_queued(&waiting.event)? {
        return Ok(Turn::Wait);
    }
    let ends = |event: &Event| match event.kind {
        EventKind::Resolved => true,
        EventKind::Lowered => event.alert.severity < minimum,
        _ => false,
    };
    let begins = matches!(
        event.kind,
        EventKind::Raised
            | EventKind::Escalated
            | EventKind::Lowered
            | EventKind::Reminded
            | EventKind::Acknowledged
    ) && !ends(event);
    let key = event.alert.key();
    let alert = reading.alert(&key)?;
    let stands = alert.is_some_and(|state| state.raised_at.is_some());
    if !begins || stands || passed < LATE {
        return Ok(Turn::Send);
    }
    // Over meanwhile: then its end waits here as well. Else another node answers for the alert, and reports its end.
    let is_about = |json: &str| {
        let later = serde_json::from_str::<Dispatch>(json);
        later.is_ok_and(|later| ends(&later.event) && later.event.alert.key() == key)
    };
    let ends_here = reading.any_notice_after(waiting, is_about)?;
    Ok(if ends_here { Turn::Send } else { Turn::Skip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_minutes_and_a_receiver_may_ask_for_longer_ones() {
        let secs = |failures| pause(failures, None).as_secs();
        assert_eq!([1, 2, 3, 8, 9, 1000].map(secs), [1, 2, 4, 120, 120, 120]);
        assert_eq!(pause(1, Some(Duration::from_secs(30))).as_secs(), 30);
        assert_eq!(pause(1, Some(Duration::from_secs(3600))), LONGEST);
    }
}
