//! What will be restored, and whether it may be: pure, from the survey.

use std::path::Path;

use super::recovery_target::{choose_backup, ends_there, finished_before, judge_reach};
use super::until::Until;
use crate::model::{Lsn, Verdict, WalSegment};
use crate::repository::catalog::{
    Backup, BackupStatus, Catalog, RecoveryPath, SegmentRange, Sentinel, UnreadHistory, Wal,
    plan_recovery,
};
use crate::restore::RestoreError;
use crate::restore::scratch::{max_prefetched, wal_kept};
use crate::storage::Location;

/// A restore, decided.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub backup: Backup,
    pub sentinel: Sentinel,
    pub path: RecoveryPath,
    /// Names of the backups to fetch, the full one first.
    pub chain: Vec<String>,
    /// Stored bytes of the whole chain.
    pub fetch_bytes: u64,
    /// Room on the scratch disk: the data directory, WAL between two restartpoints, and what is fetched ahead.
    pub needed_bytes: u64,
    /// Gaps in the WAL on the way. A test runs nevertheless, to show what would be restored.
    pub gaps: Verdict,
    /// Where it is to stop; at the end of the archive where `None`.
    pub until: Option<Until>,
    /// The target for PostgreSQL: `None` where the WAL that can be replayed ends right at `until`.
    pub target: Option<Until>,
}

impl Plan {
    /// Forgets gaps that a recovery up to `recovered` went past: their segments were stored after the listing. Returns
    /// whether there were any.
    pub(crate) fn drop_passed_gaps(&mut self, recovered: Lsn, wal: &Wal) -> bool {
        let size = wal.size;
        let end = |gap: &SegmentRange| (gap.last + 1) * size.bytes();
        let before = self.path.missing.len();
        self.path.missing.retain(|gap| end(gap) > recovered.0);
        if self.path.missing.len() == before {
            return false;
        }
        let passed = WalSegment {
            timeline: self.path.timeline,
            number: (recovered.0.saturating_sub(1)) / size.bytes(),
        };
        match self.path.missing.first() {
            // As far as the listing goes, at least.
            None => self.path.reachable = self.path.newest,
            Some(_) => self.path.reachable = Some(passed),
        }
        self.gaps = judge_gaps(&self.path, wal);
        true
    }

    /// Says of the gap that its segments may still come; where uploads are `under_way`, it is not known to be one.
    pub(crate) fn gap_may_close(&mut self, under_way: bool) {
        let Some(reason) = self.gaps.reason() else {
            return;
        };
        // A history that is missing is another matter.
        if self.path.without_history.is_some() {
            return;
        }
        let reason = format!("{reason}; {GAP_MAY_CLOSE}");
        self.gaps = match under_way {
            true => Verdict::Unknown(reason),
            false => Verdict::Critical(reason),
        };
    }

    /// Takes the archive for as long as it can be replayed: what is listed beyond is still being stored.
    pub(crate) fn end_before_gap(&mut self) {
        self.path.missing.clear();
        self.path.newest = self.path.reachable;
        self.gaps = Verdict::Ok;
    }
}

/// Advice about a gap that an upload may still close.
pub(crate) const GAP_MAY_CLOSE: &str =
    "it may still be uploading; run the test again in two minutes";

/// In place of a backup's name: the newest, or the last one before the target.
pub(crate) const LATEST: &str = "LATEST";

/// Which backup is meant where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The one that finished last, even if a test disproved it. For tests.
    Newest,
    /// The newest that is complete and not disproved. For restores.
    Good,
}

impl Pick {
    fn of(self, catalog: &Catalog) -> Option<&Backup> {
        match self {
            Self::Newest => catalog.newest(),
            Self::Good => catalog.newest_good(),
        }
    }
}

/// Plans the restore of `name`, or of the newest backup, or of the last one before `until`.
///
/// # Errors
/// [`RestoreError::Bad`] where the listing shows that no restore is possible, [`RestoreError::Refused`] where one would
/// be dangerous, [`RestoreError::Unreachable`] where none reaches `until`.
pub(crate) fn plan_restore(
    catalog: &Catalog,
    repository: &Location,
    (name, pick): (Option<&str>, Pick),
    until: Option<&Until>,
) -> Result<Plan, RestoreError> {
    let backup = pick_backup(catalog, repository, (name, pick), until)?;
    if let Some(reason) = catalog.why_no_way(backup) {
        return Err(RestoreError::Bad(format!(
            "{} cannot be restored: {reason}",
            backup.name
        )));
    }
    let bad = |reason: String| RestoreError::Bad(format!("{}: {reason}", backup.name));
    let chain = catalog.chain(backup).map_err(bad)?;
    let sentinel = backup
        .sentinel
        .clone()
        .ok_or_else(|| bad("it never finished".to_owned()))?;
    // The backup may be complete: without the history that is unknown.
    let unread = |unread: UnreadHistory| RestoreError::History(unread.to_string());
    let path = plan_recovery(
        &catalog.wal,
        backup.timeline,
        sentinel.start_lsn,
        sentinel.finish_lsn,
    )
    .map_err(unread)?;
    if let Some(until) = until {
        judge_reach(catalog, backup, &sentinel, &path, until)?;
    }
    let stored = |member: &&Backup| {
        member
            .sentinel
            .as_ref()
            .map_or(0, |sentinel| sentinel.compressed_size)
    };
    let (size, bytes) = (catalog.wal.size, catalog.wal.size.bytes());
    let most = wal_kept(size) + max_prefetched(size) as u64 * bytes;
    let wal = (path.segments * bytes).min(most);
    Ok(Plan {
        fetch_bytes: chain.iter().map(stored).sum(),
        needed_bytes: sentinel.restored_size() / 10 * 11 + wal,
        chain: chain.iter().map(|member| member.name.clone()).collect(),
        gaps: match until {
            // A name may lie on either side of a gap; the others lie before.
            Some(_) => Verdict::Ok,
            None => judge_gaps(&path, &catalog.wal),
        },
        until: until.cloned(),
        target: until
            .filter(|until| !ends_there(catalog, &path, until))
            .cloned(),
        backup: backup.clone(),
        sentinel,
        path,
    })
}

/// The backup of this name, or the one that is meant without a name.
fn pick_backup<'a>(
    catalog: &'a Catalog,
    repository: &Location,
    (name, pick): (Option<&str>, Pick),
    until: Option<&Until>,
) -> Result<&'a Backup, RestoreError> {
    match (name.filter(|name| *name != LATEST), until) {
        (Some(name), _) => catalog
            .backup(name)
            .ok_or_else(|| RestoreError::NoSuchBackup {
                name: name.to_owned(),
                repository: repository.to_string(),
            }),
        (None, until) => until
            .map_or_else(
                || Ok(pick.of(catalog)),
                |until| choose_backup(catalog, until),
            )?
            .ok_or_else(|| no_good_backup(catalog, repository)),
    }
}

/// What is known against each backup that finished after `taken`, and before `until` where that is asked for, oldest first.
pub(crate) fn skipped_backups(
    catalog: &Catalog,
    taken: &Backup,
    until: Option<&Until>,
) -> Vec<String> {
    let newer = |backup: &&Backup| {
        backup.finished_at > taken.finished_at
            && until.is_none_or(|until| finished_before(backup, until))
    };
    let newer = catalog.backups.iter().filter(newer);
    let judged = newer.filter_map(|backup| {
        let BackupStatus { state, reason } = catalog.status(backup);
        Some(format!("{} is {}: {}", backup.name, state.word(), reason?))
    });
    judged.collect()
}

/// There is no backup, or the newest of them says why none is taken.
fn no_good_backup(catalog: &Catalog, repository: &Location) -> RestoreError {
    let Some(newest) = catalog.newest() else {
        return RestoreError::NoBackup {
            repository: repository.to_string(),
        };
    };
    let BackupStatus { state, reason } = catalog.status(newest);
    RestoreError::Bad(format!(
        "no backup can be counted on; the newest, {}, is {}: {}",
        newest.name,
        state.word(),
        reason.unwrap_or_default()
    ))
}

fn judge_gaps(path: &RecoveryPath, wal: &Wal) -> Verdict {
    if let Some(timeline) = path.without_history {
        return Verdict::Critical(format!(
            "timeline {timeline} has WAL, and its history {} is missing: it cannot be followed",
            timeline.history_file()
        ));
    }
    let Some(gap) = path.missing.first() else {
        return Verdict::Ok;
    };
    let reason = wal.why_not_past(*gap);
    Verdict::Critical(format!("{reason}; nothing after it can be recovered"))
}

/// Whether programs that call themselves `version` (such as `postgres (PostgreSQL) 17.6`) can start the backup.
///
/// # Errors
/// When the major versions differ.
pub(crate) fn judge_major_version(
    sentinel: &Sentinel,
    version: &str,
    bin_directory: &Path,
) -> Result<(), RestoreError> {
    let wanted = sentinel.pg_version / 10_000;
    let found = version.split_whitespace().find_map(|word| {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    // An old sentinel does not tell; PostgreSQL itself refuses a foreign PG_VERSION.
    if wanted == 0 || found == Some(wanted) {
        return Ok(());
    }
    Err(RestoreError::WrongMajor {
        wanted,
        found: found.map_or_else(|| version.trim().to_owned(), |major| major.to_string()),
        bin_directory: bin_directory.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::Timeline;

    fn sentinel(version: u32) -> Sentinel {
        let json = format!(r#"{{"LSN":40,"FinishLSN":80,"PgVersion":{version}}}"#);
        Sentinel::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn only_the_same_major_version_starts_a_backup() {
        let bin = Path::new("/usr/lib/postgresql/17/bin");
        let debian = "postgres (PostgreSQL) 17.6 (Debian 17.6-0+deb13u1)";
        assert!(judge_major_version(&sentinel(170_011), debian, bin).is_ok());
        assert!(
            judge_major_version(&sentinel(170_011), "postgres (PostgreSQL) 18beta1", bin).is_err()
        );
        assert!(judge_major_version(&sentinel(0), debian, bin).is_ok());
    }

    #[test]
    fn a_gap_that_a_recovery_went_past_is_none() {
        const SEGMENT: u64 = 16 << 20;
        let mut wal = Wal::default();
        for number in [1, 2, 4, 6] {
            let stored = crate::repository::catalog::Stored {
                size: 100,
                last_modified: Timestamp::UNIX_EPOCH,
            };
            let timeline = Timeline(1);
            wal.add(WalSegment { timeline, number }, stored);
        }
        let (start, finish) = (Lsn(SEGMENT + 40), Lsn(SEGMENT + 80));
        let path = plan_recovery(&wal, Timeline(1), start, finish).unwrap();
        let backup = Backup::sample(1, 1, "");
        let plan = Plan {
            backup,
            sentinel: sentinel(170_011),
            chain: Vec::new(),
            fetch_bytes: 0,
            needed_bytes: 0,
            gaps: judge_gaps(&path, &wal),
            until: None,
            target: None,
            path,
        };
        let after = |segment: u64| {
            let mut plan = plan.clone();
            let dropped = plan.drop_passed_gaps(Lsn(segment * SEGMENT), &wal);
            let reachable = plan.path.reachable.unwrap().number;
            (dropped, plan.gaps == Verdict::Ok, reachable)
        };
        // Segments 3 and 5 were not listed.
        assert_eq!(after(3), (false, false, 2));
        assert_eq!(after(5), (true, false, 4));
        assert_eq!(after(7), (true, true, 6));
    }

    #[test]
    fn only_what_finished_before_the_target_was_passed_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        // Without any WAL none of them is complete.
        let backup = |number: u64| Backup::sample(1, number, "");
        let catalog = Catalog {
            backups: vec![backup(2), backup(4), backup(6)],
            wal: Wal::default(),
        };
        let named = |until: Option<Until>| {
            let all = skipped_backups(&catalog, &catalog.backups[0], until.as_ref());
            assert!(
                all.iter().all(|reason| reason.contains(" is unusable: ")),
                "{all:?}"
            );
            all.len()
        };
        assert_eq!(named(None), 2);
        assert_eq!(named(Some(Until::Time(at(5)))), 1);
        assert_eq!(named(Some(Until::Time(at(3)))), 0);
    }
}
