//! The timelines in the archive that are newer than a server's own, and what each of them is to it.

mod files;
mod handover;
mod listing;
mod tie;

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{Repository, RepositoryError, catalog};
use crate::log;
use crate::model::{
    ForgottenTimeline, ForgottenTimelines, ServerPosition, Supersession, Timeline, TimelineHistory,
    judge_descent, judge_number,
};
use crate::process;
use crate::store::StateFiles;
use files::{History, TimelineFiles};
use listing::ListedTimeline;
pub(crate) use listing::timeline_in;

/// A prefix with more newer timelines than this is not looked through.
const MOST: usize = 64;
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

/// Looks at the timelines of one repository; keeps what it read of them.
pub struct Timelines {
    repository: Repository,
    state: StateFiles,
    files: TimelineFiles,
}

impl Timelines {
    /// Nothing is sent before the first look. `state` holds what persons declared forgotten on this node.
    pub fn of(repository: &Repository, state: StateFiles) -> Self {
        Self {
            files: TimelineFiles::of(repository),
            repository: repository.clone(),
            state,
        }
    }

    /// What is looked at.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Judges each timeline above that of `own`, in the order of their numbers.
    ///
    /// # Errors
    /// When the bucket cannot be read, or not what concerns one of them.
    pub async fn newer(&self, own: &ServerPosition) -> Result<Vec<NewerTimeline>, RepositoryError> {
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
    ) -> Result<Vec<(Timeline, RepositoryError)>, RepositoryError> {
        let listed = self.list(own.timeline, MOST).await?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let forgotten = self.forgotten(own.system_identifier).await?;
        let judging: Vec<_> = listed
            .into_iter()
            .map(|listed| self.check_within(limit, listed, own, peers, &forgotten))
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
    pub async fn superseding(
        &self,
        own: &ServerPosition,
    ) -> Result<Option<Supersession>, RepositoryError> {
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
    pub async fn any_above(&self, own: Timeline) -> Result<bool, RepositoryError> {
        Ok(!self.list(own, 1).await?.is_empty())
    }

    /// The system identifiers of those who own the repository.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn owners(&self) -> Result<Vec<u64>, RepositoryError> {
        catalog::owners(&self.repository).await
    }

    /// The history of `timeline`, where the archive holds anything of that; the inner one is `None` where it cannot be read.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn stored_history(
        &self,
        timeline: Timeline,
    ) -> Result<Option<Option<TimelineHistory>>, RepositoryError> {
        let Some(listed) = self.listed(timeline).await? else {
            return Ok(None);
        };
        match self.files.history(timeline, &listed.objects).await? {
            History::Read(history) => Ok(Some(Some(history))),
            History::Absent | History::Bad(_) => Ok(Some(None)),
            History::Unread(error) => Err(error),
        }
    }

    async fn check_within(
        &self,
        limit: Duration,
        listed: ListedTimeline,
        own: &ServerPosition,
        peers: &[PeerOn],
        forgotten: &ForgottenTimelines,
    ) -> (Timeline, Result<NewerTimeline, RepositoryError>) {
        let judged = timeout(limit, self.judge(&listed, own, peers, forgotten)).await;
        let late = Err(RepositoryError::NoAnswer { after: limit });
        (listed.timeline, judged.unwrap_or(late))
    }

    async fn judge(
        &self,
        listed: &ListedTimeline,
        own: &ServerPosition,
        peers: &[PeerOn],
        forgotten: &ForgottenTimelines,
    ) -> Result<NewerTimeline, RepositoryError> {
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
        listed: &ListedTimeline,
        own: &ServerPosition,
    ) -> Result<String, RepositoryError> {
        let tie = self.tie(listed, None, own.system_identifier).await?;
        let foreign = tie.foreign.filter(|_| tie.ours.is_none());
        Ok(foreign.unwrap_or_else(|| "the archive holds WAL and no history of it".to_owned()))
    }

    /// Of a timeline whose history fits.
    async fn tied(
        &self,
        listed: &ListedTimeline,
        history: &TimelineHistory,
        own: &ServerPosition,
        peers: &[PeerOn],
    ) -> Result<Relation, RepositoryError> {
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
                    true => format!("{proof} in {}", self.repository.location),
                    false => proof,
                },
                at: Timestamp::now(),
            }),
        })
    }

    /// What persons said of timelines: on this node, and by the bucket on another.
    ///
    /// # Errors
    /// When the bucket cannot be read: then it is not known what was forgotten.
    pub async fn forgotten(
        &self,
        system_identifier: u64,
    ) -> Result<ForgottenTimelines, RepositoryError> {
        let shared = &self.repository.shared;
        let mut forgotten = shared.forgotten_timelines(system_identifier).await?;
        forgotten.add(self.forgotten_here().await);
        Ok(forgotten)
    }

    /// A volume that hangs holds up the caller alone.
    async fn forgotten_here(&self) -> Vec<ForgottenTimeline> {
        let files = self.state.clone();
        process::on_a_thread(move || files.forgotten()).await
    }
}
