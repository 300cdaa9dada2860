//! A receiver of alerts beside Redis: its events in their order, each until it is confirmed.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::event::{Alert, Event, Kind};
use super::format::{Context, message};
use super::{Alerts, AlertsError, Subscription};
use crate::config::{Notify, NotifyFormat};
use crate::model::{AlertKey, AlertState, Notice, Severity};
use crate::webhook::{self, Call, WebhookError};

/// After the first failure; doubled after each further one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(2);

/// One receiver, as it is configured.
#[derive(Debug, Clone)]
pub struct Receiver(Notify);

/// What came of one attempt.
#[derive(Debug)]
pub enum Delivery {
    /// Nothing waits.
    Idle,
    Confirmed,
    /// The receiver will never take it, so it was left out.
    LeftOut(WebhookError),
}

impl Receiver {
    pub fn new(notify: &Notify) -> Self {
        Self(notify.clone())
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn subscription(&self) -> Subscription {
        Subscription {
            receiver: self.0.name.clone(),
            minimum: self.0.minimum_severity,
        }
    }

    /// Sends one event.
    ///
    /// # Errors
    /// When the receiver does not confirm it.
    pub async fn send(&self, event: &Event, id: &str, cluster: &str) -> Result<(), WebhookError> {
        let token = match &self.0.token_file {
            Some(path) => Some(webhook::secret_in(path)?),
            None => None,
        };
        let is_key = self.0.format == NotifyFormat::PagerDuty;
        let context = Context {
            cluster,
            format: self.0.format,
            minimum: self.0.minimum_severity,
            key: token
                .as_ref()
                .filter(|_| is_key)
                .map(SecretString::expose_secret),
        };
        let Some(message) = message(event, id, &context) else {
            return Ok(());
        };
        let call = Call {
            path: message.path,
            json: Some(&message.json),
            token: token.as_ref().filter(|_| !is_key),
            id: Some(id),
            ca_cert_file: self.0.ca_cert_file.as_deref(),
        };
        webhook::call(&self.0.url, &call).await
    }

    /// Sends an event that is about nothing.
    ///
    /// # Errors
    /// When the receiver does not confirm it.
    pub async fn send_test(&self, event: &Event, cluster: &str) -> Result<(), WebhookError> {
        let id = event.id(cluster);
        self.send(event, &id, cluster).await?;
        if self.0.format == NotifyFormat::PagerDuty {
            let over = Event {
                kind: Kind::Resolved,
                ..event.clone()
            };
            self.send(&over, &format!("{id}-over"), cluster).await?;
        }
        Ok(())
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
        kind: Kind::Test,
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
    /// It waits on unless the receiver has confirmed it, or has judged that its content is wrong. One that is sent again after an answer
    /// was lost has the same id.
    ///
    /// # Errors
    /// When the receiver does not confirm it, or the store cannot be read or written.
    pub async fn deliver_to(&self, receiver: &Receiver) -> Result<Delivery, NotDelivered> {
        let name = receiver.name().to_owned();
        let next = self.store.read(move |reading| reading.next_notice(&name));
        let Some(waiting) = next.await.map_err(AlertsError::from)? else {
            return Ok(Delivery::Idle);
        };
        let delivery = match serde_json::from_str(&waiting.event) {
            Err(_) => {
                tracing::warn!(id = waiting.id, "left out an event that cannot be read");
                Delivery::Confirmed
            }
            Ok(event) => match receiver
                .send(&event, &waiting.id, &self.reporter.cluster)
                .await
            {
                Ok(()) => Delivery::Confirmed,
                Err(error) if error.is_final() => Delivery::LeftOut(error),
                Err(error) => return Err(error.into()),
            },
        };
        let work = move |writing: &crate::store::Writing<'_>| writing.remove_notice(&waiting);
        self.store.write(work).await.map_err(AlertsError::from)?;
        Ok(delivery)
    }

    /// Forgets what waits for receivers that are not configured any more.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn forget_former_receivers(&self) -> Result<(), AlertsError> {
        let subscriptions = self.reporter.rules.subscriptions.iter();
        let names: Vec<String> = subscriptions.map(|one| one.receiver.clone()).collect();
        let work = move |writing: &crate::store::Writing<'_>| writing.keep_receivers(&names);
        Ok(self.store.write(work).await?)
    }
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
