//! What ties a timeline to this cluster.

use super::Timelines;
use super::files::key_name;
use super::listing::ListedTimeline;
use crate::log;
use crate::model::{ArchiveFile, SegmentSize, Timeline, TimelineHistory, WalSegment};
use crate::repository::RepositoryError;
use crate::storage::Object;

/// What ties a timeline to a system identifier: what its stored segments say of their cluster.
#[derive(Debug, Default)]
pub(super) struct Tie {
    /// The segment that is of this cluster.
    pub ours: Option<String>,
    /// Why one is of another cluster.
    pub foreign: Option<String>,
    /// Why one could not be read.
    pub unread: Option<RepositoryError>,
}

impl Tie {
    /// What proves that a timeline whose history fits is this cluster's, where `peer` runs on it, too.
    ///
    /// # Errors
    /// Why nothing does. A foreign segment outranks a peer: the archive's history is then not the peer's.
    pub(super) fn judge(self, peer: Option<&str>) -> Result<String, String> {
        if let Some(segment) = self.ours {
            return Ok(segment);
        }
        if let Some(reason) = self.foreign {
            return Err(reason);
        }
        match (peer, self.unread) {
            (Some(name), _) => Ok(format!("{name} runs on it")),
            (None, Some(error)) => Err(log::chain(&error)),
            (None, None) => Err(UNTIED.to_owned()),
        }
    }
}

pub(super) const UNTIED: &str = "no stored segment ties it to this cluster";

impl Timelines {
    /// What the segments that are stored of a timeline say of their cluster: one of ours is enough.
    pub(super) async fn tie(
        &self,
        listed: &ListedTimeline,
        history: Option<&TimelineHistory>,
        identifier: u64,
    ) -> Result<Tie, RepositoryError> {
        let mut candidates = Vec::new();
        if let Some(switch) = history.and_then(TimelineHistory::parent) {
            let size = self.files.size;
            let segment = |timeline| WalSegment::holding(timeline, switch.at, size);
            let first = segment(listed.timeline).name(size);
            // A promoted server stores the segment that it left under its old name.
            let left = format!("{}.partial", segment(switch.timeline).name(size));
            for name in [first, left] {
                candidates.extend(self.repository.stored_as(&name).await?);
            }
        }
        candidates.extend(listed.objects.iter().cloned());
        self.tie_by(&candidates, identifier).await
    }

    async fn tie_by(&self, candidates: &[Object], identifier: u64) -> Result<Tie, RepositoryError> {
        let mut tie = Tie::default();
        for object in candidates {
            let Some((name, ArchiveFile::Segment | ArchiveFile::Partial)) = key_name(&object.key)
            else {
                continue;
            };
            match self.files.header(object, name).await? {
                Ok(Some(header)) if header.system_identifier == identifier => {
                    tie.ours = Some(name.to_owned());
                    return Ok(tie);
                }
                Ok(Some(header)) => {
                    tie.foreign = Some(format!(
                        "{name} is of another cluster: its system identifier is {}, this server's {identifier}",
                        header.system_identifier
                    ));
                }
                Ok(None) => {}
                Err(error) => tie.unread = Some(error),
            }
        }
        Ok(tie)
    }

    /// Whether the archive holds WAL of the cluster `identifier` where `timeline`, with this history, begins.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn holds_own_wal(
        &self,
        timeline: Timeline,
        history: &TimelineHistory,
        identifier: u64,
    ) -> Result<bool, RepositoryError> {
        let mut candidates = Vec::new();
        for name in around_switch(timeline, history, self.files.size) {
            candidates.extend(self.repository.stored_as(&name).await?);
        }
        Ok(self.tie_by(&candidates, identifier).await?.ours.is_some())
    }
}

/// The segments in which `timeline` left its parent, on both, and the one before.
fn around_switch(timeline: Timeline, history: &TimelineHistory, size: SegmentSize) -> Vec<String> {
    let Some(switch) = history.parent() else {
        return Vec::new();
    };
    let left = WalSegment::holding(switch.timeline, switch.at, size);
    let before = left.number.checked_sub(1);
    let before = before.map(|number| WalSegment { number, ..left }.name(size));
    let first = WalSegment { timeline, ..left }.name(size);
    let (left, partial) = (left.name(size), format!("{}.partial", left.name(size)));
    [first, left, partial].into_iter().chain(before).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_ours_proves_and_a_foreign_one_outranks_a_peer() {
        let unread = || RepositoryError::NoAnswer {
            after: std::time::Duration::from_secs(5),
        };
        for (what, ours, foreign, is_unread, peer, proof) in [
            ("ours", true, false, false, None, Ok("segment")),
            ("ours, too", true, true, true, None, Ok("segment")),
            ("foreign", false, true, false, None, Err("foreign")),
            (
                "foreign, and a peer on that number",
                false,
                true,
                true,
                Some("db2"),
                Err("foreign"),
            ),
            (
                "a peer",
                false,
                false,
                false,
                Some("db2"),
                Ok("db2 runs on it"),
            ),
            (
                "a peer, and one is unread",
                false,
                false,
                true,
                Some("db2"),
                Ok("db2 runs on it"),
            ),
            (
                "unread",
                false,
                false,
                true,
                None,
                Err("S3 does not answer within 5 s"),
            ),
            ("nothing", false, false, false, None, Err(UNTIED)),
        ] {
            let tie = Tie {
                ours: ours.then(|| "segment".to_owned()),
                foreign: foreign.then(|| "foreign".to_owned()),
                unread: is_unread.then(unread),
            };
            let proof = proof.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(tie.judge(peer), proof, "{what}");
        }
    }

    #[test]
    fn the_segments_around_a_switch_tell_whose_a_promotion_is() {
        let names = |history: &str| {
            around_switch(
                Timeline(2),
                &history.parse().unwrap(),
                SegmentSize::default(),
            )
        };
        assert_eq!(
            names("1\t0/70000A0\tr\n"),
            [
                "000000020000000000000007",
                "000000010000000000000007",
                "000000010000000000000007.partial",
                "000000010000000000000006",
            ]
        );
        assert_eq!(names("1\t0/A0\tr\n").len(), 3);
        assert!(names("").is_empty());
    }
}
