//! Redis and the store made to agree, after either lost what it held or somebody else changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use redis::cmd;

use super::alert_transaction::AlertTransaction;
use super::event::{Alert, Event};
use super::{Alerts, AlertsError};
use crate::model::{AlertKey, AlertState, Notice, Scope, Severity};
use crate::redis::Redis;
use crate::store::{StoreError, Writing};

/// Changes fields that are there; one that another node has just ended stays away.
const SHOW: &str = include_str!("show.lua");

impl Alerts {
    /// Delivers what waits, then makes the hash show the alerts of `scopes` as they stand in the store.
    ///
    /// An alert there that the store does not know is taken over as raised: a lost store must not
    /// raise again what was raised, nor leave it standing for ever. So a node that answers for the
    /// cluster, or for a silent peer, names that scope here. It makes no event. For each heartbeat.
    ///
    /// An alert that stands here and that somebody else removed from the hash is raised again, with an event: at
    /// once where this process has seen that it stands, else by its next judgement. After Redis lost all that it
    /// held, the alerts are shown again without an event.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be read or written.
    pub async fn reconcile(&self, redis: &Redis, scopes: &[Scope]) -> Result<(), AlertsError> {
        // Before an alert is taken over: one that is silenced must not be raised for that.
        self.sync_silences(redis, Timestamp::now()).await?;
        let _turn = self.turn.lock().await;
        self.note_lost_redis(redis).await?;
        // Before the delivery: an alert that ends after it still stands in the hash, and must not be taken over from there.
        let before = self.store.read(|reading| reading.last_sequence()).await?;
        self.deliver_in_turn(redis).await?;
        let shown = self.shown(redis).await?;
        if scopes.contains(&Scope::Cluster) {
            self.remove_unreadable_fields(redis, &shown).await?;
        }
        let lost = self.redis_lost_all.load(Ordering::Relaxed);
        let missing = self.agree(scopes, &shown, before, lost).await?;
        if missing.told {
            self.deliver_in_turn(redis).await?;
        }
        self.show(redis, &shown, missing.standing, lost).await?;
        self.redis_lost_all.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The hash: each field with its JSON.
    pub(super) async fn shown(
        &self,
        redis: &Redis,
    ) -> Result<BTreeMap<String, String>, AlertsError> {
        let mut get = cmd("HGETALL");
        get.arg(self.keys.active());
        Ok(redis.ask("read the alerts", &get).await?)
    }

    /// The nodes that alerts in the hash or in the store are about.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be read.
    pub async fn nodes_with_alerts(&self, redis: &Redis) -> Result<Vec<String>, AlertsError> {
        let shown = self.shown(redis).await?;
        let shown = shown
            .keys()
            .filter_map(|field| AlertKey::parse(field).ok())
            .map(|key| key.scope);
        let known = self.store.read(|reading| reading.alerts()).await?;
        let known = known.into_iter().map(|(key, _)| key.scope);
        let mut nodes: Vec<String> = shown
            .chain(known)
            .filter_map(|scope| match scope {
                Scope::Node(node) => Some(node),
                Scope::Cluster => None,
            })
            .collect();
        nodes.sort();
        nodes.dedup();
        Ok(nodes)
    }

    /// Makes the store know what the hash shows, and the outbox what the hash lacks.
    async fn agree(
        &self,
        scopes: &[Scope],
        shown: &BTreeMap<String, String>,
        before: i64,
        lost: bool,
    ) -> Result<Agreed, StoreError> {
        let now = Timestamp::now();
        let scopes = scopes.to_vec();
        let ours = move |key: &AlertKey| scopes.contains(&key.scope);
        let known: Vec<_> = shown
            .iter()
            .filter_map(|(field, json)| taken_over(field, json, now))
            .filter(|(key, _)| ours(key))
            .collect();
        let fields: Vec<String> = shown.keys().cloned().collect();
        let alerts = self.clone();
        self.store
            .write(move |writing| {
                let mut told = false;
                // What changed since the hash was read is newer than the hash.
                if writing.last_sequence()? == before {
                    take_over(writing, &known)?;
                    if !lost {
                        let gone = |key: &AlertKey| ours(key) && !fields.contains(&key.to_string());
                        told = alerts.raise_again(writing, gone, now)?;
                    }
                }
                // An event that waits shows its alert itself: once the hash had it, the event would be no news.
                let waits = waiting_keys(writing)?;
                let mut standing = writing.alerts()?;
                standing.retain(|(key, state)| {
                    state.raised_at.is_some() && ours(key) && !waits.contains(key)
                });
                Ok(Agreed { standing, told })
            })
            .await
    }

    /// What somebody else ended and still stands is raised once more; whether an event now waits.
    fn raise_again(
        &self,
        writing: &Writing<'_>,
        gone: impl Fn(&AlertKey) -> bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = AlertTransaction::open(writing, &self.reporter, now);
        for (key, state) in writing.alerts()? {
            if state.raised_at.is_none() || !gone(&key) {
                continue;
            }
            if self.stands_by_last_run(&key) || self.judges().saw_bad(&key) {
                transaction.raise_again(key, state)?;
            } else {
                // It may be over: its next judgement raises it, or says nothing.
                let pending = AlertState {
                    raised_at: None,
                    notice: Notice::default(),
                    ..state
                };
                writing.set_alert(&key, Some(&pending))?;
            }
        }
        Ok(!transaction.close()?.events.is_empty())
    }

    async fn show(
        &self,
        redis: &Redis,
        shown: &BTreeMap<String, String>,
        standing: Vec<(AlertKey, AlertState)>,
        lost: bool,
    ) -> Result<(), AlertsError> {
        let (mut set, mut change) = (cmd("HSET"), cmd("EVAL"));
        set.arg(self.keys.active());
        change.arg(SHOW).arg(1).arg(self.keys.active());
        let (mut sets, mut changes) = (false, false);
        for (key, state) in standing {
            let field = key.to_string();
            let json = Alert::new(&key, &state, &self.reporter.hostname).to_json();
            match shown.get(&field) {
                Some(known) if *known == json => {}
                Some(_) => {
                    changes = true;
                    change.arg(field).arg(json);
                }
                None if lost => {
                    sets = true;
                    set.arg(field).arg(json);
                }
                None => {}
            }
        }
        if sets {
            let _: i64 = redis.ask("write the alerts", &set).await?;
        }
        if changes {
            let _: i64 = redis.ask("write the alerts", &change).await?;
        }
        Ok(())
    }

    /// Fields that name no check, node and object: no node could answer for them.
    async fn remove_unreadable_fields(
        &self,
        redis: &Redis,
        shown: &BTreeMap<String, String>,
    ) -> Result<(), AlertsError> {
        let unreadable = shown.keys().filter(|field| AlertKey::parse(field).is_err());
        for field in unreadable {
            tracing::warn!(
                field,
                "removed an entry from the alerts in Redis: its name is not an alert's"
            );
            let mut delete = cmd("HDEL");
            delete.arg(self.keys.active()).arg(field);
            let _: i64 = redis.ask("remove an alert", &delete).await?;
        }
        Ok(())
    }
}

fn waiting_keys(writing: &Writing<'_>) -> Result<BTreeSet<AlertKey>, StoreError> {
    let queued = writing.queued()?;
    let events = queued
        .iter()
        .filter_map(|queued| serde_json::from_str::<Event>(&queued.event).ok());
    Ok(events.map(|event| event.alert.key()).collect())
}

struct Agreed {
    standing: Vec<(AlertKey, AlertState)>,
    told: bool,
}

fn take_over(writing: &Writing<'_>, known: &[(AlertKey, AlertState)]) -> Result<(), StoreError> {
    let raised = |state: &AlertState| state.raised_at.is_some();
    for (key, state) in known {
        if !writing.alert(key)?.as_ref().is_some_and(raised) {
            writing.set_alert(key, Some(state))?;
        }
    }
    Ok(())
}

/// The raised alert that a field of the hash shows; one that cannot be read stands until its check is judged again, or no longer exists.
fn taken_over(field: &str, json: &str, now: Timestamp) -> Option<(AlertKey, AlertState)> {
    let key = AlertKey::parse(field).ok()?;
    let alert = Alert::parse(json).filter(|alert| alert.key() == key);
    let state = alert.map_or_else(
        || AlertState {
            severity: Severity::Unknown,
            since: now,
            raised_at: Some(now),
            reason: "what Redis holds of this alert cannot be read".to_owned(),
            value: None,
            threshold: None,
            runbook: None,
            notice: Notice::known(Severity::Unknown, Some(now)),
        },
        |alert| alert.state(),
    );
    Some((key, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_taken_over_by_its_name_and_only_its_own_content_counts() {
        let now = Timestamp::from_second(10_000).unwrap();
        let key = AlertKey::parse("lag/db1/").unwrap();
        let state = AlertState {
            severity: Severity::Critical,
            since: now,
            raised_at: Some(now),
            reason: "is behind".to_owned(),
            value: None,
            threshold: None,
            runbook: None,
            notice: Notice::known(Severity::Critical, None),
        };
        let json = Alert::new(&key, &state, "db1").to_json();
        let (taken, known) = taken_over("lag/db1/", &json, now).unwrap();
        assert_eq!((taken, known), (key, state));
        for (field, json) in [
            ("disk/db1/", json.as_str()),
            ("lag/db1/", "{}"),
            ("lag/db1/", ""),
            ("lag/db1/", &json.replace("\"v\":1", "\"v\":2")),
        ] {
            let (taken, known) = taken_over(field, json, now).unwrap();
            assert_eq!(taken.to_string(), field);
            assert_eq!(known.severity, Severity::Unknown, "{field} {json}");
        }
        assert_eq!(taken_over("no alert", &json, now), None);
    }
}
