//! What the page plots: few series, each at a few resolutions, and of each resolution a fixed number of stretches.

use rusqlite::params;

use super::open::SAMPLES_SINCE;
use super::{Reading, StoreError, Writing, query};

/// One stretch of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSample {
    pub series: String,
    /// How long the stretch is.
    pub step_secs: i64,
    /// Where it begins, since 1970.
    pub at_secs: i64,
    /// The highest value in it.
    pub value: f64,
}

impl Reading<'_> {
    /// Every sample, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn samples(&self) -> Result<Vec<StoredSample>, StoreError> {
        if self.is_before(SAMPLES_SINCE)? {
            return Ok(Vec::new());
        }
        let collect = || {
            let mut statement = self.0.prepare(
                "SELECT series, step_secs, at_secs, value FROM samples ORDER BY series, step_secs, at_secs",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(StoredSample {
                    series: row.get("series")?,
                    step_secs: row.get("step_secs")?,
                    at_secs: row.get("at_secs")?,
                    value: row.get("value")?,
                })
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        collect().map_err(query("read the samples in"))
    }
}

impl Writing<'_> {
    /// Keeps `samples`, the higher of two of one stretch, and forgets those of `step_secs` that begin before `oldest_secs`:
    /// a pair of each resolution.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep_samples(
        &self,
        samples: &[StoredSample],
        oldest: &[(i64, i64)],
    ) -> Result<(), StoreError> {
        let keep = || {
            let connection = self.0.0;
            let mut insert = connection.prepare(
                "INSERT INTO samples (series, step_secs, at_secs, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            )?;
            for one in samples {
                insert.execute(params![one.series, one.step_secs, one.at_secs, one.value])?;
            }
            for (step_secs, oldest_secs) in oldest {
                connection.execute(
                    "DELETE FROM samples WHERE step_secs = ?1 AND at_secs < ?2",
                    [step_secs, oldest_secs],
                )?;
            }
            Ok(())
        };
        keep().map_err(query("write samples to"))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;

    fn sample(step_secs: i64, at_secs: i64, value: f64) -> StoredSample {
        StoredSample {
            series: "rpo".to_owned(),
            step_secs,
            at_secs,
            value,
        }
    }

    #[tokio::test]
    async fn of_a_stretch_the_highest_is_kept_and_what_is_old_is_forgotten() {
        let directory = TempDir::new().unwrap();
        let opened = Store::open(directory.path(), Timestamp::UNIX_EPOCH).unwrap();
        let write = |samples: Vec<StoredSample>, oldest: Vec<(i64, i64)>| {
            let write = opened
                .store
                .write(move |writing| writing.keep_samples(&samples, &oldest));
            async { write.await.unwrap() }
        };
        write(vec![sample(30, 60, 2.0), sample(600, 0, 2.0)], vec![]).await;
        write(vec![sample(30, 60, 1.0), sample(30, 90, 5.0)], vec![]).await;
        let read = || opened.store.read(|reading| reading.samples());
        let all = [
            sample(30, 60, 2.0),
            sample(30, 90, 5.0),
            sample(600, 0, 2.0),
        ];
        assert_eq!(read().await.unwrap(), all);
        write(vec![], vec![(30, 90)]).await;
        assert_eq!(read().await.unwrap(), all[1..]);
    }

    #[tokio::test]
    async fn a_store_of_before_the_samples_gets_their_table() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("xdb.db");
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(include_str!("schema.sql")).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let opened = Store::open(directory.path(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(opened.set_aside, None);
        let samples = opened.store.read(|reading| reading.samples());
        assert_eq!(samples.await.unwrap(), []);
    }
}
