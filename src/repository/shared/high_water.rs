//! How far the archive came: `archive/high-water.json`. A missing last segment cannot be seen in the bucket alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Shared, SharedError};
use crate::model::{Lsn, Timeline};
use crate::storage::Change;

const KEY: &str = "archive/high-water.json";

/// The last segment that a leading primary knew to be archived; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    v: u32,
    pub system_identifier: u64,
    /// Where it was archived to, as `s3://bucket/prefix`.
    pub repository: String,
    pub timeline: Timeline,
    pub segment: String,
    /// The segment's end.
    pub lsn: Lsn,
    /// Host name of the node that says so.
    pub node: String,
    pub at: Timestamp,
}

impl HighWater {
    pub fn new(
        (system_identifier, repository): (u64, &str),
        (timeline, segment, lsn): (Timeline, &str, Lsn),
        node: &str,
        at: Timestamp,
    ) -> Self {
        Self {
            v: 1,
            system_identifier,
            repository: repository.to_owned(),
            timeline,
            segment: segment.to_owned(),
            lsn,
            node: node.to_owned(),
            at,
        }
    }

    /// Whether this one takes the place of `other`: one of the same archive never moves back.
    fn is_beyond(&self, other: &Self) -> bool {
        let archive = |mark: &Self| (mark.system_identifier, mark.repository.clone());
        archive(self) != archive(other) || (self.timeline, self.lsn) > (other.timeline, other.lsn)
    }
}

impl Shared {
    /// The mark; `None` where no primary has set one yet.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn high_water(&self) -> Result<Option<HighWater>, SharedError> {
        let there = self.bucket.get_tagged(&self.key(KEY)).await?;
        there
            .map(|(content, _)| self.read_high_water(&content))
            .transpose()
    }

    /// Sets the mark to `mark` unless it is there already, or further; returns the mark that counts. One on the timeline
    /// `void` is never further.
    ///
    /// # Errors
    /// When the bucket cannot be asked or written.
    pub async fn raise_high_water(
        &self,
        mark: &HighWater,
        void: Option<Timeline>,
    ) -> Result<HighWater, SharedError> {
        let key = self.key(KEY);
        let stays = |other: &HighWater| Some(other.timeline) != void && !mark.is_beyond(other);
        let decide = |there: Option<&[u8]>| -> Result<Change<HighWater>, SharedError> {
            let there = there.map(|content| self.read_high_water(content));
            Ok(match there.transpose()? {
                Some(other) if stays(&other) => Change::Keep(other),
                _ => {
                    let content = serde_json::to_vec(mark).expect("plain values");
                    Change::Write(content, mark.clone())
                }
            })
        };
        let (stands, _) = self.bucket.update(&key, decide).await?;
        Ok(stands)
    }

    fn read_high_water(&self, content: &[u8]) -> Result<HighWater, SharedError> {
        let key = self.key(KEY);
        serde_json::from_slice(content).map_err(|error| self.damaged(&key, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(identifier: u64, repository: &str, timeline: u32, lsn: u64) -> HighWater {
        let of = (identifier, repository);
        let to = (Timeline(timeline), "000000010000000000000003", Lsn(lsn));
        HighWater::new(of, to, "db1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_mark_of_an_archive_moves_forward_only() {
        let stands = mark(7, "s3://b/a", 2, 100);
        for (what, next, beyond) in [
            ("the same", mark(7, "s3://b/a", 2, 100), false),
            ("the next segment", mark(7, "s3://b/a", 2, 200), true),
            ("an earlier one", mark(7, "s3://b/a", 2, 50), false),
            (
                "a later one of a timeline that was left",
                mark(7, "s3://b/a", 1, 900),
                false,
            ),
            (
                "a new timeline that begins before",
                mark(7, "s3://b/a", 3, 50),
                true,
            ),
            ("another cluster", mark(8, "s3://b/a", 1, 1), true),
            ("another prefix", mark(7, "s3://b/b", 1, 1), true),
        ] {
            assert_eq!(next.is_beyond(&stands), beyond, "{what}");
        }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let json = serde_json::to_string(&mark(u64::MAX, "s3://b/a", 2, 0x400_0000)).unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"system_identifier":18446744073709551615,"repository":"s3://b/a","timeline":2,"segment":"000000010000000000000003","lsn":"0/4000000","node":"db1","at":"1970-01-01T00:00:00Z"}"#
        );
        let read: HighWater = serde_json::from_str(&json).unwrap();
        assert_eq!(read, mark(u64::MAX, "s3://b/a", 2, 0x400_0000));
    }
}
