//! Events on their way to Redis, numbered without a gap backwards.

use rusqlite::OptionalExtension;

use super::{Reading, StoreError, Writing, query};

/// As many events wait at most, the oldest go first: the stream would not keep more either.
pub const OUTBOX_LIMIT: i64 = 10_000;

const ANCHORED: &str = "outbox.anchored";

/// The next event to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub seq: i64,
    /// JSON.
    pub event: String,
}

impl Reading<'_> {
    /// The oldest event that waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_event(&self) -> Result<Option<Queued>, StoreError> {
        let select = || {
            self.0
                .prepare("SELECT seq, event FROM outbox ORDER BY seq LIMIT 1")?
                .query_row([], |row| {
                    Ok(Queued {
                        seq: row.get("seq")?,
                        event: row.get("event")?,
                    })
                })
                .optional()
        };
        select().map_err(query("read the outbox of"))
    }

    /// How many events wait.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn queued_events(&self) -> Result<u64, StoreError> {
        let count = self.0.query_row("SELECT count(*) FROM outbox", [], |row| {
            row.get::<_, i64>(0)
        });
        let count = count.map_err(query("read the outbox of"))?;
        Ok(count.unsigned_abs())
    }

    /// Whether an event with this JSON waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_queued(&self, event: &str) -> Result<bool, StoreError> {
        let select = "SELECT EXISTS (SELECT 1 FROM outbox WHERE event = ?1)";
        let found = self.0.query_row(select, [event], |row| row.get(0));
        found.map_err(query("read the outbox of"))
    }

    /// Every event that waits, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn queued(&self) -> Result<Vec<Queued>, StoreError> {
        let collect = || {
            let mut statement = self
                .0
                .prepare("SELECT seq, event FROM outbox ORDER BY seq")?;
            let rows = statement.query_map([], |row| {
                Ok(Queued {
                    seq: row.get("seq")?,
                    event: row.get("event")?,
                })
            })?;
            rows.collect::<Result<_, _>>()
        };
        collect().map_err(query("read the outbox of"))
    }

    /// The number handed out last; 0 before the first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_sequence(&self) -> Result<i64, StoreError> {
        let last = self
            .0
            .query_row(
                "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'",
                [],
                |row| row.get(0),
            )
            .optional();
        Ok(last.map_err(query("read the outbox of"))?.unwrap_or(0))
    }
}

impl Writing<'_> {
    /// Puts an event at the end; gives its number.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn queue_event(&self, event: &str) -> Result<i64, StoreError> {
        let queue = || {
            self.0
                .0
                .execute("INSERT INTO outbox (event) VALUES (?1)", [event])?;
            let seq = self.0.0.last_insert_rowid();
            self.0
                .0
                .execute("DELETE FROM outbox WHERE seq <= ?1", [seq - OUTBOX_LIMIT])?;
            Ok(seq)
        };
        queue().map_err(query("queue an event in"))
    }

    /// Puts an event at its number, which is free or its own.
    pub(super) fn put_event(&self, queued: &Queued) -> Result<(), StoreError> {
        let put = self.0.0.execute(
            "INSERT OR REPLACE INTO outbox (seq, event) VALUES (?1, ?2)",
            (queued.seq, &queued.event),
        );
        put.map(|_| ()).map_err(query("queue an event in"))
    }

    /// Makes `last` the number that was handed out last.
    pub(super) fn set_sequence(&self, last: i64) -> Result<(), StoreError> {
        let set = || {
            let connection = self.0.0;
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'", [])?;
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)",
                [last],
            )
        };
        set().map(|_| ()).map_err(query("renumber the outbox of"))
    }

    /// Forgets all that waits: it was meant for consumers that are not served any more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn clear_outbox(&self) -> Result<(), StoreError> {
        let cleared = self.0.0.execute("DELETE FROM outbox", []);
        cleared.map(|_| ()).map_err(query("clear the outbox of"))
    }

    /// Takes out an event that Redis has confirmed; one that is out already counts as taken out.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remove_event(&self, seq: i64) -> Result<(), StoreError> {
        let removed = self.0.0.execute("DELETE FROM outbox WHERE seq = ?1", [seq]);
        removed.map(|_| ()).map_err(query("take an event out of"))
    }

    /// Makes every number, of what waits and of what comes, follow on `delivered`, which Redis has seen.
    ///
    /// Only a new store, or one that an older copy replaced, is behind Redis. Redis would take
    /// its events for delivered ones.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn anchor_outbox(&self, delivered: i64) -> Result<(), StoreError> {
        let last = self.last_sequence()?;
        let anchored = self.fact(ANCHORED)?.is_some();
        if anchored && delivered <= last {
            return Ok(());
        }
        self.set_fact(ANCHORED, "yes")?;
        let renumber = || -> rusqlite::Result<()> {
            // In two steps: a number must not meet one that is yet to move.
            self.0
                .0
                .execute("UPDATE outbox SET seq = -(seq + ?1)", [delivered])?;
            self.0.0.execute("UPDATE outbox SET seq = -seq", [])?;
            Ok(())
        };
        renumber().map_err(query("renumber the outbox of"))?;
        self.set_sequence(last + delivered)
    }
}
