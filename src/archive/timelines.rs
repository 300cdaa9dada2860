//! The timelines in the archive that are newer than a server's own, and what each of them is to it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::catalog::{archived_name, parse_stored_history, stored_header};
use super::wal_client::stored_as;
use super::wal_header::{self, Header};
use super::{ArchiveError, Repository, environment};
use crate::config::Config;
use crate::log;
use crate::model::{
    ArchiveFile, ForgottenTimeline, Lsn, SegmentSize, ServerPosition, Supersession, Timeline,
    TimelineHistory, WalSegment, judge_descent, judge_number,
};
use crate::postgres;
use crate::process;
use crate::storage::{Bucket, Object, Shared};
use crate::store::StateFiles;

/// A prefix with more newer timelines than this is not looked through.
const MOST: usize = 64;
/// Of each timeline its history and some segments: they stand first.
const LISTED: usize = 4;
/// For one fetch by the WAL-G program of a segment that xdb cannot read.
const FETCH: Duration = Duration::from_secs(20);

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
    pub relation: Relation,
}

/// What ties a timeline to a system identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tie {
    /// Named by the object.
    Ours(String),
    Foreign(String),
    /// No segment of it is stored, or none can be read.
    Nothing,
}

/// Looks at the timelines of one repository; keeps what it read of segments.
pub struct Timelines {
    config: Config,
    repository: Repository,
    bucket: Bucket,
    size: SegmentSize,
    /// By key: the version that was read, and its header.
    headers: Mutex<HashMap<String, (String, Option<Header>)>>,
}

/// What a timeline begins with in `wal_005/`.
struct Listed {
    timeline: Timeline,
    objects: Vec<Object>,
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
            size: postgres::segment_size_in(&config.postgres.data_directory),
            config: config.clone(),
            repository,
            bucket,
            headers: Mutex::default(),
        }
    }

    /// Judges each timeline above that of `own`; a peer of `peers` that runs on one ties it to the cluster.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn newer(
        &self,
        own: &ServerPosition,
        peers: &[(String, Timeline)],
    ) -> Result<Vec<NewerTimeline>, ArchiveError> {
        let mut newer = Vec::new();
        for listed in self.list_above(own.timeline).await? {
            newer.push(self.judge(&listed, own, peers).await?);
        }
        Ok(newer)
    }

    /// The proof in the archive that supersedes a server at `own`; `None` where there is none.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn superseding(
        &self,
        own: &ServerPosition,
    ) -> Result<Option<Supersession>, ArchiveError> {
        let newer = self.newer(own, &[]).await?;
        Ok(newer.into_iter().find_map(|newer| match newer.relation {
            Relation::Supersedes(proof) => Some(proof),
            Relation::Forgotten(_) | Relation::Doubtful(_) => None,
        }))
    }

    /// Whether the archive holds anything of a timeline above `own`: one request in most cases.
    pub(super) async fn any_above(&self, own: Timeline) -> Result<bool, ArchiveError> {
        Ok(self.next_above(own).await?.is_some())
    }

    async fn list_above(&self, own: Timeline) -> Result<Vec<Listed>, ArchiveError> {
        let mut found = Vec::new();
        let mut last = own;
        while let Some(listed) = self.next_above(last).await? {
            last = listed.timeline;
            found.push(listed);
            if found.len() == MOST {
                break;
            }
        }
        Ok(found)
    }

    async fn next_above(&self, timeline: Timeline) -> Result<Option<Listed>, ArchiveError> {
        let prefix = self.repository.key("wal_005/");
        // Sorts behind all that belongs to the timeline.
        let after = format!("{prefix}{:08X}~", timeline.0);
        let mut found: Option<Listed> = None;
        let each = |object: Object| {
            let name = object.key.strip_prefix(&prefix).and_then(archived_name);
            let Some(of) = name.and_then(|(name, _)| timeline_in(name)) else {
                return ControlFlow::Continue(());
            };
            let listed = found.get_or_insert(Listed {
                timeline: of,
                objects: Vec::new(),
            });
            if listed.timeline != of || listed.objects.len() == LISTED {
                return ControlFlow::Break(());
            }
            listed.objects.push(object);
            ControlFlow::Continue(())
        };
        self.bucket.list_each(&prefix, Some(after), each).await?;
        Ok(found)
    }

    async fn judge(
        &self,
        listed: &Listed,
        own: &ServerPosition,
        peers: &[(String, Timeline)],
    ) -> Result<NewerTimeline, ArchiveError> {
        let timeline = listed.timeline;
        let history = match self.history(listed).await? {
            Ok(history) => history,
            Err(reason) => {
                let relation = Relation::Doubtful(format!("its history cannot be read: {reason}"));
                return Ok(NewerTimeline {
                    timeline,
                    history: None,
                    relation,
                });
            }
        };
        let forgotten = self
            .forgotten(own.system_identifier, timeline, history.as_ref())
            .await;
        let relation = match (forgotten, &history) {
            (Some(forgotten), _) => Relation::Forgotten(forgotten),
            (None, None) => match judge_number(timeline, own.timeline) {
                Err(reason) => Relation::Doubtful(reason),
                Ok(()) => Relation::Doubtful(self.without_history(listed, own).await?),
            },
            (None, Some(history)) => match judge_descent(timeline, history, own) {
                Err(reason) => Relation::Doubtful(reason),
                Ok(_) => self.tied(listed, history, own, peers).await?,
            },
        };
        Ok(NewerTimeline {
            timeline,
            history,
            relation,
        })
    }

    async fn without_history(
        &self,
        listed: &Listed,
        own: &ServerPosition,
    ) -> Result<String, ArchiveError> {
        let tie = self.tie(listed, None, own.system_identifier).await?;
        Ok(match tie {
            Tie::Foreign(reason) => reason,
            Tie::Ours(_) | Tie::Nothing => "the archive holds WAL and no history of it".to_owned(),
        })
    }

    /// Of a timeline whose history fits.
    async fn tied(
        &self,
        listed: &Listed,
        history: &TimelineHistory,
        own: &ServerPosition,
        peers: &[(String, Timeline)],
    ) -> Result<Relation, ArchiveError> {
        let identifier = own.system_identifier;
        let tie = self.tie(listed, Some(history), identifier).await?;
        let peer = peers.iter().find(|(_, on)| *on == listed.timeline);
        let proven_by = match (tie, peer) {
            (Tie::Ours(object), _) => format!("{object} in {}", self.repository),
            (_, Some((name, _))) => format!("{name} runs on it"),
            (Tie::Foreign(reason), None) => return Ok(Relation::Doubtful(reason)),
            (Tie::Nothing, None) => {
                return Ok(Relation::Doubtful(
                    "no stored segment ties it to this cluster".to_owned(),
                ));
            }
        };
        Ok(Relation::Supersedes(Supersession {
            system_identifier: identifier,
            timeline: listed.timeline,
            history: history.clone(),
            proven_by,
            at: Timestamp::now(),
        }))
    }

    /// `Ok(None)` where none is stored; the inner error says why it cannot be read.
    async fn history(
        &self,
        listed: &Listed,
    ) -> Result<Result<Option<TimelineHistory>, String>, ArchiveError> {
        let name = listed.timeline.history_file();
        let is_history =
            |object: &&Object| key_name(&object.key).is_some_and(|(found, _)| found == name);
        let Some(object) = listed.objects.iter().find(is_history) else {
            return Ok(Ok(None));
        };
        let stored = self.bucket.get(&object.key).await?;
        let read = parse_stored_history(&object.key, &stored);
        let program_reads = environment::encrypts(&self.config)
            || [".lzma", ".br"]
                .iter()
                .any(|suffix| object.key.ends_with(suffix));
        if read.is_err()
            && program_reads
            && let Some(fetched) = self.fetch_by_program(&name).await
        {
            return Ok(parse_stored_history(&name, &fetched).map(Some));
        }
        Ok(read.map(Some))
    }

    /// What the segments that are stored of a timeline say of their cluster: one of ours is enough.
    async fn tie(
        &self,
        listed: &Listed,
        history: Option<&TimelineHistory>,
        identifier: u64,
    ) -> Result<Tie, ArchiveError> {
        let mut tie = Tie::Nothing;
        let mut candidates = Vec::new();
        if let Some(switch) = history.and_then(TimelineHistory::parent) {
            let segment = |timeline| WalSegment::holding(timeline, switch.at, self.size);
            let first = segment(listed.timeline).name(self.size);
            // A promoted server stores the segment that it left under its old name.
            let left = format!("{}.partial", segment(switch.timeline).name(self.size));
            for name in [first, left] {
                candidates.extend(stored_as(&self.bucket, &self.repository, &name).await?);
            }
        }
        candidates.extend(listed.objects.iter().cloned());
        for object in candidates {
            let Some((name, ArchiveFile::Segment | ArchiveFile::Partial)) = key_name(&object.key)
            else {
                continue;
            };
            match self.header(&object, name).await? {
                Some(header) if header.system_identifier == identifier => {
                    return Ok(Tie::Ours(name.to_owned()));
                }
                Some(header) => {
                    tie = Tie::Foreign(format!(
                        "{name} is of another cluster: its system identifier is {}, this server's {identifier}",
                        header.system_identifier
                    ));
                }
                None => {}
            }
        }
        Ok(tie)
    }

    /// `None` where the content is no segment of this name, or cannot be read.
    async fn header(&self, object: &Object, name: &str) -> Result<Option<Header>, ArchiveError> {
        let version = format!("{} {} {}", object.tag, object.size, object.last_modified);
        let known = self.headers().get(&object.key).cloned();
        if let Some((_, header)) = known.filter(|(read, _)| *read == version) {
            return Ok(header);
        }
        let encrypted = environment::encrypts(&self.config);
        let read = match stored_header(&self.bucket, object).await? {
            Ok(header) if !encrypted => Some(header),
            _ => {
                let fetched = self.fetch_by_program(name).await;
                fetched.and_then(|content| wal_header::parse(&content))
            }
        };
        let named = |header: &Header| {
            let segment = WalSegment::parse(&name[..24], self.size);
            segment.is_ok_and(|segment| segment.start(self.size) == header.address)
        };
        let header = read.filter(named);
        self.headers().insert(object.key.clone(), (version, header));
        Ok(header)
    }

    /// Has the WAL-G program fetch what is encrypted, or compressed in a way that xdb does not read.
    async fn fetch_by_program(&self, name: &str) -> Option<Vec<u8>> {
        let directory = scratch_directory().ok()?;
        let file = directory.join(name);
        let data = &self.config.postgres.data_directory;
        let fetched = async {
            let (_, mut command) = environment::command(&self.config, &self.repository, data)?;
            command.arg("wal-fetch").arg(name).arg(&file);
            Ok::<_, ArchiveError>(process::run(command, FETCH).await?)
        };
        let fetched = fetched.await.inspect_err(|error| {
            tracing::warn!("{name} cannot be read: {}", log::chain(error));
        });
        let content = fetched.ok().and_then(|_| std::fs::read(&file).ok());
        let _ = std::fs::remove_dir_all(&directory);
        content
    }

    fn headers(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, Option<Header>)>> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person said of `timeline`: on this node, or, where the bucket answers, on another.
    pub async fn forgotten(
        &self,
        system_identifier: u64,
        timeline: Timeline,
        history: Option<&TimelineHistory>,
    ) -> Option<ForgottenTimeline> {
        let covers = |one: &ForgottenTimeline| one.covers(system_identifier, timeline, history);
        let here = StateFiles::of(&self.config.node.state_directory).forgotten();
        if let Some(known) = here.into_iter().find(covers) {
            return Some(known);
        }
        let shared = Shared::open(&self.config).await.ok()?;
        let shared = shared.forgotten_timelines(system_identifier).await;
        let shared = shared.inspect_err(|error| {
            tracing::warn!("forgotten timelines cannot be read: {}", log::chain(error));
        });
        shared.ok()?.into_iter().find(covers)
    }

    /// Why `timeline` is not handed to the server at `own`, which asks for its history; `None` when it may have it.
    ///
    /// Whether it follows it is PostgreSQL's to judge: an old primary must stop at the history that left it behind.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(super) async fn why_not_handed_over(
        &self,
        timeline: Timeline,
        own: &ServerPosition,
        may_be_untied: bool,
    ) -> Result<Option<String>, ArchiveError> {
        let before = Timeline(timeline.0.saturating_sub(1));
        let listed = self.next_above(before).await?;
        let Some(listed) = listed.filter(|listed| listed.timeline == timeline) else {
            return Ok(None);
        };
        let history = match self.history(&listed).await? {
            Ok(Some(history)) => history,
            Ok(None) => return Ok(None),
            Err(reason) => return Ok(Some(format!("it cannot be read: {reason}"))),
        };
        let identifier = own.system_identifier;
        let forgotten = self.forgotten(identifier, timeline, Some(&history)).await;
        if let Some(forgotten) = forgotten {
            return Ok(Some(format!("{} had it forgotten", forgotten.by)));
        }
        let far = ServerPosition {
            lsn: Lsn(u64::MAX),
            ..own.clone()
        };
        if let Err(reason) = judge_descent(timeline, &history, &far) {
            return Ok(Some(reason));
        }
        Ok(match self.tie(&listed, Some(&history), identifier).await? {
            Tie::Ours(_) => None,
            Tie::Foreign(reason) => Some(reason),
            Tie::Nothing if may_be_untied => None,
            Tie::Nothing => Some("no stored segment ties it to this cluster".to_owned()),
        })
    }
}

/// # Errors
/// When no private directory can be made.
fn scratch_directory() -> std::io::Result<PathBuf> {
    let name = format!(
        "xdb-header-{}-{}",
        std::process::id(),
        Timestamp::now().as_nanosecond()
    );
    let directory = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

fn key_name(key: &str) -> Option<(&str, ArchiveFile)> {
    archived_name(key.rsplit('/').next()?)
}

/// The timeline that begins the name of a WAL file.
pub(super) fn timeline_in(name: &str) -> Option<Timeline> {
    let digits = name.get(..8)?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}
