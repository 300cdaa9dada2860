//! What is wrong in the repository beside the newest backup's own way, which is `recoverability`.

use jiff::{SignedDuration, Timestamp};

use crate::archive::ArchiveError;
use crate::archive::catalog::{self, Catalog, Gap, Verified};
use crate::cluster::Doubts;
use crate::config::Config;
use crate::storage::{Bucket, Repository};

/// A push that is at work stores a part more often.
const ABANDONED: SignedDuration = SignedDuration::from_hours(24);

/// Looks for what spoils older backups or tells of another cluster than `own`, this node's.
///
/// # Errors
/// When the bucket cannot be listed.
pub(super) async fn doubts(
    config: &Config,
    repository: &Repository,
    (catalog, verified): (&Catalog, &Verified),
    own: Option<u64>,
    now: Timestamp,
) -> Result<Doubts, ArchiveError> {
    let abandoned = abandoned(config, repository, &verified.unfinished, now).await?;
    Ok(Doubts {
        gap: older_gap(catalog, verified),
        foreign: foreign(catalog, own),
        incomplete: abandoned.or_else(|| damaged(catalog)),
    })
}

/// WAL that nobody knows to be lost, and that the newest backup does not need.
fn older_gap(catalog: &Catalog, verified: &Verified) -> Option<String> {
    let newest = catalog.newest().map(|newest| newest.name.as_str());
    let newest = newest.unwrap_or_default();
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

/// A finished backup beside the newest that cannot be restored, whatever WAL is there.
fn damaged(catalog: &Catalog) -> Option<String> {
    let newest = catalog.newest()?;
    let others = catalog.backups.iter().filter(|one| one.name != newest.name);
    let finished = others.filter(|one| one.finished_at.is_some());
    let mut damaged = finished.filter_map(|backup| {
        let reason = catalog.why_damaged(backup)?;
        Some(format!("{} cannot be restored: {reason}", backup.name))
    });
    damaged.next()
}

/// A push that never finished, and that nobody is at any more.
async fn abandoned(
    config: &Config,
    repository: &Repository,
    unfinished: &[String],
    now: Timestamp,
) -> Result<Option<String>, ArchiveError> {
    if unfinished.is_empty() {
        return Ok(None);
    }
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    for name in unfinished {
        let parts = catalog::tar_parts(&bucket, repository, name).await?;
        let newest = parts.iter().map(|part| part.last_modified).max();
        if let Some(at) = newest.filter(|at| now.duration_since(*at) > ABANDONED) {
            let at = at.strftime("%F %T UTC");
            return Ok(Some(format!(
                "{name} was never finished: its last part was stored at {at}"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::catalog::{Backup, Sentinel, Wal};
    use crate::model::Timeline;

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
    fn a_damaged_backup_is_told_unless_it_is_the_newest() {
        assert_eq!(damaged(&catalog(&[(1, Some(7)), (2, None)])), None);
        let found = damaged(&catalog(&[(1, None), (2, Some(7))])).unwrap();
        assert!(found.contains("its sentinel is damaged: cut"), "{found}");
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
