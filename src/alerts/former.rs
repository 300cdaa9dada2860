//! The cluster's former names: what was raised under one of them must end there.

use jiff::Timestamp;
use redis::cmd;

use super::book::Book;
use super::event::{Alert, Event, Kind};
use super::{Alerts, AlertsError};
use crate::model::{AlertKey, AlertState, Notice, Scope, Severity};
use crate::redis::{Keys, Redis};
use crate::store::{OUTBOX_LIMIT, StoreError, Writing};

const END: &str = include_str!("end_former.lua");

impl Alerts {
    /// Notes the cluster's name; gives its former ones, under which alerts may still stand.
    ///
    /// After a change, the alerts of this node are raised again under the new name.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn former_names(&self) -> Result<Vec<String>, StoreError> {
        let alerts = self.clone();
        let now = Timestamp::now();
        self.store
            .write(move |writing| {
                if writing.see_cluster_name(&alerts.reporter.cluster)? {
                    raise_under_new_name(writing, &alerts, now)?;
                }
                writing.former_cluster_names()
            })
            .await
    }

    /// Ends in Redis what stands under the cluster's name `former`, but for the alerts of the nodes of `live`, which
    /// still go by it. Nothing is left of it once this gives true.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be written.
    pub async fn end_former(
        &self,
        redis: &Redis,
        former: &str,
        live: &[String],
    ) -> Result<bool, AlertsError> {
        let mut old = self.clone();
        old.keys = Keys::new(former);
        let reason = format!("the cluster is called {} now", self.reporter.cluster);
        let mut left = false;
        for (field, json) in old.shown(redis).await? {
            let Ok(key) = AlertKey::parse(&field) else {
                continue;
            };
            let is_live = match &key.scope {
                Scope::Cluster => !live.is_empty(),
                Scope::Node(node) => live.contains(node),
            };
            if is_live {
                left = true;
            } else {
                old.end_one(redis, (&field, &key), &json, &reason).await?;
            }
        }
        if !left {
            let former = former.to_owned();
            self.store
                .write(move |writing| writing.forget_cluster_name(&former))
                .await?;
        }
        Ok(!left)
    }

    async fn end_one(
        &self,
        redis: &Redis,
        (field, key): (&str, &AlertKey),
        json: &str,
        reason: &str,
    ) -> Result<(), AlertsError> {
        let now = Timestamp::now();
        let state = Alert::parse(json).map(|alert| alert.state());
        let state = AlertState {
            reason: reason.to_owned(),
            ..state.unwrap_or(AlertState {
                severity: Severity::Unknown,
                since: now,
                raised_at: Some(now),
                reason: String::new(),
                value: None,
                threshold: None,
                runbook: None,
                notice: Notice::known(Severity::Unknown, None),
            })
        };
        let event = Event {
            kind: Kind::Resolved,
            at: now,
            from: None,
            alert: Alert::new(key, &state, &self.reporter.hostname),
        };
        let mut script = cmd("EVAL");
        script.arg(END).arg(2);
        script.arg(self.keys.active()).arg(self.keys.events());
        script.arg(field).arg(event.to_json());
        script.arg(self.keys.channel()).arg(OUTBOX_LIMIT);
        script.arg(&self.reporter.hostname);
        let _: i64 = redis.ask("end an alert", &script).await?;
        Ok(())
    }
}

/// What waits for Redis was meant for the former name's consumers, where the alerts end.
fn raise_under_new_name(
    writing: &Writing<'_>,
    alerts: &Alerts,
    now: Timestamp,
) -> Result<(), StoreError> {
    writing.clear_outbox()?;
    let own = Scope::Node(alerts.reporter.hostname.clone());
    let mut book = Book::open(writing, &alerts.reporter, now);
    for (key, state) in writing.alerts()? {
        if key.scope == own && state.raised_at.is_some() {
            book.raise_again(key, state)?;
        } else {
            // Its next judgement raises it.
            writing.set_alert(&key, None)?;
        }
    }
    book.close().map(|_| ())
}
