//! Timelines that a person had the cluster forget: `forgotten-timelines/{system identifier}-{timeline}.json`, and what was
//! moved out of the archive: `set-aside/timeline-{timeline}-{time}/{name}`.

use jiff::Timestamp;

use super::{Shared, SharedError};
use crate::model::{ForgottenTimeline, ForgottenTimelines, Timeline};

const FOLDER: &str = "forgotten-timelines/";

impl Shared {
    /// Every forgotten timeline of the cluster `system_identifier`; a damaged record hides no other.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn forgotten_timelines(
        &self,
        system_identifier: u64,
    ) -> Result<ForgottenTimelines, SharedError> {
        let mut found = ForgottenTimelines::default();
        let of_cluster = self.key(&format!("{FOLDER}{system_identifier}-"));
        for object in self.bucket.list(&of_cluster).await? {
            let content = self.bucket.get(&object.key).await?;
            match serde_json::from_slice(&content) {
                Ok(forgotten) => found.known.push(forgotten),
                Err(error) => {
                    let reason = self.damaged(&object.key, &error).to_string();
                    tracing::warn!("what was forgotten cannot be read: {reason}");
                    let timeline = timeline_of(&object.key).map(|it| (it, reason));
                    found.unreadable.extend(timeline);
                }
            }
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

    /// Moves the object `key` of the same bucket to `folder` of `set-aside/`, where no recovery looks.
    ///
    /// # Errors
    /// When the bucket cannot be read or written; then the object is still where it was.
    pub async fn set_aside(&self, key: &str, folder: &str) -> Result<(), SharedError> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let aside = self.key(&format!("set-aside/{folder}/{name}"));
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

/// Where the files of `timeline` are moved at `now`: a number is used again after they were, and nothing is overwritten.
pub(crate) fn set_aside_folder(timeline: Timeline, now: Timestamp) -> String {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    format!("timeline-{:08X}-{time}", timeline.0)
}

/// The timeline in the name of a record.
fn timeline_of(key: &str) -> Option<Timeline> {
    let (_, digits) = key.strip_suffix(".json")?.rsplit_once('-')?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_later_has_another_folder() {
        let folder = |second| {
            let now = Timestamp::from_second(second).unwrap();
            set_aside_folder(Timeline(18), now)
        };
        assert_eq!(folder(0), "timeline-00000012-19700101T000000Z");
        assert_ne!(folder(0), folder(1));
    }

    #[test]
    fn a_records_name_tells_its_timeline() {
        for (key, timeline) in [
            ("xdb/my-main/forgotten-timelines/77-00000012.json", Some(18)),
            ("xdb/my-main/forgotten-timelines/77-12", None),
            ("xdb/my-main/forgotten-timelines/77-new.json", None),
        ] {
            assert_eq!(timeline_of(key), timeline.map(Timeline), "{key}");
        }
    }
}
