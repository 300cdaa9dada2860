//! Losses that somebody knows of: `acknowledgements/{at}-{first}-{last}.json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Shared, SharedError};
use crate::storage::Condition;

const FOLDER: &str = "acknowledgements/";

/// WAL that is lost, and who knows; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    v: u32,
    /// Where it is missing, as `s3://bucket/prefix`.
    pub repository: String,
    /// Segments' names, both ends included.
    pub first: String,
    pub last: String,
    pub by: String,
    pub at: Timestamp,
    /// When it ends: from then on the gap alerts again.
    pub until: Timestamp,
    pub why: String,
}

impl Acknowledgement {
    pub fn new(
        repository: &str,
        (first, last): (&str, &str),
        (by, why): (&str, &str),
        at: Timestamp,
        until: Timestamp,
    ) -> Self {
        Self {
            v: 1,
            repository: repository.to_owned(),
            first: first.to_owned(),
            last: last.to_owned(),
            by: by.to_owned(),
            at,
            until,
            why: why.to_owned(),
        }
    }

    pub fn stands(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// `acknowledged by anna until 2026-12-31 00:00 UTC: the volume died`.
    pub fn told(&self) -> String {
        let until = self.until.strftime("%F %H:%M UTC");
        format!("acknowledged by {} until {until}: {}", self.by, self.why)
    }
}

impl Shared {
    /// Every acknowledgement for `repository`, also those that ended.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or one of them cannot be read.
    pub async fn acknowledgements(
        &self,
        repository: &str,
    ) -> Result<Vec<Acknowledgement>, SharedError> {
        let mut found = Vec::new();
        for object in self.bucket.list(&self.key(FOLDER)).await? {
            let content = self.bucket.get(&object.key).await?;
            let read: Acknowledgement = serde_json::from_slice(&content)
                .map_err(|error| self.damaged(&object.key, &error))?;
            if read.repository == repository {
                found.push(read);
            }
        }
        Ok(found)
    }

    /// Keeps `acknowledgement` beside those that are there.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn acknowledge(&self, acknowledgement: &Acknowledgement) -> Result<(), SharedError> {
        let Acknowledgement {
            first, last, at, ..
        } = acknowledgement;
        let at = at.strftime("%Y%m%dT%H%M%S%.6fZ");
        let key = self.key(&format!("{FOLDER}{at}-{first}-{last}.json"));
        let content = serde_json::to_vec(acknowledgement).expect("plain values");
        // What is there under this very name is this one: its answer was lost, and it was sent again.
        self.bucket
            .put_if(&key, &content, Condition::Absent)
            .await?;
        Ok(())
    }
}
