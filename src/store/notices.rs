//! Events on their way to receivers beside Redis: each receiver has its own order and takes its own time.

use rusqlite::{OptionalExtension, Row};

use super::open::NOTICES_SINCE;
use super::{OUTBOX_LIMIT, Reading, StoreError, Writing, query};

/// An event that a receiver has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub seq: i64,
    pub receiver: String,
    /// Names the event to the receiver, the same on each attempt.
    pub id: String,
    /// JSON.
    pub event: String,
}

fn waiting(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        seq: row.get("seq")?,
        receiver: row.get("receiver")?,
        id: row.get("id")?,
        event: row.get("event")?,
    })
}

impl Reading<'_> {
    /// The oldest event that waits for `receiver`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_notice(&self, receiver: &str) -> Result<Option<Waiting>, StoreError> {
        if self.is_before(NOTICES_SINCE)? {
            return Ok(None);
        }
        let select = || {
            self.0
                .prepare("SELECT seq, receiver, id, event FROM notices WHERE receiver = ?1 ORDER BY seq LIMIT 1")?
                .query_row([receiver], waiting)
                .optional()
        };
        select().map_err(query("read the notices of"))
    }

    /// Whether one of those that wait for the same receiver behind `waiting` is so by its JSON.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn any_notice_after(
        &self,
        waiting: &Waiting,
        is_so: impl Fn(&str) -> bool,
    ) -> Result<bool, StoreError> {
        let look = || {
            let mut statement = self.0.prepare(
                "SELECT event FROM notices WHERE receiver = ?1 AND seq > ?2 ORDER BY seq",
            )?;
            let mut rows = statement.query((&waiting.receiver, waiting.seq))?;
            while let Some(row) = rows.next()? {
                if is_so(&row.get::<_, String>(0)?) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        look().map_err(query("read the notices of"))
    }

    /// Every event that waits for any receiver, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn notices(&self) -> Result<Vec<Waiting>, StoreError> {
        if self.is_before(NOTICES_SINCE)? {
            return Ok(Vec::new());
        }
        let collect = || {
            let mut statement = self
                .0
                .prepare("SELECT seq, receiver, id, event FROM notices ORDER BY seq")?;
            let rows = statement.query_map([], waiting)?;
            rows.collect::<Result<_, _>>()
        };
        collect().map_err(query("read the notices of"))
    }
}

impl Writing<'_> {
    /// Puts an event at the end of those that wait for `receiver`. Beyond [`OUTBOX_LIMIT`] the oldest is dropped.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn queue_notice(&self, receiver: &str, id: &str, event: &str) -> Result<(), StoreError> {
        let queue = || {
            let connection = self.0.0;
            connection.execute(
                "INSERT INTO notices (receiver, id, event) VALUES (?1, ?2, ?3)",
                [receiver, id, event],
            )?;
            connection.execute(
                "DELETE FROM notices WHERE receiver = ?1 AND seq <= (
                    SELECT seq FROM notices WHERE receiver = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                (receiver, OUTBOX_LIMIT),
            )
        };
        queue().map(|_| ()).map_err(query("queue a notice in"))
    }

    /// Takes out an event that its receiver has confirmed.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remove_notice(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let removed = self.0.0.execute(
            "DELETE FROM notices WHERE receiver = ?1 AND id = ?2",
            [&waiting.receiver, &waiting.id],
        );
        removed.map(|_| ()).map_err(query("take a notice out of"))
    }

    /// Takes the event with this JSON from all receivers: another node has reported it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn drop_notices(&self, event: &str) -> Result<(), StoreError> {
        let removed = self
            .0
            .0
            .execute("DELETE FROM notices WHERE event = ?1", [event]);
        removed.map(|_| ()).map_err(query("take a notice out of"))
    }

    /// Replaces the JSON of `waiting`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn rewrite_notice(&self, waiting: &Waiting, event: &str) -> Result<(), StoreError> {
        let written = self.0.0.execute(
            "UPDATE notices SET event = ?2 WHERE seq = ?1",
            (waiting.seq, event),
        );
        written.map(|_| ()).map_err(query("rewrite a notice in"))
    }

    /// Forgets what waits for receivers that are not among `receivers` any more.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn keep_receivers(&self, receivers: &[String]) -> Result<(), StoreError> {
        for waiting in self.notices()? {
            if !receivers.contains(&waiting.receiver) {
                self.remove_notice(&waiting)?;
            }
        }
        Ok(())
    }
}
