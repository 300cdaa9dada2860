//! What the metrics and the page show of a look at the repository. Pure.

use std::collections::BTreeMap;

use crate::cluster::{ArchiveExtent, BackupMark, RestoreTested, Stretch, StretchKind};
use crate::model::{Lsn, WalSegment};
use crate::repository::catalog::{Backup, Catalog, Gap, State, Verified};
use crate::repository::{Acknowledgement, Proof};

const STATES: [State; 5] = [
    State::Complete,
    State::Incomplete,
    State::Unusable,
    State::Disproved,
    State::Left,
];

/// Counts the repository; the restore tests are [`restore_tests`], which are read apart.
pub(super) fn extent(catalog: &Catalog, verified: &Verified) -> ArchiveExtent {
    let judged: Vec<(&Backup, State)> = catalog
        .backups
        .iter()
        .map(|backup| (backup, catalog.status(backup).state))
        .collect();
    let count = |state: State| {
        let count = judged.iter().filter(|(_, found)| *found == state).count();
        (state.word(), u64::try_from(count).unwrap_or(u64::MAX))
    };
    let restorable = judged
        .iter()
        .filter(|(backup, state)| *state == State::Complete && catalog.window(backup).is_some());
    let stored = |(backup, _): &(&Backup, State)| backup.stored.as_ref().map(|stored| stored.bytes);
    let runs = || catalog.wal.runs.values().flatten();
    ArchiveExtent {
        from: restorable
            .filter_map(|(backup, _)| backup.finished_at)
            .min(),
        backups: STATES.map(count).to_vec(),
        backup_bytes: judged.iter().filter_map(stored).sum(),
        wal_segments: runs().map(|run| run.segments()).sum(),
        wal_bytes: runs().map(|run| run.bytes).sum(),
        stretches: stretches(catalog, verified),
        base_backups: base_backups(&judged),
        tests: Vec::new(),
    }
}

fn base_backups(judged: &[(&Backup, State)]) -> Vec<BackupMark> {
    let mark = |(backup, state): &(&Backup, State)| {
        Some(BackupMark {
            name: backup.name.clone(),
            at: backup.finished_at,
            lsn: backup.sentinel.as_ref()?.start_lsn,
            state: state.word(),
        })
    };
    let mut marks: Vec<BackupMark> = judged.iter().filter_map(mark).collect();
    marks.sort_by_key(|mark| mark.lsn);
    newest(marks)
}

/// What is stored, and what is missing in it, by position: timelines lie over each other.
fn stretches(catalog: &Catalog, verified: &Verified) -> Vec<Stretch> {
    let size = catalog.wal.size;
    let between = |first: &str, last: &str| {
        let (first, last) = (
            WalSegment::parse(first, size).ok()?,
            WalSegment::parse(last, size).ok()?,
        );
        Some((first.start(size), last.end(size)))
    };
    let stored = verified.wal.iter().filter_map(|range| {
        let (from, to) = between(&range.first, &range.last)?;
        Some(Stretch {
            kind: StretchKind::Stored,
            from,
            to,
            name: named(&range.first, &range.last),
        })
    });
    let gaps = verified.gaps.iter().filter_map(|gap: &Gap| {
        let (from, to) = between(&gap.first, &gap.last)?;
        let acknowledged = gap.acknowledged.as_ref().map(Acknowledgement::told);
        let kind = match acknowledged {
            Some(_) => StretchKind::AcknowledgedGap,
            None => StretchKind::Gap,
        };
        let name = gap.named();
        let name = acknowledged.map_or(name.clone(), |told| format!("{name}: {told}"));
        Some(Stretch {
            kind,
            from,
            to,
            name,
        })
    });
    let begin: Option<Lsn> = catalog
        .backups
        .iter()
        .filter_map(|backup| Some(backup.sentinel.as_ref()?.start_lsn))
        .min();
    let mut stretches: Vec<Stretch> = stored
        .chain(gaps)
        .filter(|stretch| begin.is_none_or(|begin| stretch.to > begin))
        .collect();
    stretches.sort_by_key(|stretch| (stretch.from, stretch.to));
    newest(stretches)
}

fn named(first: &str, last: &str) -> String {
    if first == last {
        first.to_owned()
    } else {
        format!("{first} to {last}")
    }
}

fn newest<T>(mut all: Vec<T>) -> Vec<T> {
    all.drain(..all.len().saturating_sub(ArchiveExtent::LIMIT));
    all
}

/// The restore tests among `proofs`, which are sorted newest first.
pub(super) fn restore_tests(proofs: &[Proof]) -> Vec<RestoreTested> {
    let proofs = proofs.iter().take(ArchiveExtent::LIMIT);
    proofs.map(restore_test).collect()
}

fn restore_test(proof: &Proof) -> RestoreTested {
    let report = &proof.report.fields;
    let steps = report.steps.iter().flatten();
    let phases = steps.filter_map(|step| Some((step.name.clone(), step.secs?)));
    let mut verifications: BTreeMap<String, u64> = BTreeMap::new();
    for verification in report.verifications.iter().flatten() {
        let count = verifications.entry(verification.verdict.clone());
        *count.or_default() += 1;
    }
    RestoreTested {
        at: proof.finished_at(),
        node: proof.node.clone(),
        backup: proof.backup.clone(),
        passed: proof.passed,
        proves: proof.proves(),
        lsn: report.recovered_lsn,
        rto_secs: report.rto_secs,
        rpo_secs: report.rpo_secs,
        phases: phases.collect(),
        verifications: verifications.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{SegmentSize, Timeline};
    use crate::repository::catalog::{Stored, Wal};

    fn catalog(backups: &[u64], segments: impl IntoIterator<Item = u64>) -> Catalog {
        let mut wal = Wal::default();
        for number in segments {
            let stored = Stored {
                size: 100,
                last_modified: jiff::Timestamp::UNIX_EPOCH,
            };
            let timeline = Timeline(1);
            wal.add(WalSegment { timeline, number }, stored);
        }
        Catalog {
            backups: backups
                .iter()
                .map(|number| Backup::sample(1, *number, ""))
                .collect(),
            wal,
        }
    }

    #[test]
    fn what_is_stored_and_what_is_missing_is_shown_from_the_first_backup_on() {
        let catalog = catalog(&[3], [1, 2, 3, 4, 7, 8]);
        let verified = catalog.verify(&[], jiff::Timestamp::UNIX_EPOCH);
        let extent = extent(&catalog, &verified);
        assert_eq!((extent.wal_segments, extent.wal_bytes), (6, 600));
        let size = SegmentSize::default().bytes();
        let kinds: Vec<_> = extent
            .stretches
            .iter()
            .map(|one| (one.kind, one.from.0 / size, one.to.0 / size))
            .collect();
        let (stored, gap) = (StretchKind::Stored, StretchKind::Gap);
        assert_eq!(kinds, [(stored, 1, 5), (gap, 5, 7), (stored, 7, 9)]);
        assert_eq!(extent.base_backups.len(), 1);
    }

    #[test]
    fn a_test_shows_its_phases_and_counts_its_verifications() {
        let report = json!({
            "passed": true, "backup": "base_1", "level": "full", "rto_secs": 2.0,
            "steps": [{"name": "fetch", "secs": 1.5}, {"name": "skipped"}],
            "verifications": [{"name": "a", "verdict": "ok"}, {"name": "b", "verdict": "ok"}, {"name": "c", "verdict": "unknown"}]
        });
        let at = (jiff::Timestamp::UNIX_EPOCH, 3.0);
        let proof = Proof::new("db2", "s3://b/p", at, report.try_into().unwrap()).unwrap();
        let tested = &restore_tests(&[proof])[0];
        assert!(tested.proves);
        assert_eq!(tested.phases, [("fetch".to_owned(), 1.5)]);
        let counted = [("ok".to_owned(), 2), ("unknown".to_owned(), 1)];
        assert_eq!(tested.verifications, counted);
    }
}
