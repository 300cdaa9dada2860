//! Measures the live RPO on the node that leads: the oldest commit that the bucket does not hold, each second.
//!
//! The archive's end comes from the look at the buckets, and in between from a short listing of what follows it. The commits
//! behind it are read from the server's own WAL, so the answer is right from the first second: after a restart of this
//! daemon, of PostgreSQL, and after a failover. WAL without a commit (checkpoints, snapshots of an idle server) counts nothing.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::every;
use super::unarchived::{
    OwnEnd, is_ahead, is_same_wal, listed_end, loss, newer_end, resume_at, waited,
};
use super::wal_pace::Pace;
use crate::cluster::{ArchiveEnd, Evidence, Knowledge, Loss, Objectives, Rpo, ServerSample, View};
use crate::config::{self, Config};
use crate::log;
use crate::model::{Lsn, SegmentSize, Timeline, WalSegment};
use crate::postgres::{self, Commit, PostgresError, Target, WalReader, WalStretch};
use crate::repository::{self, RepositoryHandle};
use crate::runner::Node;

/// For one question to the server, and for one listing.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two listings while the next segment has left the server's queue.
const LISTED_SOON: Duration = Duration::from_secs(2);
/// Likewise while it waits there.
const LISTED_SELDOM: Duration = Duration::from_secs(15);

/// What is wanted of RPO and RTO.
pub(super) fn objectives(
    archive: &config::Archive,
    restore_test: &config::RestoreTest,
) -> Objectives {
    Objectives {
        rpo_warning: Some(archive.rpo_objective),
        rpo_critical: Some(archive.rpo_critical),
        rto: restore_test.rto_objective,
    }
}

/// Measures while this node leads, and ends a segment early where a commit would wait in it for too long.
pub(super) async fn keep(node: &Node, known: &watch::Sender<Knowledge>) {
    let (config, repository) = (&node.tools.loaded.config, &node.tools.repository);
    let mut tracker = Tracker::new(config, repository);
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        let view = node.view.borrow().clone();
        if !view.led_last() {
            tracker = Tracker::new(config, repository);
            known.send_if_modified(|known| known.rpo.take().is_some());
            continue;
        }
        let Some(sample) = view.sample.filter(|_| view.leads(Timestamp::now())) else {
            continue;
        };
        if !tracker.is_of(sample) {
            tracker = Tracker::new(config, repository);
        }
        let knowledge = known.borrow().clone();
        let rpo = tracker.measure(sample, &knowledge).await;
        known.send_modify(|known| known.rpo = Some(rpo.clone()));
        // Only then, for both may take some seconds: a known loss grows older meanwhile.
        tracker.list().await;
        tracker.switch_wal(sample, &rpo, &knowledge).await;
    }
}

/// The same once, for a command line without a daemon; `None` on a node that does not lead.
pub(super) async fn measure_once(
    config: &Config,
    repository: &RepositoryHandle,
    view: &View,
    known: &Knowledge,
) -> Option<Rpo> {
    let sample = view.sample.filter(|_| view.leads(Timestamp::now()))?;
    let mut tracker = Tracker::new(config, repository);
    tracker.measure(sample, known).await;
    tracker.list().await;
    Some(tracker.measure(sample, known).await)
}

struct Tracker<'a> {
    config: &'a Config,
    repository: &'a RepositoryHandle,
    /// The system identifier and the timeline that all of this is about; `None` before the first sample.
    of: Option<(u64, Timeline)>,
    /// Of the server whose system identifier stands beside it.
    segment_size: Option<(u64, SegmentSize)>,
    /// The archive's end by a listing of this node's own.
    end: Option<OwnEnd>,
    /// Whole segments behind the archive's end, as far as that is known.
    next: Option<(WalStretch, SegmentSize)>,
    listed: Option<Instant>,
    /// The first commit behind the archive's end that was found.
    first: Option<Commit>,
    /// No commit lies between the archive's end and this.
    read_to: Option<Lsn>,
    /// The archive's end that both are about.
    read_behind: Option<Lsn>,
    pace: Pace,
    switched: Option<Instant>,
}

impl<'a> Tracker<'a> {
    fn new(config: &'a Config, repository: &'a RepositoryHandle) -> Self {
        Self {
            config,
            repository,
            of: None,
            segment_size: None,
            end: None,
            next: None,
            listed: None,
            first: None,
            read_to: None,
            read_behind: None,
            pace: Pace::default(),
            switched: None,
        }
    }

    fn is_of(&self, sample: ServerSample) -> bool {
        let read_to = self.read_to.max(self.first.map(|first| first.end));
        self.of.is_none_or(|of| is_same_wal(of, read_to, sample))
    }

    async fn measure(&mut self, sample: ServerSample, known: &Knowledge) -> Rpo {
        self.of = Some((sample.system_identifier, sample.timeline));
        let evidence = known.evidence.as_ref();
        let (archived, loss) = match self.archive_end(sample, evidence).await {
            Err(reason) => (None, Loss::Unknown { reason }),
            Ok((end, size, stretches)) => {
                let first = self.first_commit(end, size, &stretches).await;
                (Some(end), loss(first, end, sample, known))
            }
        };
        Rpo {
            at: sample.at,
            archived,
            loss,
        }
    }

    /// Where the archive ends, and the server's WAL behind that.
    async fn archive_end(
        &mut self,
        sample: ServerSample,
        evidence: Option<&Evidence>,
    ) -> Result<(ArchiveEnd, SegmentSize, Vec<WalStretch>), String> {
        let listed = listed_end(evidence)?;
        let position = sample
            .position
            .ok_or("the server does not tell its position")?;
        let size = self.segment_size(sample).await?;
        let data = &self.config.postgres.data_directory;
        let history = postgres::local_history(data, sample.timeline);
        let read_at = evidence.and_then(|evidence| evidence.base_backup_read_at);
        let end = newer_end(listed, read_at, self.end);
        let (from, to) = ((end.timeline, end.lsn), (sample.timeline, position));
        let stretches = postgres::stretches(&history, from, to, size);
        if stretches.is_empty() && end.timeline != sample.timeline {
            return Err(format!(
                "the archive ends on timeline {}, and this server's timeline {} does not follow from there",
                end.timeline, sample.timeline
            ));
        }
        let whole = |next: &&WalStretch| next.to.0 - next.from.0 >= size.bytes();
        let seen_at = self.end.filter(|own| own.end == end).map(|own| own.seen_at);
        let seen_at = seen_at.or(evidence.map(|evidence| evidence.at));
        if is_ahead(end, seen_at, sample) {
            return Err(format!(
                "the archive ends at {}, and this server has written only to {position}: the archive holds the WAL of another server",
                end.lsn
            ));
        }
        self.next = stretches.first().filter(whole).map(|next| (*next, size));
        Ok((end, size, stretches))
    }

    /// Lists whether the bucket holds the segments behind the archive's end by now, unless it is too soon to ask again.
    async fn list(&mut self) {
        let Some((next, size)) = self.next else {
            return;
        };
        let first = WalSegment::holding(next.timeline, next.from, size);
        let ready = format!("pg_wal/archive_status/{}.ready", first.name(size));
        let waits = self.config.postgres.data_directory.join(ready).exists();
        let pause = if waits { LISTED_SELDOM } else { LISTED_SOON };
        if self.listed.is_some_and(|listed| listed.elapsed() < pause) {
            return;
        }
        let begun = Timestamp::now();
        let most = (next.to.0 - next.from.0) / size.bytes();
        let listing = async {
            let repository = self.repository.get().await?;
            repository::last_in_a_row(&repository, first, most, size).await
        };
        let found = match timeout(LIMIT, listing).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!("the archive's end cannot be listed: {}", log::chain(&error));
                None
            }
            Err(_) => None,
        };
        self.listed = Some(Instant::now());
        if let Some((last, archived_at)) = found {
            let end = ArchiveEnd {
                timeline: last.timeline,
                lsn: last.end(size),
                archived_at,
            };
            self.end = Some(OwnEnd {
                begun_at: begun,
                seen_at: Timestamp::now(),
                end,
            });
        }
    }

    async fn segment_size(&mut self, sample: ServerSample) -> Result<SegmentSize, String> {
        if let Some((of, size)) = self.segment_size
            && of == sample.system_identifier
        {
            return Ok(size);
        }
        let asked = async {
            let connection = postgres::connect(&Target::from(&self.config.postgres), LIMIT).await?;
            postgres::server(&connection).await
        };
        let asked = timeout(LIMIT, asked).await;
        let server = asked
            .map_err(|_| "the server does not answer".to_owned())?
            .map_err(|error: PostgresError| log::chain(&error))?;
        self.segment_size = Some((server.system_identifier, server.segment_size));
        Ok(server.segment_size)
    }

    /// The first commit of `stretches`, the WAL behind `end`; what was read before is not read again.
    async fn first_commit(
        &mut self,
        end: ArchiveEnd,
        size: SegmentSize,
        stretches: &[WalStretch],
    ) -> Result<Option<Commit>, String> {
        // A gap opened: the WAL between it and what was read may hold older commits.
        if self.read_behind.is_some_and(|before| end.lsn < before) {
            (self.first, self.read_to) = (None, None);
        }
        self.read_behind = Some(end.lsn);
        if let Some(first) = self.first.filter(|first| first.end > end.lsn) {
            return Ok(Some(first));
        }
        self.first = None;
        let reader = WalReader {
            bin_directory: self.config.postgres.bin_directory.clone(),
            data_directory: self.config.postgres.data_directory.clone(),
            segment_size: size,
        };
        let resume = self.read_to.map(|read| resume_at(read, size));
        let unread = stretches.iter().copied().filter_map(|mut stretch| {
            stretch.from = resume.map_or(stretch.from, |resume| stretch.from.max(resume));
            (stretch.from < stretch.to && self.read_to < Some(stretch.to)).then_some(stretch)
        });
        let unread: Vec<WalStretch> = unread.collect();
        for mut stretch in unread {
            let to = stretch.to;
            while stretch.from < to {
                let begun = Instant::now();
                self.pace.may_read(begun)?;
                let at_once = self.pace.at_once();
                stretch.to = to.min(Lsn(stretch.from.0.saturating_add(at_once)));
                let found = reader.first_commit(stretch).await;
                let found = self.pace.ran(found, begun.elapsed(), Instant::now())?;
                if let Some(found) = found.filter(|found| found.end > end.lsn) {
                    self.first = Some(found);
                    return Ok(Some(found));
                }
                self.read_to = self.read_to.max(Some(stretch.to));
                stretch.from = stretch.to;
            }
        }
        Ok(None)
    }

    /// Ends the segment in which a commit waits, where that would miss the objective.
    async fn switch_wal(&mut self, sample: ServerSample, rpo: &Rpo, known: &Knowledge) {
        let settings = &self.config.archive;
        let (Some((_, size)), Some(end)) = (self.segment_size, rpo.archived) else {
            return;
        };
        let waits_alone = sample.timeline == end.timeline
            && sample
                .position
                .is_some_and(|at| at.0 < end.lsn.0 + size.bytes());
        let answers = known
            .evidence
            .as_ref()
            .is_some_and(|evidence| evidence.base_backup_error.is_none());
        let half = settings.rpo_objective / 2;
        let rested = self.switched.is_none_or(|at| at.elapsed() >= half);
        if !(settings.switch_wal && rested && waits_alone && answers && waited(rpo, half)) {
            return;
        }
        self.switched = Some(Instant::now());
        let asked = timeout(LIMIT, self.ask_for_switch()).await;
        let asked = asked.unwrap_or_else(|_| Err("no answer".to_owned()));
        match asked {
            Ok(true) => tracing::info!(
                "pg_switch_wal() was called: a commit has waited for {} s to be archived",
                half.as_secs()
            ),
            Ok(false) => {}
            Err(reason) => tracing::warn!("pg_switch_wal() cannot be called: {reason}"),
        }
    }

    /// `false` where the archiver fails: another segment would only fill the volume.
    async fn ask_for_switch(&self) -> Result<bool, String> {
        let words = |error: PostgresError| log::chain(&error);
        let target = Target::from(&self.config.postgres);
        let connection = postgres::connect(&target, LIMIT).await.map_err(words)?;
        let archiver = postgres::archiver(&connection).await.map_err(words)?;
        if archiver.failing() {
            return Ok(false);
        }
        postgres::switch_wal(&connection).await.map_err(words)?;
        Ok(true)
    }
}
