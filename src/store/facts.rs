//! Small things that a node must not forget.

use rusqlite::OptionalExtension;

use super::{Reading, StoreError, Writing, query};
use crate::model::Timeline;

impl Reading<'_> {
    /// The highest timeline that this node ever knew of in the cluster `system_identifier`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn highest_timeline(&self, system_identifier: u64) -> Result<Option<Timeline>, StoreError> {
        let Some(value) = self.fact(&timeline_of(system_identifier))? else {
            return Ok(None);
        };
        let content = |_| StoreError::Content { what: "a timeline" };
        value
            .parse()
            .map(|timeline| Some(Timeline(timeline)))
            .map_err(content)
    }

    pub(super) fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let value = self
            .0
            .query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional();
        value.map_err(query("read a fact in"))
    }
}

impl Writing<'_> {
    /// Keeps `timeline` when it is higher than what was known; gives the highest.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn see_timeline(
        &self,
        system_identifier: u64,
        timeline: Timeline,
    ) -> Result<Timeline, StoreError> {
        match self.highest_timeline(system_identifier)? {
            Some(known) if known >= timeline => Ok(known),
            _ => {
                self.set_fact(&timeline_of(system_identifier), &timeline.0.to_string())?;
                Ok(timeline)
            }
        }
    }

    pub(super) fn set_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let written = self.0.0.execute(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)",
            [name, value],
        );
        written.map(|_| ()).map_err(query("write a fact to"))
    }
}

fn timeline_of(system_identifier: u64) -> String {
    format!("timeline.{system_identifier}")
}
