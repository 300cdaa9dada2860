//! The outbox into Redis: in order, and each event once.

use std::sync::atomic::Ordering;

use redis::cmd;

use super::event::{Event, EventKind};
use super::{Alerts, AlertsError};
use crate::redis::Redis;
use crate::store::{OUTBOX_LIMIT, Queued, Writing};

const SCRIPT: &str = include_str!("deliver.lua");

/// Answers of the script.
const TOLD: i64 = 1;
const TOLD_BEFORE: i64 = 4;
/// None of them.
const NOT_READ: i64 = -1;

impl Alerts {
    /// Delivers what waits, until nothing does; gives how many events Redis took.
    ///
    /// Harmless at any time, from several processes at once too: the script skips what it has seen.
    ///
    /// # Errors
    /// When Redis is away or refuses; what it did not confirm still waits.
    pub async fn deliver(&self, redis: &Redis) -> Result<u64, AlertsError> {
        let _turn = self.turn.lock().await;
        self.deliver_in_turn(redis).await
    }

    pub(super) async fn deliver_in_turn(&self, redis: &Redis) -> Result<u64, AlertsError> {
        let mut told = 0;
        if self.next().await?.is_none() {
            return Ok(told);
        }
        self.note_lost_redis(redis).await?;
        while let Some(queued) = self.next().await? {
            let answer = if let Ok(event) = serde_json::from_str(&queued.event) {
                self.send(redis, &queued, &event).await?
            } else {
                tracing::warn!(seq = queued.seq, "left out an event that cannot be read");
                NOT_READ
            };
            told += u64::from(answer == TOLD);
            let work = move |writing: &Writing<'_>| {
                // What another node has told, the receivers hear from that node.
                if !matches!(answer, TOLD | TOLD_BEFORE | NOT_READ) {
                    writing.drop_notices(&queued.event)?;
                }
                writing.remove_event(queued.seq)
            };
            self.store.write(work).await?;
            self.decided.notify_waiters();
        }
        Ok(told)
    }

    /// Numbers go on after what Redis has seen, also when this store is new; notes whether Redis lost what it held.
    pub(super) async fn note_lost_redis(&self, redis: &Redis) -> Result<(), AlertsError> {
        let mut get = cmd("GET");
        get.arg(self.keys.delivered(&self.reporter.hostname));
        let delivered: Option<String> = redis.ask("read what was delivered", &get).await?;
        let lost = delivered.is_none();
        if lost {
            self.redis_lost_all.store(true, Ordering::Relaxed);
        }
        let delivered = delivered.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.store
            .write(move |writing| writing.anchor_outbox(delivered))
            .await?;
        if lost {
            // A node that has delivered nothing yet must not take each later look for a loss.
            let mut set = cmd("SET");
            set.arg(self.keys.delivered(&self.reporter.hostname))
                .arg(0)
                .arg("NX");
            let _: Option<String> = redis.ask("note what was delivered", &set).await?;
        }
        Ok(())
    }

    async fn next(&self) -> Result<Option<Queued>, AlertsError> {
        Ok(self.store.read(|reading| reading.next_event()).await?)
    }

    /// What the script answered.
    async fn send(
        &self,
        redis: &Redis,
        queued: &Queued,
        event: &Event,
    ) -> Result<i64, AlertsError> {
        let alert = match event.kind {
            EventKind::Resolved => String::new(),
            _ => event.alert.to_json(),
        };
        let mut script = cmd("EVAL");
        script.arg(SCRIPT).arg(3);
        script.arg(self.keys.active()).arg(self.keys.events());
        script.arg(self.keys.delivered(&self.reporter.hostname));
        script.arg(queued.seq).arg(&self.reporter.hostname);
        script.arg(event.alert.key().to_string()).arg(alert);
        let published = if event.alert.hidden {
            ""
        } else {
            &queued.event
        };
        script.arg(published).arg(self.keys.channel());
        script.arg(OUTBOX_LIMIT).arg(event.kind.word());
        script.arg(event.alert.severity.word());
        Ok(redis.ask("deliver an alert", &script).await?)
    }
}
