//! Silences, maintenance and acknowledgements: a hash in Redis, and a copy in each node's store.
//!
//! Each node merges both ways, so Redis may lose the hash and a node its store. A decision ends, and does not vanish: a
//! copy that comes back late must not bring it back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use redis::cmd;

use super::notice::is_worth_keeping;
use super::{Alerts, AlertsError};
use crate::model::{Ended, Silence};
use crate::redis::Redis;
use crate::store::{StoreError, Writing};

/// Silences that are read: every holder of the password may write any.
const MOST: usize = 1000;

/// The author of the end of a silence whose time is over.
const EXPIRY: &str = "expiry";

impl Alerts {
    /// The decisions that are in force at `now`, by this node's copy.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        let mut known = self.store.read(|reading| reading.silences()).await?;
        known.retain(|silence| silence.is_live(now));
        Ok(known)
    }

    /// Keeps a decision, or its end, on this node.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn keep_silence(&self, silence: Silence) -> Result<(), StoreError> {
        self.merge_silences(vec![silence]).await.map(|_| ())
    }

    /// Takes over what others know; gives all that this node knows then, ended ones included.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn merge_silences(&self, others: Vec<Silence>) -> Result<Vec<Silence>, StoreError> {
        let known = self.store.read(|reading| reading.silences()).await?;
        if others.iter().all(|one| known.contains(one)) {
            return Ok(known);
        }
        let work = move |writing: &Writing<'_>| {
            for silence in others.iter().take(MOST) {
                writing.merge_silence(silence.clone())?;
            }
            writing.silences()
        };
        self.store.write(work).await
    }

    /// Makes Redis and this node's store hold the same decisions, and ends those whose time is over.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be read or written.
    pub async fn sync_silences(&self, redis: &Redis, now: Timestamp) -> Result<(), AlertsError> {
        self.expire_silences(now).await?;
        let mut get = cmd("HGETALL");
        get.arg(self.keys.silences());
        let shown: BTreeMap<String, String> = redis.ask("read the silences", &get).await?;
        let read: Vec<Silence> = readable(&shown, now);
        for silence in self.merge_silences(read).await? {
            let json = silence.to_json();
            let there = shown.get(&silence.id);
            if there == Some(&json) {
                continue;
            }
            // Another node may have ended it meanwhile: only an end replaces what is there.
            let verb = if silence.ended.is_some() {
                "HSET"
            } else {
                "HSETNX"
            };
            let mut set = cmd(verb);
            set.arg(self.keys.silences()).arg(&silence.id).arg(json);
            let _: i64 = redis.ask("write a silence", &set).await?;
        }
        self.forget_old_silences(redis, &shown, now).await
    }

    /// By the state store alone, so that a clock that is set back later brings none back.
    async fn expire_silences(&self, now: Timestamp) -> Result<(), StoreError> {
        let known = self.store.read(|reading| reading.silences()).await?;
        let over = |silence: &Silence| silence.ended.is_none() && silence.expires_at <= now;
        for silence in known.into_iter().filter(over) {
            let ended = Some(Ended {
                at: silence.expires_at,
                by: EXPIRY.to_owned(),
            });
            self.keep_silence(Silence { ended, ..silence }).await?;
        }
        Ok(())
    }

    async fn forget_old_silences(
        &self,
        redis: &Redis,
        shown: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<(), AlertsError> {
        let old = |json: &String| {
            Silence::parse(json).is_some_and(|silence| !is_worth_keeping(&silence, now))
        };
        for (id, _) in shown.iter().filter(|(_, json)| old(json)) {
            let mut delete = cmd("HDEL");
            delete.arg(self.keys.silences()).arg(id);
            let _: i64 = redis.ask("forget a silence", &delete).await?;
        }
        let known = self.store.read(|reading| reading.silences()).await?;
        let ids: Vec<String> = known
            .into_iter()
            .filter(|silence| !is_worth_keeping(silence, now))
            .map(|silence| silence.id)
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let work =
            move |writing: &Writing<'_>| ids.iter().try_for_each(|id| writing.forget_silence(id));
        Ok(self.store.write(work).await?)
    }
}

/// Those of the hash that can still matter.
fn readable(shown: &BTreeMap<String, String>, now: Timestamp) -> Vec<Silence> {
    let parsed = shown.iter().filter_map(|(id, json)| {
        let silence = Silence::parse(json).filter(|_| json.len() <= Silence::LARGEST)?;
        (silence.id == *id && is_worth_keeping(&silence, now)).then_some(silence)
    });
    parsed.take(MOST).collect()
}
