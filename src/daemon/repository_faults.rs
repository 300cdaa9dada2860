//! Faults of the repository that do not affect the backup that a restore would use; those that do are `recoverability`.

use jiff::{SignedDuration, Timestamp};

use crate::cluster::RepositoryFaults;
use crate::repository::catalog::{Catalog, Gap, Verified};

/// A push that is at work stores a part more often.
const ABANDONED: SignedDuration = SignedDuration::from_hours(24);

/// Looks for what spoils other backups than the one that a restore begins with, or tells of another cluster than `own`,
/// this node's. Pure.
pub(super) fn find_faults(
    (catalog, verified): (&Catalog, &Verified),
    own: Option<u64>,
    now: Timestamp,
) -> RepositoryFaults {
    RepositoryFaults {
        gap: older_gap(catalog, verified),
        foreign: foreign(catalog, own),
        incomplete: abandoned(catalog, now).or_else(|| damaged(catalog)),
    }
}

/// Missing WAL that is not acknowledged, and that the newest backup does not need.
fn older_gap(catalog: &Catalog, verified: &Verified) -> Option<String> {
    let newest = catalog.newest_to_judge();
    let newest = newest.map_or("", |newest| newest.name.as_str());
    let spares_newest = |gap: &&Gap| !gap.cuts_off.iter().any(|name| name == newest);
    let unknown = verified
        .gaps
        .iter()
        .filter(|gap| gap.acknowledged.is_none());
    let gap = unknown.clone().find(spares_newest)?;
    let cut_off = gap.cuts_off.join(", ");
    Some(format!(
        "WAL is missing: {}; it cuts off {cut_off}",
        gap.named()
    ))
}

/// Backups of several clusters, or of another than this node's.
fn foreign(catalog: &Catalog, own: Option<u64>) -> Option<String> {
    let mut written = catalog.backups.iter().filter_map(|backup| {
        let identifier = backup.sentinel.as_ref()?.system_identifier?;
        Some((&backup.name, identifier))
    });
    let (_, first) = written.clone().next()?;
    let own = own.unwrap_or(first);
    let (name, identifier) = written.find(|(_, identifier)| *identifier != own)?;
    Some(format!(
        "{name} is of another cluster: its system identifier is {identifier}, this one's {own}"
    ))
}

/// A finished backup that cannot be counted on, whatever WAL is there: the newest before others, unless `recoverability`
/// names it.
fn damaged(catalog: &Catalog) -> Option<String> {
    let judged = catalog.newest_to_judge()?;
    let others = catalog.backups.iter().filter(|one| one.name != judged.name);
    let bad = others.filter_map(|backup| {
        backup.finished_at?;
        Some((backup, catalog.why_bad(backup)?))
    });
    let (backup, reason) = bad.max_by_key(|(backup, _)| backup.finished_at)?;
    let name = &backup.name;
    Some(match backup.finished_at > judged.finished_at {
        true => format!(
            "{name}, the newest, cannot be counted on: {reason}; a restore begins with {}",
            judged.name
        ),
        false => format!("{name} cannot be counted on: {reason}"),
    })
}

/// A push that never finished, and that no program works on any more.
fn abandoned(catalog: &Catalog, now: Timestamp) -> Option<String> {
    let unfinished = catalog
        .backups
        .iter()
        .filter(|one| one.finished_at.is_none());
    let mut abandoned = unfinished.filter_map(|backup| {
        let at = backup.stored.as_ref()?.newest?;
        let is_old = now.duration_since(at) > ABANDONED;
        is_old.then(|| {
            let at = at.strftime("%F %T UTC");
            format!(
                "{} was never finished: its last part was stored at {at}",
                backup.name
            )
        })
    });
    abandoned.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timeline, WalSegment};
    use crate::repository::catalog::{Backup, Sentinel, Stored, Tests, Wal};

    /// A backup that finished at `second`; its sentinel is damaged where `identifier` is `None`.
    fn backup(second: i64, identifier: Option<u64>) -> Backup {
        let sentinel = identifier.map(|identifier| {
            let json = format!(r#"{{"LSN":40,"FinishLSN":80,"SystemIdentifier":{identifier}}}"#);
            Sentinel::parse(json.as_bytes()).unwrap()
        });
        Backup {
            name: format!("base_00000001{second:016X}"),
            timeline: Timeline(1),
            damage: sentinel.is_none().then(|| "cut".to_owned()),
            sentinel,
            finished_at: Some(Timestamp::from_second(second).unwrap()),
            stored: None,
            tests: Tests::default(),
        }
    }

    fn catalog(backups: &[(i64, Option<u64>)]) -> Catalog {
        let backups = backups.iter().map(|(at, of)| backup(*at, *of));
        Catalog {
            backups: backups.collect(),
            wal: Wal::default(),
        }
    }

    #[test]
    fn another_clusters_backups_are_told_by_the_sentinels() {
        for (backups, own, told) in [
            (&[][..], Some(7), false),
            (&[(1, Some(7))], Some(7), false),
            (&[(1, Some(7)), (2, Some(9))], Some(7), true),
            (&[(1, Some(9))], Some(7), true),
            // Not known which is this node's: two are one too many all the same.
            (&[(1, Some(7)), (2, Some(9))], None, true),
            (&[(1, Some(9))], None, false),
            // A sentinel that cannot be read says nothing.
            (&[(1, None)], Some(7), false),
        ] {
            let found = foreign(&catalog(backups), own);
            assert_eq!(found.is_some(), told, "{backups:?} {own:?}: {found:?}");
        }
    }

    #[test]
    fn a_damaged_backup_is_told_unless_recoverability_names_it() {
        // None can be restored.
        assert_eq!(damaged(&catalog(&[(2, None)])), None);
        let good = |mut catalog: Catalog| {
            let (timeline, number) = (Timeline(1), 0);
            let stored = Stored {
                size: 1,
                last_modified: Timestamp::UNIX_EPOCH,
            };
            catalog.wal.add(WalSegment { timeline, number }, stored);
            damaged(&catalog).unwrap_or_default()
        };
        let older = good(catalog(&[(1, None), (2, Some(7))]));
        assert!(older.contains("its sentinel is damaged: cut"), "{older}");
        let newest = good(catalog(&[(1, Some(7)), (2, None)]));
        assert!(
            newest.contains(", the newest, cannot be counted on"),
            "{newest}"
        );
        assert_eq!(good(catalog(&[(1, Some(7)), (2, Some(7))])), "");
    }

    #[test]
    fn a_gap_is_told_once_here_or_with_the_newest_backup() {
        let catalog = catalog(&[(1, Some(7)), (2, Some(7))]);
        let (old, new) = (&catalog.backups[0].name, &catalog.backups[1].name);
        for (cuts_off, told) in [(vec![old], true), (vec![old, new], false)] {
            let gap = Gap {
                timeline: Timeline(1),
                first: "000000010000000000000004".to_owned(),
                last: "000000010000000000000004".to_owned(),
                segments: 1,
                at_end: false,
                cut: Vec::new(),
                damaged: Vec::new(),
                cuts_off: cuts_off.into_iter().cloned().collect(),
                acknowledged: None,
            };
            let verified = Verified {
                wal: Vec::new(),
                gaps: vec![gap],
                problems: Vec::new(),
                unfinished: Vec::new(),
                mark: None,
                end_unverified: None,
            };
            assert_eq!(older_gap(&catalog, &verified).is_some(), told);
        }
    }
}
