//! Timelines that a person had the cluster forget: `forgotten-timelines/{system identifier}-{timeline}.json`, and what was
//! moved out of the archive: `set-aside/timeline-{timeline}/{name}`.

use super::{Shared, SharedError};
use crate::model::{ForgottenTimeline, Timeline};

const FOLDER: &str = "forgotten-timelines/";

impl Shared {
    /// Every forgotten timeline of the cluster `system_identifier`.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or one of them cannot be read.
    pub async fn forgotten_timelines(
        &self,
        system_identifier: u64,
    ) -> Result<Vec<ForgottenTimeline>, SharedError> {
        let mut found = Vec::new();
        let of_cluster = self.key(&format!("{FOLDER}{system_identifier}-"));
        for object in self.bucket.list(&of_cluster).await? {
            let content = self.bucket.get(&object.key).await?;
            let read = serde_json::from_slice(&content);
            found.push(read.map_err(|error| self.damaged(&object.key, &error))?);
        }
        Ok(found)
    }

    /// Keeps `forgotten` in place of what was kept of the same timeline.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn forget_timeline(&self, forgotten: &ForgottenTimeline) -> Result<(), SharedError> {
        let key = self.forgotten_key(forgotten.system_identifier, forgotten.timeline);
        let content = serde_json::to_vec(forgotten).expect("plain values");
        Ok(self.bucket.put(&key, content).await?)
    }

    /// Removes what was kept of `timeline`; one that is not there counts as removed.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn remember_timeline(
        &self,
        system_identifier: u64,
        timeline: Timeline,
    ) -> Result<(), SharedError> {
        let key = self.forgotten_key(system_identifier, timeline);
        Ok(self.bucket.delete(&key).await?)
    }

    /// Moves the object `key` of the same bucket to `set-aside/`, where no recovery looks.
    ///
    /// # Errors
    /// When the bucket cannot be read or written; then the object is still where it was.
    pub async fn set_aside(&self, key: &str, timeline: Timeline) -> Result<(), SharedError> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let aside = self.key(&format!("set-aside/timeline-{:08X}/{name}", timeline.0));
        let content = self.bucket.get(key).await?;
        self.bucket.put(&aside, content).await?;
        Ok(self.bucket.delete(key).await?)
    }

    fn forgotten_key(&self, system_identifier: u64, timeline: Timeline) -> String {
        self.key(&format!(
            "{FOLDER}{system_identifier}-{:08X}.json",
            timeline.0
        ))
    }
}
