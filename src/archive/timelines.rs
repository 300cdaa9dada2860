//! The timelines in the archive that are newer than a server's own, and what each of them is to it.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::timeout;

use super::catalog::{self, archived_name};
use super::timeline_files::{History, TimelineFiles, key_name};
use super::wal_client::stored_as;
use super::{ArchiveError, Repository};
use crate::config::Config;
use crate::log;
use crate::model::{
    ArchiveFile, ForgottenTimeline, ForgottenTimelines, Lsn, SegmentSize, ServerPosition,
    Supersession, Timeline, TimelineHistory, WalSegment, judge_descent, judge_number,
};
use crate::storage::{Bucket, Object, Shared};
use crate::store::StateFiles;

/// A prefix with more newer timelines than this is not looked through.
const MOST: usize = 64;
/// Of each timeline its history and some segments: they stand first.
const LISTED: usize = 4;
/// Objects of one page of a listing.
const PAGE: usize = 1000;
/// Timelines that are judged at once.
const AT_ONCE: usize = 8;
/// For one timeline, where the caller sets no limit.
const LIMIT: Duration = Duration::from_secs(30);

/// What a newer timeline is to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// Another node was promoted, and this server must not lead.
    Supersedes(Supersession),
    /// A person declared that it does not concern the cluster.
    Forgotten(ForgottenTimeline),
    /// Why it proves nothing. Somebody must look at it.
    Doubtful(String),
}

/// A timeline in the archive above the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerTimeline {
    pub timeline: Timeline,
    pub history: Option<TimelineHistory>,
    /// The archive holds a history of it that cannot be read.
    pub is_unread: bool,
    pub relation: Relation,
}

/// A peer that answers, and the timeline that its server runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOn {
    pub name: String,
    pub timeline: Timeline,
    pub history: Option<TimelineHistory>,
}

/// What ties a timeline to a system identifier: what its stored segments say of their cluster.
#[derive(Debug, Default)]
struct Tie {
    /// The segment that is of this cluster.
    ours: Option<String>,
    /// Why one is of another cluster.
    foreign: Option<String>,
    /// Why one could not be read.
    unread: Option<ArchiveError>,
}

impl Tie {
    /// What proves that a timeline whose history fits is this cluster's, where `peer` runs on it, too.
    ///
    /// # Errors
    /// Why nothing does. A foreign segment outranks a peer: the archive's history is then not the peer's.
    fn judge(self, peer: Option<&str>) -> Result<String, String> {
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

const UNTIED: &str = "no stored segment ties it to this cluster";

/// Looks at the timelines of one repository; keeps what it read of them.
pub struct Timelines {
    config: Config,
    repository: Repository,
    bucket: Bucket,
    files: TimelineFiles,
}

/// What a timeline begins with in `wal_005/`.
#[derive(Debug)]
struct Listed {
    timeline: Timeline,
    objects: Vec<Object>,
}

/// Sorts a listing by timelines.
#[derive(Debug)]
struct Listing {
    found: Vec<Listed>,
    most: usize,
    /// Of the page.
    seen: usize,
    is_broken_off: bool,
}

impl Listing {
    /// Breaks off where it has enough, or where a timeline that is longer than a page is better skipped.
    fn take(&mut self, timeline: Timeline, object: Object) -> ControlFlow<()> {
        self.seen += 1;
        let is_full = self.found.len() == self.most;
        let last = self.found.last_mut();
        match last.filter(|last| last.timeline == timeline) {
            Some(last) if last.objects.len() < LISTED => last.objects.push(object),
            Some(_) if !is_full && self.seen < PAGE => {}
            None if !is_full => self.found.push(Listed {
                timeline,
                objects: vec![object],
            }),
            _ => {
                self.is_broken_off = true;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Timelines {
    /// Nothing is sent before the first look.
    ///
    /// # Errors
    /// When the repository's name is not known here, or no client can be made.
    pub async fn open(config: &Config) -> Result<Self, ArchiveError> {
        let repository = super::repository(config)?;
        let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
        Ok(Self::of(config, repository, bucket))
    }

    pub(super) fn of(config: &Config, repository: Repository, bucket: Bucket) -> Self {
        Self {
            files: TimelineFiles::of(config, repository.clone(), bucket.clone()),
            config: config.clone(),
            repository,
            bucket,
        }
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Judges each timeline above that of `own`, in the order of their numbers.
    ///
    /// # Errors
    /// When the bucket cannot be read, or not what concerns one of them.
    pub async fn newer(&self, own: &ServerPosition) -> Result<Vec<NewerTimeline>, ArchiveError> {
        let mut newer = Vec::new();
        let each = |found| {
            newer.push(found);
            ControlFlow::Continue(())
        };
        let unread = self.look(own, &[], LIMIT, each).await?;
        if let Some((_, error)) = unread.into_iter().next() {
            return Err(error);
        }
        newer.sort_by_key(|newer| newer.timeline);
        Ok(newer)
    }

    /// Hands each timeline above that of `own` to `each` as soon as it is judged, until that breaks off. A peer of `peers` that
    /// runs on one ties it to the cluster. Returns those that could not be judged within `limit`.
    ///
    /// # Errors
    /// When the bucket cannot be listed, or it is not known what was forgotten.
    pub async fn look(
        &self,
        own: &ServerPosition,
        peers: &[PeerOn],
        limit: Duration,
        mut each: impl FnMut(NewerTimeline) -> ControlFlow<()>,
    ) -> Result<Vec<(Timeline, ArchiveError)>, ArchiveError> {
        let listed = self.list(own.timeline, MOST).await?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let forgotten = self.forgotten(own.system_identifier).await?;
        let judging: Vec<_> = listed
            .into_iter()
            .map(|listed| self.judge_within(limit, listed, own, peers, &forgotten))
            .collect();
        let mut judging = stream::iter(judging).buffer_unordered(AT_ONCE);
        let mut unread = Vec::new();
        while let Some((timeline, judged)) = judging.next().await {
            match judged {
                Ok(newer) => {
                    if each(newer).is_break() {
                        break;
                    }
                }
                Err(error) => unread.push((timeline, error)),
            }
        }
        Ok(unread)
    }

    /// The proof in the archive that supersedes a server at `own`; `None` where there is none.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn superseding(
        &self,
        own: &ServerPosition,
    ) -> Result<Option<Supersession>, ArchiveError> {
        let mut proof = None;
        let each = |newer: NewerTimeline| match newer.relation {
            Relation::Supersedes(found) => {
                proof = Some(found);
                ControlFlow::Break(())
            }
            Relation::Forgotten(_) | Relation::Doubtful(_) => ControlFlow::Continue(()),
        };
        let unread = self.look(own, &[], LIMIT, each).await?;
        match (proof, unread.into_iter().next()) {
            (None, Some((_, error))) => Err(error),
            (proof, _) => Ok(proof),
        }
    }

    /// Whether the archive holds anything of a timeline above `own`: one request in most cases.
    pub(super) async fn any_above(&self, own: Timeline) -> Result<bool, ArchiveError> {
        Ok(!self.list(own, 1).await?.is_empty())
    }

    /// The system identifiers of those who own the repository.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn owners(&self) -> Result<Vec<u64>, ArchiveError> {
        catalog::owners(&self.bucket, &self.repository).await
    }

    /// The history of `timeline`, where the archive holds anything of that; the inner one is `None` where it cannot be read.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn stored_history(
        &self,
        timeline: Timeline,
    ) -> Result<Option<Option<TimelineHistory>>, ArchiveError> {
        let Some(listed) = self.listed(timeline).await? else {
            return Ok(None);
        };
        match self.files.history(timeline, &listed.objects).await? {
            History::Read(history) => Ok(Some(Some(history))),
            History::Absent | History::Bad(_) => Ok(Some(None)),
            History::Unread(error) => Err(error),
        }
    }

    async fn listed(&self, timeline: Timeline) -> Result<Option<Listed>, ArchiveError> {
        let before = Timeline(timeline.0.saturating_sub(1));
        let listed = self.list(before, 1).await?.pop();
        Ok(listed.filter(|listed| listed.timeline == timeline))
    }

    /// At most `most` timelines above `above`.
    async fn list(&self, above: Timeline, most: usize) -> Result<Vec<Listed>, ArchiveError> {
        let prefix = self.repository.key("wal_005/");
        let mut listing = Listing {
            found: Vec::new(),
            most,
            seen: 0,
            is_broken_off: false,
        };
        let mut last = above;
        loop {
            // Sorts behind all that belongs to the timeline.
            let after = format!("{prefix}{:08X}~", last.0);
            (listing.seen, listing.is_broken_off) = (0, false);
            let each = |object: Object| {
                let name = object.key.strip_prefix(&prefix).and_then(archived_name);
                match name.and_then(|(name, _)| timeline_in(name)) {
                    Some(timeline) => listing.take(timeline, object),
                    None => ControlFlow::Continue(()),
                }
            };
            self.bucket.list_each(&prefix, Some(after), each).await?;
            let reached = listing.found.last().map_or(last, |found| found.timeline);
            if !listing.is_broken_off || listing.found.len() == most || reached <= last {
                return Ok(listing.found);
            }
            last = reached;
        }
    }

    async fn judge_within(
        &self,
        limit: Duration,
        listed: Listed,
        own: &ServerPosition,
        peers: &[PeerOn],
        forgotten: &ForgottenTimelines,
    ) -> (Timeline, Result<NewerTimeline, ArchiveError>) {
        let judged = timeout(limit, self.judge(&listed, own, peers, forgotten)).await;
        let late = Err(ArchiveError::NoAnswer { after: limit });
        (listed.timeline, judged.unwrap_or(late))
    }

    async fn judge(
        &self,
        listed: &Listed,
        own: &ServerPosition,
        peers: &[PeerOn],
        forgotten: &ForgottenTimelines,
    ) -> Result<NewerTimeline, ArchiveError> {
        let timeline = listed.timeline;
        let unread = match self.files.history(timeline, &listed.objects).await? {
            History::Absent => Ok(None),
            History::Read(history) => Ok(Some(history)),
            History::Bad(reason) => Err(reason),
            History::Unread(error) => Err(log::chain(&error)),
        };
        let history = match unread {
            Ok(history) => history,
            Err(reason) => {
                return Ok(NewerTimeline {
                    timeline,
                    history: None,
                    is_unread: true,
                    relation: Relation::Doubtful(format!("its history cannot be read: {reason}")),
                });
            }
        };
        let is_forgotten = forgotten.find(own.system_identifier, timeline, history.as_ref());
        let relation = match (is_forgotten, &history) {
            (Ok(Some(forgotten)), _) => Relation::Forgotten(forgotten.clone()),
            (Err(reason), _) => Relation::Doubtful(reason),
            (Ok(None), None) => match judge_number(timeline, own.timeline) {
                Err(reason) => Relation::Doubtful(reason),
                Ok(()) => Relation::Doubtful(self.without_history(listed, own).await?),
            },
            (Ok(None), Some(history)) => match judge_descent(timeline, history, own) {
                Err(reason) => Relation::Doubtful(reason),
                Ok(_) => self.tied(listed, history, own, peers).await?,
            },
        };
        Ok(NewerTimeline {
            timeline,
            history,
            is_unread: false,
            relation,
        })
    }

    async fn without_history(
        &self,
        listed: &Listed,
        own: &ServerPosition,
    ) -> Result<String, ArchiveError> {
        let tie = self.tie(listed, None, own.system_identifier).await?;
        let foreign = tie.foreign.filter(|_| tie.ours.is_none());
        Ok(foreign.unwrap_or_else(|| "the archive holds WAL and no history of it".to_owned()))
    }

    /// Of a timeline whose history fits.
    async fn tied(
        &self,
        listed: &Listed,
        history: &TimelineHistory,
        own: &ServerPosition,
        peers: &[PeerOn],
    ) -> Result<Relation, ArchiveError> {
        let identifier = own.system_identifier;
        let tie = self.tie(listed, Some(history), identifier).await?;
        let runs_on = |peer: &&PeerOn| {
            let same = peer.history.as_ref().is_none_or(|theirs| theirs == history);
            peer.timeline == listed.timeline && same
        };
        let peer = peers.iter().find(runs_on);
        let by_segment = tie.ours.is_some();
        Ok(match tie.judge(peer.map(|peer| peer.name.as_str())) {
            Err(reason) => Relation::Doubtful(reason),
            Ok(proof) => Relation::Supersedes(Supersession {
                system_identifier: identifier,
                timeline: listed.timeline,
                history: history.clone(),
                proven_by: match by_segment {
                    true => format!("{proof} in {}", self.repository),
                    false => proof,
                },
                at: Timestamp::now(),
            }),
        })
    }

    /// What the segments that are stored of a timeline say of their cluster: one of ours is enough.
    async fn tie(
        &self,
        listed: &Listed,
        history: Option<&TimelineHistory>,
        identifier: u64,
    ) -> Result<Tie, ArchiveError> {
        let mut candidates = Vec::new();
        if let Some(switch) = history.and_then(TimelineHistory::parent) {
            let size = self.files.size;
            let segment = |timeline| WalSegment::holding(timeline, switch.at, size);
            let first = segment(listed.timeline).name(size);
            // A promoted server stores the segment that it left under its old name.
            let left = format!("{}.partial", segment(switch.timeline).name(size));
            for name in [first, left] {
                candidates.extend(stored_as(&self.bucket, &self.repository, &name).await?);
            }
        }
        candidates.extend(listed.objects.iter().cloned());
        self.tie_by(&candidates, identifier).await
    }

    async fn tie_by(&self, candidates: &[Object], identifier: u64) -> Result<Tie, ArchiveError> {
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
    pub(super) async fn holds_own_wal(
        &self,
        timeline: Timeline,
        history: &TimelineHistory,
        identifier: u64,
    ) -> Result<bool, ArchiveError> {
        let mut candidates = Vec::new();
        for name in around_switch(timeline, history, self.files.size) {
            candidates.extend(stored_as(&self.bucket, &self.repository, &name).await?);
        }
        Ok(self.tie_by(&candidates, identifier).await?.ours.is_some())
    }

    /// What persons said of timelines: on this node, and by the bucket on another.
    ///
    /// # Errors
    /// When the bucket cannot be read: then it is not known what was forgotten.
    pub async fn forgotten(
        &self,
        system_identifier: u64,
    ) -> Result<ForgottenTimelines, ArchiveError> {
        let shared = Shared::open(&self.config).await?;
        let mut forgotten = shared.forgotten_timelines(system_identifier).await?;
        forgotten.add(self.forgotten_here());
        Ok(forgotten)
    }

    fn forgotten_here(&self) -> Vec<ForgottenTimeline> {
        StateFiles::of(&self.config.node.state_directory).forgotten()
    }

    /// Whether a person said of `proof` that it is none. Where the bucket does not answer within `limit`, what this node
    /// remembers stands.
    pub(super) async fn is_forgotten(&self, proof: &Supersession, limit: Duration) -> bool {
        if self.forgotten_here().iter().any(|one| one.voids(proof)) {
            return true;
        }
        let asked = timeout(limit, self.forgotten(proof.system_identifier)).await;
        matches!(asked, Ok(Ok(list)) if list.known.iter().any(|one| one.voids(proof)))
    }

    /// Why `timeline` is not handed to the server at `own`, which asks for its history; `None` when it may have it.
    ///
    /// Whether it follows it is PostgreSQL's to judge: an old primary must stop at the history that left it behind.
    ///
    /// # Errors
    /// When that cannot be decided. It then counts as neither absent nor this cluster's: a recovery would end early.
    pub(super) async fn why_not_handed_over(
        &self,
        timeline: Timeline,
        own: &ServerPosition,
        may_be_untied: bool,
    ) -> Result<Option<String>, ArchiveError> {
        let Some(listed) = self.listed(timeline).await? else {
            return Ok(None);
        };
        let unproven = |reason| ArchiveError::Unproven {
            name: timeline.history_file(),
            reason,
        };
        let history = match self.files.history(timeline, &listed.objects).await? {
            History::Absent => return Ok(None),
            History::Read(history) => history,
            History::Unread(error) => return Err(error),
            History::Bad(reason) => {
                let reason = format!("it cannot be read: {reason}");
                return match may_be_untied {
                    true => Ok(Some(reason)),
                    false => Err(unproven(reason)),
                };
            }
        };
        let identifier = own.system_identifier;
        let far = ServerPosition {
            lsn: Lsn(u64::MAX),
            ..own.clone()
        };
        if let Err(reason) = judge_descent(timeline, &history, &far) {
            return Ok(Some(reason));
        }
        let forgotten = self.forgotten(identifier).await?;
        let found = forgotten.find(identifier, timeline, Some(&history));
        if let Some(forgotten) = found.map_err(unproven)? {
            return Ok(Some(format!("{} had it forgotten", forgotten.by)));
        }
        let tie = self.tie(&listed, Some(&history), identifier).await?;
        match tie {
            Tie { ours: Some(_), .. } => Ok(None),
            Tie {
                foreign: Some(reason),
                unread,
                ..
            } if may_be_untied || unread.is_none() => Ok(Some(reason)),
            _ if may_be_untied => Ok(None),
            Tie {
                unread: Some(error),
                ..
            } => Err(error),
            _ => Err(unproven(UNTIED.to_owned())),
        }
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

/// The timeline that begins the name of a WAL file.
pub(super) fn timeline_in(name: &str) -> Option<Timeline> {
    let digits = name.get(..8)?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_ours_proves_and_a_foreign_one_outranks_a_peer() {
        let unread = || ArchiveError::Usage("it cannot be fetched".to_owned());
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
                Err("it cannot be fetched"),
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
    fn a_listing_takes_the_first_objects_of_each_timeline() {
        let listing = |most, counts: &[(u32, usize)]| {
            let mut listing = Listing {
                found: Vec::new(),
                most,
                seen: 0,
                is_broken_off: false,
            };
            'all: for (timeline, count) in counts {
                for number in 0..*count {
                    let object = Object {
                        key: format!("{timeline:08X}{number:016X}"),
                        size: 1,
                        last_modified: Timestamp::UNIX_EPOCH,
                        tag: String::new(),
                    };
                    if listing.take(Timeline(*timeline), object).is_break() {
                        break 'all;
                    }
                }
            }
            let found = listing.found.iter();
            let found: Vec<_> = found.map(|it| (it.timeline.0, it.objects.len())).collect();
            (found, listing.is_broken_off)
        };
        let few = listing(MOST, &[(2, 1), (3, 9), (4, 2)]);
        assert_eq!(few, (vec![(2, 1), (3, 4), (4, 2)], false));
        assert_eq!(listing(1, &[(2, 1), (3, 1)]), (vec![(2, 1)], true));
        assert_eq!(listing(1, &[(2, 9)]), (vec![(2, 4)], true));
        // Skipped, not read to its end.
        let long = listing(MOST, &[(2, 5000), (3, 1)]);
        assert_eq!(long, (vec![(2, 4)], true));
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
