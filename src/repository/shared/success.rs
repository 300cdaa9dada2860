//! What a job last did, for the node that does it next: `jobs/{job}.json`.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Shared, SharedError, finished_at};
use crate::model::JobDetail;
use crate::storage::Change;

/// One run that succeeded; the object's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Success {
    v: u32,
    /// Host name of the node that did it.
    pub node: String,
    pub started_at: Timestamp,
    pub elapsed_secs: f64,
    /// The name of the job, and what came of it: keys `job` and `detail`.
    #[serde(flatten)]
    pub detail: JobDetail,
}

impl Success {
    pub fn new(
        node: &str,
        started_at: Timestamp,
        finished_at: Timestamp,
        detail: JobDetail,
    ) -> Self {
        Self {
            v: 1,
            node: node.to_owned(),
            started_at,
            elapsed_secs: finished_at.duration_since(started_at).as_secs_f64(),
            detail,
        }
    }

    pub fn finished_at(&self) -> Timestamp {
        finished_at(self.started_at, self.elapsed_secs)
    }

    /// Whether it is later than nodes' clocks may differ by.
    pub fn is_of_future(&self, now: Timestamp) -> bool {
        self.finished_at().duration_since(now) > SignedDuration::from_mins(10)
    }
}

impl Shared {
    /// What `job` last did on any node; `None` when it never succeeded.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn last_success(&self, job: &str) -> Result<Option<Success>, SharedError> {
        let key = self.success_key(job);
        let there = self.bucket.get_tagged(&key).await?;
        there
            .map(|(content, _)| self.read_success(&key, &content))
            .transpose()
    }

    /// Keeps `success` of `job` unless a later one is there, and gives the later of the two.
    ///
    /// One of the future was written by a clock that was wrong, and gives way.
    ///
    /// # Errors
    /// When the bucket cannot be asked or written.
    pub async fn keep_success(&self, job: &str, success: Success) -> Result<Success, SharedError> {
        let key = self.success_key(job);
        let decide = |there: Option<&[u8]>| -> Result<Change<Success>, SharedError> {
            let there = there.map(|content| self.read_success(&key, content));
            Ok(match there.transpose()? {
                Some(other)
                    if other.finished_at() >= success.finished_at()
                        && !other.is_of_future(Timestamp::now()) =>
                {
                    Change::Keep(other)
                }
                _ => {
                    let content = serde_json::to_vec(&success).expect("a success is plain values");
                    Change::Write(content, success.clone())
                }
            })
        };
        let (stands, _) = self.bucket.update(&key, decide).await?;
        Ok(stands)
    }

    fn read_success(&self, key: &str, content: &[u8]) -> Result<Success, SharedError> {
        serde_json::from_slice(content).map_err(|error| self.damaged(key, &error))
    }

    fn success_key(&self, job: &str) -> String {
        self.key(&format!("jobs/{job}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DumpDetail;

    #[test]
    fn a_success_is_read_as_it_was_written() {
        let (started, finished) = ("2026-11-21T02:00:00Z", "2026-11-21T02:00:01.5Z");
        let detail = JobDetail::Dump(DumpDetail {
            set: Some("20261121T020000.000Z-db2".to_owned()),
            bytes: Some(5),
            system_identifier: Some(u64::MAX),
        });
        let at = |text: &str| text.parse().unwrap();
        let success = Success::new("db2", at(started), at(finished), detail);
        let json = serde_json::to_string(&success).unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"node":"db2","started_at":"2026-11-21T02:00:00Z","elapsed_secs":1.5,"job":"dump","detail":{"set":"20261121T020000.000Z-db2","bytes":5,"system_identifier":18446744073709551615}}"#
        );
        let read: Success = serde_json::from_str(&json).unwrap();
        assert_eq!(read, success);
        assert_eq!(read.finished_at(), at(finished));
        // As an older xdb wrote it.
        let old = r#"{"v":1,"job":"dump","node":"db2","started_at":"2026-11-21T02:00:00Z","elapsed_secs":1.5,"detail":{"set":"20261121T020000.000Z-db2"}}"#;
        let read: Success = serde_json::from_str(old).unwrap();
        assert_eq!(read.finished_at(), at(finished));
        let odd = Success {
            elapsed_secs: -1.0,
            ..read
        };
        assert_eq!(odd.finished_at(), at(started));
    }
}
