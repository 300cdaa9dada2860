//! The cluster's alerts, events and silences as Redis holds them, for a command line. It changes no alert.

use std::collections::BTreeMap;

use redis::cmd;

use super::event::{Alert, Event};
use crate::model::Silence;
use crate::redis::{Keys, Redis, RedisError};
use crate::store::OUTBOX_LIMIT;

/// What one cluster has in Redis.
#[derive(Debug)]
pub struct Published<'a> {
    redis: &'a Redis,
    keys: Keys,
}

/// An entry of the stream: its id, and its fields with their values.
type Entry = (String, Vec<(String, String)>);

impl<'a> Published<'a> {
    pub fn new(redis: &'a Redis, cluster: &str) -> Self {
        Self {
            redis,
            keys: Keys::new(cluster),
        }
    }

    /// The alerts that stand, by key; what cannot be read is left out.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn alerts(&self) -> Result<Vec<Alert>, RedisError> {
        let mut get = cmd("HGETALL");
        get.arg(self.keys.active());
        let shown: BTreeMap<String, String> = self.redis.ask("read the alerts", &get).await?;
        let alerts = shown.iter().filter_map(|(field, json)| {
            Alert::parse(json).filter(|alert| alert.key().to_string() == *field)
        });
        Ok(alerts.collect())
    }

    /// The host names of the nodes that live.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn nodes(&self) -> Result<Vec<String>, RedisError> {
        let nodes = self.redis.nodes(&self.keys).await?;
        Ok(nodes.into_iter().map(|(hostname, _)| hostname).collect())
    }

    /// Silences and acknowledgements, those that have ended included.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn silences(&self) -> Result<Vec<Silence>, RedisError> {
        let mut get = cmd("HVALS");
        get.arg(self.keys.silences());
        let shown: Vec<String> = self.redis.ask("read the silences", &get).await?;
        Ok(shown
            .iter()
            .filter_map(|json| Silence::parse(json))
            .collect())
    }

    /// Writes a decision, or its end. Each node takes it over within seconds.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn write_silence(&self, silence: &Silence) -> Result<(), RedisError> {
        // Only an end replaces what is there.
        let verb = if silence.ended.is_some() {
            "HSET"
        } else {
            "HSETNX"
        };
        let mut set = cmd(verb);
        set.arg(self.keys.silences()).arg(&silence.id);
        set.arg(silence.to_json());
        self.redis
            .ask("write a silence", &set)
            .await
            .map(|_: i64| ())
    }

    /// Publishes an event that is about no alert.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn write_test(&self, event: &Event) -> Result<(), RedisError> {
        let json = event.to_json();
        let mut add = cmd("XADD");
        add.arg(self.keys.events()).arg("MAXLEN").arg("~");
        add.arg(OUTBOX_LIMIT).arg("*").arg("event").arg(&json);
        add.arg("reporter").arg(&event.alert.reporter);
        add.arg("seq").arg(0);
        let _: String = self.redis.ask("write a test event", &add).await?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.keys.channel()).arg(json);
        let heard = self.redis.ask("publish a test event", &publish).await;
        heard.map(|_: i64| ())
    }

    /// The last `limit` events, newest first.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history(&self, limit: u32) -> Result<Vec<Event>, RedisError> {
        let mut range = cmd("XREVRANGE");
        range.arg(self.keys.events()).arg("+").arg("-");
        range.arg("COUNT").arg(limit);
        let entries: Vec<Entry> = self.redis.ask("read the events", &range).await?;
        Ok(entries.iter().filter_map(event).collect())
    }

    /// The id of the newest event; `0` where there is none.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn last_id(&self) -> Result<String, RedisError> {
        let mut range = cmd("XREVRANGE");
        range.arg(self.keys.events()).arg("+").arg("-");
        range.arg("COUNT").arg(1);
        let entries: Vec<Entry> = self.redis.ask("read the events", &range).await?;
        let newest = entries.into_iter().next();
        Ok(newest.map_or_else(|| "0".to_owned(), |(id, _)| id))
    }

    /// The events after the one with `id`, oldest first, and the id of the last one.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn events_after(&self, id: &str) -> Result<(Vec<Event>, String), RedisError> {
        let mut range = cmd("XRANGE");
        range.arg(self.keys.events()).arg(format!("({id}")).arg("+");
        range.arg("COUNT").arg(1000);
        let entries: Vec<Entry> = self.redis.ask("read the events", &range).await?;
        let last = entries
            .last()
            .map_or_else(|| id.to_owned(), |(id, _)| id.clone());
        Ok((entries.iter().filter_map(event).collect(), last))
    }
}

/// `None` for what another version of xdb wrote.
fn event((_, fields): &Entry) -> Option<Event> {
    let (_, json) = fields.iter().find(|(name, _)| name == "event")?;
    serde_json::from_str(json).ok()
}
