//! Stores what the archive lacks and this node still holds: segments, and timelines' histories, that the primary took for
//! archived, such as after an `archive_command` that stored nothing.
//!
//! Only what belongs to the line of the primary's high-water mark and lies below that: what comes after is the primary's to
//! store. Each file is copied, verified and pushed from the copy, never over what is stored.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::Serialize;

use super::ancestry::{self, Ancestry};
use super::timelines::{NewerTimeline, Relation, Timelines};
use super::wal_client::stored_as;
use super::wal_role::in_recovery;
use super::{ArchiveError, Repository, catalog, environment, segment_header};
use crate::config::Config;
use crate::model::{
    ArchiveFile, Lsn, SegmentSize, ServerPosition, TimelineHistory, WalSegment, judge_descent,
};
use crate::process::{self, MarkedLock};
use crate::storage::{Bucket, HighWater, Shared};

/// What a run found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Stored now; in a dry run what would be.
    pub stored: Vec<String>,
    /// What the archive lacks and this node holds, and why it is not stored.
    pub kept: Vec<Kept>,
    /// Why nothing could be looked for; `None` where all was.
    pub idle: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub name: String,
    pub reason: String,
}

/// Looks for what the archive lacks and `pg_wal` of this node holds, and stores it unless `dry_run`.
///
/// # Errors
/// [`ArchiveError::Refused`] for root; [`ArchiveError::FillBusy`] while another run is at work here; otherwise when the bucket cannot be asked, or a push fails.
pub async fn fill(config: &Config, dry_run: bool) -> Result<Filled, ArchiveError> {
    if process::runs_as_root() {
        return Err(ArchiveError::Refused {
            reason: "root's files would block the database's user".to_owned(),
            hint: "run it as the database's user: runuser -u postgres -- xdb archive fill"
                .to_owned(),
        });
    }
    let directory = config.node.state_directory.join("fill");
    let path = directory.with_extension("lock");
    let lock = MarkedLock::take(&path).map_err(|source| ArchiveError::Lock { path, source })?;
    let Some(_lock) = lock else {
        return Err(ArchiveError::FillBusy);
    };
    let repository = super::repository(config)?;
    let place = Place {
        config,
        bucket: Bucket::open(&config.s3, &repository.bucket).await?,
        repository,
        staging: directory,
    };
    let (candidates, cluster) = match place.find().await? {
        Ok(found) => found,
        Err(idle) => {
            return Ok(Filled {
                idle: Some(idle),
                ..Filled::default()
            });
        }
    };
    let mut filled = Filled::default();
    for candidate in candidates {
        let stored = place.store(&candidate, cluster, dry_run).await;
        let _ = std::fs::remove_dir_all(&place.staging);
        match stored? {
            Ok(()) => filled.stored.push(candidate.name),
            Err(reason) => filled.kept.push(Kept {
                name: candidate.name,
                reason,
            }),
        }
    }
    Ok(filled)
}

/// How many of the segments from `first` to `last`, both included, `pg_wal` of this node holds.
pub fn held_here(config: &Config, (first, last): (&str, &str)) -> usize {
    let names = ancestry::segments(&config.postgres.data_directory);
    let held = names
        .iter()
        .filter(|name| (first..=last).contains(&name.as_str()));
    held.count()
}

/// A whole file of this node's that the archive lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// What a history must say; `None` for a segment.
    history: Option<TimelineHistory>,
}

/// How far the primary has archived, and along which line.
struct Line {
    ancestry: Ancestry,
    archived: Lsn,
    /// Where a newer timeline left that of the mark.
    superseded_at: Option<Lsn>,
    pruned_before: Option<String>,
    size: SegmentSize,
}

impl Line {
    /// Whether the primary took `name` for archived, it counts, and retention has not deleted it.
    fn wants(&self, name: &str) -> bool {
        match ArchiveFile::of(name) {
            Some(ArchiveFile::Segment) => self.wants_segment(name),
            Some(ArchiveFile::TimelineHistory) => self.history_of(name).is_some(),
            _ => false,
        }
    }

    fn wants_segment(&self, name: &str) -> bool {
        let Ok(segment) = WalSegment::parse(name, self.size) else {
            return false;
        };
        let end = segment.end(self.size);
        let is_superseded = segment.timeline == self.ancestry.timeline
            && self.superseded_at.is_some_and(|switch| end > switch);
        let is_pruned = self.pruned_before.as_deref().is_some_and(|it| name < it);
        self.ancestry.holds(segment, end) && end <= self.archived && !is_superseded && !is_pruned
    }

    /// What the history `name` must say; `None` where it is not one of this line.
    fn history_of(&self, name: &str) -> Option<TimelineHistory> {
        let timeline = ancestry::timeline_of(name)?;
        let pruned = self.pruned_before.as_deref().and_then(|it| it.get(..8));
        let own = timeline == self.ancestry.timeline;
        let is_ancestor = self.ancestry.history.switched_from(timeline).is_some();
        if !(own || is_ancestor) || pruned.is_some_and(|it| &name[..8] < it) {
            return None;
        }
        let switches = self.ancestry.history.0.iter();
        let before = switches.filter(|switch| switch.timeline < timeline);
        Some(TimelineHistory(before.copied().collect()))
    }
}

struct Place<'a> {
    config: &'a Config,
    repository: Repository,
    bucket: Bucket,
    staging: PathBuf,
}

impl Place<'_> {
    fn data(&self) -> &Path {
        &self.config.postgres.data_directory
    }

    /// What may be stored, and the cluster's system identifier; or why nothing is looked for.
    async fn find(&self) -> Result<Result<(Vec<Candidate>, u64), String>, ArchiveError> {
        let Some(cluster) = segment_header::cluster_in(self.data()) else {
            let data = self.data().display();
            return Ok(Err(format!("{data} is no data directory")));
        };
        let mut names = whole_files(self.data());
        let segments: Vec<&String> = names.iter().filter(|name| name.len() == 24).collect();
        let size = segments.iter().find_map(|name| {
            let path = self.data().join("pg_wal").join(name);
            segment_header::size_of(name, &path, cluster)
        });
        let Some(size) = size else {
            return Ok(Err("pg_wal holds no whole segment".to_owned()));
        };
        let line = match self.line(cluster, size).await? {
            Ok(line) => line,
            Err(reason) => return Ok(Err(reason)),
        };
        names.retain(|name| line.wants(name));
        let missing = self.missing(&names).await?.into_iter();
        let candidates = missing.map(|name| Candidate {
            history: line.history_of(&name).filter(|_| name.len() < 24),
            name,
        });
        Ok(Ok((candidates.collect(), cluster)))
    }

    /// The line that leads to the primary's high-water mark; or why it is not known.
    async fn line(
        &self,
        cluster: u64,
        size: SegmentSize,
    ) -> Result<Result<Line, String>, ArchiveError> {
        let shared = Shared::open(self.config).await?;
        let mark = shared.high_water().await?.filter(|mark| {
            mark.system_identifier == cluster && mark.repository == self.repository.to_string()
        });
        let Some(HighWater { timeline, lsn, .. }) = mark else {
            let reason = "no primary's daemon has set a high-water mark: how far it has archived is not known";
            return Ok(Err(reason.to_owned()));
        };
        let ancestry = match ancestry::of_timeline(self.data(), timeline) {
            Some(ancestry) => Some(ancestry),
            None => ancestry::stored(&self.bucket, &self.repository, timeline).await?,
        };
        let Some(ancestry) = ancestry else {
            return Ok(Err(format!(
                "the history of timeline {timeline} cannot be read"
            )));
        };
        let pruned = shared.pruned((cluster, &self.repository)).await?;
        Ok(self
            .superseded_at(cluster, &ancestry)
            .await?
            .map(|superseded_at| Line {
                ancestry,
                archived: lsn,
                superseded_at,
                pruned_before: pruned.and_then(|pruned| pruned.before),
                size,
            }))
    }

    /// Where a newer timeline in the archive left that of `line`; or why that is not known.
    async fn superseded_at(
        &self,
        cluster: u64,
        line: &Ancestry,
    ) -> Result<Result<Option<Lsn>, String>, ArchiveError> {
        let own = ServerPosition {
            system_identifier: cluster,
            timeline: line.timeline,
            // Wherever it left: a server that is on the old one may have written on.
            lsn: Lsn(u64::MAX),
            history: Some(line.history.clone()),
        };
        let timelines = Timelines::of(self.config, self.repository.clone(), self.bucket.clone());
        Ok(left_at(&own, &timelines.newer(&own).await?))
    }

    /// Those of `names` that the bucket does not list.
    async fn missing(&self, names: &[String]) -> Result<Vec<String>, ArchiveError> {
        let (names, histories): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| ArchiveFile::of(name) == Some(ArchiveFile::Segment));
        let mut missing: BTreeSet<&str> = names.iter().copied().collect();
        for history in histories {
            let stored = stored_as(&self.bucket, &self.repository, history).await?;
            missing.extend(Some(history).filter(|_| stored.is_empty()));
        }
        let prefix = self.repository.key("wal_005/");
        let timelines: BTreeSet<&str> = names.iter().filter_map(|name| name.get(..8)).collect();
        for timeline in timelines {
            let of = || {
                names
                    .iter()
                    .copied()
                    .filter(|name| name.starts_with(timeline))
            };
            let (Some(first), Some(last)) = (of().min(), of().max()) else {
                continue;
            };
            // What sorts behind the name begins with it, as all its compressions do.
            let last = format!("{last}~");
            let each = |object: crate::storage::Object| {
                let name = object.key.strip_prefix(&prefix).unwrap_or_default();
                if name > last.as_str() {
                    return ControlFlow::Break(());
                }
                let kept = catalog::COMPRESSIONS.iter().find_map(|suffix| {
                    let name = name.strip_suffix(suffix)?;
                    name.strip_suffix('.')
                });
                missing.remove(kept.unwrap_or(name));
                ControlFlow::Continue(())
            };
            // Just before the first one, which may be stored without compression.
            let after = format!("{prefix}{}", &first[..23]);
            let within = format!("{prefix}{timeline}");
            self.bucket.list_each(&within, Some(after), each).await?;
        }
        Ok(missing.into_iter().map(str::to_owned).collect())
    }

    /// Stores one; the inner error says why it is left alone.
    async fn store(
        &self,
        candidate: &Candidate,
        cluster: u64,
        dry_run: bool,
    ) -> Result<Result<(), String>, ArchiveError> {
        let name = &candidate.name;
        let (data, staging, of) = (self.data().to_owned(), self.staging.clone(), name.clone());
        let copied = process::on_a_thread(move || copy(&data, &staging, &of)).await;
        let copy = match copied {
            Ok(copy) => copy,
            Err(error) => return Ok(Err(format!("it cannot be copied: {error}"))),
        };
        let judged = match &candidate.history {
            None => {
                let (of, file) = (name.clone(), copy.clone());
                let judge = move || segment_header::judge_pages(&of, &file, cluster);
                match process::on_a_thread(judge).await {
                    Ok(()) => self.judge_records(name, &copy).await?,
                    bad => bad,
                }
            }
            Some(history) => judge_history(&copy, history),
        };
        if judged.is_err() || dry_run {
            return Ok(judged);
        }
        // The primary may have stored it meanwhile.
        if !stored_as(&self.bucket, &self.repository, name)
            .await?
            .is_empty()
        {
            return Ok(Ok(()));
        }
        self.push(name, &copy).await?;
        self.compare(name, &copy).await
    }

    /// Has `pg_waldump` read every record with its checksum, up to the segment's end or the switch in it.
    async fn judge_records(
        &self,
        name: &str,
        copy: &Path,
    ) -> Result<Result<(), String>, ArchiveError> {
        let Some((segment, end)) = segment_header::segment_of(name, copy) else {
            return Ok(Err("it is no WAL segment".to_owned()));
        };
        let start = Lsn(end.0 - std::fs::metadata(copy).map_or(0, |found| found.len()));
        let mut command = process::command(self.config.postgres.bin_directory.join("pg_waldump"));
        command
            .env("LC_ALL", "C")
            .arg("--quiet")
            .arg(format!("--path={}", self.staging.join("pg_wal").display()))
            .arg(format!("--timeline={}", segment.timeline))
            .arg(format!("--start={start}"))
            .arg(format!("--end={end}"));
        let finished = process::run(command, self.config.archive.push_timeout).await?;
        Ok(if finished.status.success() {
            Ok(())
        } else {
            Err(finished.last_words())
        })
    }

    async fn push(&self, name: &str, copy: &Path) -> Result<(), ArchiveError> {
        let (program, mut command) =
            environment::command(self.config, &self.repository, &self.staging)?;
        command.arg("wal-push").arg(copy);
        command.current_dir(&self.staging);
        let ended = process::run_attached(command, self.config.archive.push_timeout).await;
        if ended.as_ref().is_ok_and(ExitStatus::success) {
            return Ok(());
        }
        super::wal_push::give_up_unfinished(&self.bucket, &self.repository, name).await;
        Err(ArchiveError::Failed {
            program: program.to_string(),
            verb: "wal-push",
            reason: ended?.to_string(),
        })
    }

    /// Whether the bucket holds what was pushed, once.
    async fn compare(&self, name: &str, copy: &Path) -> Result<Result<(), String>, ArchiveError> {
        let stored = stored_as(&self.bucket, &self.repository, name).await?;
        let name = name.to_owned();
        match stored.as_slice() {
            [] => Err(ArchiveError::NotThere {
                program: self.config.archive.program.clone(),
                reason: format!("{name} is not in the bucket"),
            }),
            [_] => {
                let same = super::wal_push::same_content(&self.bucket, &stored, copy, &name);
                // Where xdb cannot read it, the program decides.
                same.await.map(|_| Ok(()))
            }
            _ => Err(ArchiveError::Twice { name }),
        }
    }
}

/// Copies `name` of the server in `data` to `staging`, where the program finds it and nothing else.
fn copy(data: &Path, staging: &Path, name: &str) -> std::io::Result<PathBuf> {
    let _ = std::fs::remove_dir_all(staging);
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).recursive(true);
    private.create(staging.join("pg_wal/archive_status"))?;
    let copy = staging.join("pg_wal").join(name);
    std::fs::copy(data.join("pg_wal").join(name), &copy)?;
    Ok(copy)
}

/// Where the first of `newer` that can lead on from `own` left it. One that nothing ties to the cluster yet counts, too: nothing is stored that may
/// belong to a history that was left.
///
/// # Errors
/// When the history of one cannot be read.
fn left_at(own: &ServerPosition, newer: &[NewerTimeline]) -> Result<Option<Lsn>, String> {
    let counted = newer
        .iter()
        .filter(|it| !matches!(it.relation, Relation::Forgotten(_)));
    let mut left = None;
    for newer in counted {
        if newer.is_unread {
            return Err(format!(
                "the history of timeline {} cannot be read",
                newer.timeline
            ));
        }
        let history = newer.history.as_ref();
        let switch = history.map(|history| judge_descent(newer.timeline, history, own));
        left = switch.and_then(Result::ok).into_iter().chain(left).min();
    }
    Ok(left)
}

fn judge_history(copy: &Path, expected: &TimelineHistory) -> Result<(), String> {
    let text = std::fs::read_to_string(copy).map_err(|error| error.to_string())?;
    let history: TimelineHistory = text.parse().map_err(|error| format!("{error}"))?;
    if &history == expected {
        Ok(())
    } else {
        Err("it is not the history that leads to the primary's timeline".to_owned())
    }
}

/// The segments in `pg_wal` that PostgreSQL has marked for the archive, which it does when they are complete, and the
/// histories that still wait.
///
/// A primary's `.ready` ones are its archiver's to store.
fn whole_files(data_directory: &Path) -> Vec<String> {
    let is_standby = in_recovery(data_directory);
    let marks = std::fs::read_dir(data_directory.join("pg_wal/archive_status"));
    let marks = marks.into_iter().flatten().flatten();
    let names = marks.filter_map(|mark| mark.file_name().into_string().ok());
    let whole = |mark: String| {
        let (name, state) = mark.rsplit_once('.')?;
        let kind = ArchiveFile::of(name)?;
        let wanted = match (kind, state) {
            (ArchiveFile::Segment, "done") => true,
            (ArchiveFile::Segment | ArchiveFile::TimelineHistory, "ready") => is_standby,
            _ => false,
        };
        let path = data_directory.join("pg_wal").join(name);
        (wanted && path.is_file()).then(|| name.to_owned())
    };
    let mut whole: Vec<String> = names.filter_map(whole).collect();
    whole.sort_unstable();
    whole.dedup();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;

    fn line() -> Line {
        Line {
            // Timeline 3 left 1 within segment 9; the primary has archived up to segment 12.
            ancestry: Ancestry {
                timeline: Timeline(3),
                history: "1\t0/90000A0\tr\n".parse().unwrap(),
            },
            archived: Lsn(0xD00_0000),
            superseded_at: None,
            pruned_before: Some("000000010000000000000004".to_owned()),
            size: SegmentSize::default(),
        }
    }

    #[test]
    fn only_what_the_primary_passed_on_its_own_line_is_wanted() {
        for (name, wanted) in [
            ("000000010000000000000003", false),
            ("000000010000000000000004", true),
            ("000000010000000000000008", true),
            ("000000010000000000000009", false),
            ("00000001000000000000000A", false),
            ("000000020000000000000005", false),
            ("000000030000000000000009", true),
            ("00000003000000000000000C", true),
            ("00000003000000000000000D", false),
            ("00000004000000000000000B", false),
            ("00000003.history", true),
            ("00000002.history", false),
            ("00000004.history", false),
            ("000000030000000000000009.partial", false),
            ("000000030000000000000009.00000028.backup", false),
        ] {
            assert_eq!(line().wants(name), wanted, "{name}");
        }
        // Timeline 4 left 3 within segment 11: the rest a superseded server wrote.
        let superseded = Line {
            superseded_at: Some(Lsn(0xB00_0100)),
            ..line()
        };
        for (name, wanted) in [
            ("00000003000000000000000A", true),
            ("00000003000000000000000B", false),
            ("00000003000000000000000C", false),
        ] {
            assert_eq!(superseded.wants(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_timeline_ends_where_any_newer_one_left_it() {
        let newer = |timeline: u32, history: &str, is_unread: bool| NewerTimeline {
            timeline: Timeline(timeline),
            history: Some(history.parse().unwrap()).filter(|_| !is_unread),
            is_unread,
            relation: Relation::Doubtful("nothing ties it".to_owned()),
        };
        let own = ServerPosition {
            system_identifier: 7,
            timeline: Timeline(2),
            lsn: Lsn(u64::MAX),
            history: Some("1\t0/50\tr\n".parse().unwrap()),
        };
        let (of_1, of_2) = ("1\t0/50\tr\n", "1\t0/50\tr\n2\t0/70\tr\n");
        for (what, newer, left) in [
            ("none", vec![], Ok(None)),
            (
                "not the next number",
                vec![newer(5, of_2, false)],
                Ok(Some(Lsn(0x70))),
            ),
            (
                "the first of two",
                vec![
                    newer(4, "1\t0/50\tr\n2\t0/90\tr\n", false),
                    newer(5, of_2, false),
                ],
                Ok(Some(Lsn(0x70))),
            ),
            ("of another one", vec![newer(3, of_1, false)], Ok(None)),
            ("absurd", vec![newer(4_000_000_000, of_2, false)], Ok(None)),
            ("unread", vec![newer(3, of_2, true)], Err(())),
        ] {
            assert_eq!(left_at(&own, &newer).map_err(|_| ()), left, "{what}");
        }
    }

    #[test]
    fn a_history_must_lead_to_the_primarys_timeline() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("00000003.history");
        let expected = line().history_of("00000003.history").unwrap();
        for (text, good) in [
            ("1\t0/90000A0\tr\n", true),
            ("1\t0/90000A8\tr\n", false),
            ("nonsense", false),
            ("", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(judge_history(&file, &expected).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn what_postgresql_has_marked_is_whole() {
        let data = tempfile::tempdir().unwrap();
        let status = data.path().join("pg_wal/archive_status");
        std::fs::create_dir_all(&status).unwrap();
        let segment = |number: u32| format!("0000000100000000{number:08X}");
        for (name, mark) in [
            (segment(3), "done"),
            (segment(4), "ready"),
            ("00000002.history".to_owned(), "ready"),
            (format!("{}.partial", segment(5)), "done"),
        ] {
            std::fs::write(data.path().join("pg_wal").join(&name), "").unwrap();
            std::fs::write(status.join(format!("{name}.{mark}")), "").unwrap();
        }
        // Its file is gone; it has no mark.
        std::fs::write(status.join(format!("{}.done", segment(6))), "").unwrap();
        std::fs::write(data.path().join("pg_wal").join(segment(7)), "").unwrap();
        assert_eq!(whole_files(data.path()), [segment(3)]);
        std::fs::write(data.path().join("standby.signal"), "").unwrap();
        let all = [segment(3), segment(4), "00000002.history".to_owned()];
        assert_eq!(whole_files(data.path()), all);
    }
}
