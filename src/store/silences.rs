//! Copies of the cluster's silences.

use super::open::NOTICES_SINCE;
use super::{Reading, StoreError, Writing, query};
use crate::model::Silence;

impl Reading<'_> {
    /// All that are known, those that have ended included, by id. What cannot be read is left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn silences(&self) -> Result<Vec<Silence>, StoreError> {
        if self.is_before(NOTICES_SINCE)? {
            return Ok(Vec::new());
        }
        let collect = || {
            let mut statement = self.0.prepare("SELECT silence FROM silences ORDER BY id")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        let rows = collect().map_err(query("read the silences in"))?;
        Ok(rows
            .iter()
            .filter_map(|json| Silence::parse(json))
            .collect())
    }
}

impl Writing<'_> {
    /// Keeps `silence`, or what is known of it where that has ended earlier. Gives whether that changed anything.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn merge_silence(&self, silence: Silence) -> Result<bool, StoreError> {
        let known = self.silences()?;
        let known = known.into_iter().find(|known| known.id == silence.id);
        let merged = match known.clone() {
            Some(known) => known.merge(silence),
            None => silence,
        };
        if known.as_ref() == Some(&merged) {
            return Ok(false);
        }
        let written = self.0.0.execute(
            "INSERT OR REPLACE INTO silences (id, silence) VALUES (?1, ?2)",
            [&merged.id, &merged.to_json()],
        );
        written.map_err(query("write a silence to"))?;
        Ok(true)
    }

    /// # Errors
    /// When the store cannot be written.
    pub fn forget_silence(&self, id: &str) -> Result<(), StoreError> {
        let deleted = self.0.0.execute("DELETE FROM silences WHERE id = ?1", [id]);
        deleted.map(|_| ()).map_err(query("forget a silence in"))
    }
}
