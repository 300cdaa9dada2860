//! Redis and the store made to agree, after either lost what it held.

use std::collections::BTreeMap;

use redis::cmd;

use super::event::Alert;
use super::{Alerts, AlertsError};
use crate::model::{AlertState, Scope};
use crate::redis::Redis;

impl Alerts {
    /// Delivers what waits, then makes the hash show the alerts of `scopes` as they stand in the store.
    ///
    /// An alert there that the store does not know is taken over as raised: a lost store must not
    /// raise again what was raised, nor leave it standing for ever. So a node that answers for the
    /// cluster, or for a silent peer, names that scope here. No event comes of it. For each heartbeat.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be read or written.
    pub async fn reconcile(&self, redis: &Redis, scopes: &[Scope]) -> Result<(), AlertsError> {
        let _turn = self.turn.lock().await;
        // Before the delivery: an alert that ends after it still stands in the hash, and must not be taken over from there.
        let before = self.store.read(|reading| reading.last_sequence()).await?;
        self.deliver_in_turn(redis).await?;
        let mut get = cmd("HGETALL");
        get.arg(self.keys.active());
        let shown: BTreeMap<String, String> = redis.ask("read the alerts", &get).await?;

        let ours = |scope: &Scope| scopes.contains(scope);
        let known: Vec<Alert> = shown
            .values()
            .filter_map(|json| Alert::parse(json))
            .filter(|alert| ours(&alert.key().scope))
            .collect();
        let standing = self
            .store
            .write(move |writing| {
                // What ended since the hash was read must not come back to life.
                if writing.last_sequence()? == before {
                    for alert in &known {
                        let key = alert.key();
                        let raised = |state: &AlertState| state.raised_at.is_some();
                        if !writing.alert(&key)?.as_ref().is_some_and(raised) {
                            writing.set_alert(&key, Some(&alert.state()))?;
                        }
                    }
                }
                writing.alerts()
            })
            .await?;

        let mut set = cmd("HSET");
        set.arg(self.keys.active());
        let mut stale = false;
        for (key, state) in standing {
            if state.raised_at.is_none() || !ours(&key.scope) {
                continue;
            }
            let (field, json) = (
                key.to_string(),
                Alert::new(&key, &state, &self.hostname).to_json(),
            );
            if shown.get(&field) != Some(&json) {
                stale = true;
                set.arg(field).arg(json);
            }
        }
        if stale {
            let _: i64 = redis.ask("write the alerts", &set).await?;
        }
        Ok(())
    }
}
