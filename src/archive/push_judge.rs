//! Whether a base backup may be taken, and on what it may build. Pure.

use super::catalog::Catalog;
use crate::model::Timeline;
use crate::postgres::{Archiver, ControlData, Server};
use crate::storage::Repository;

/// Why no backup should be taken now, and what to do; `None` when all is well.
pub(super) fn judge_push(
    control: &ControlData,
    server: &Server,
    archiver: &Archiver,
    catalog: &Catalog,
    repository: &Repository,
) -> Option<(String, String)> {
    let no = |reason: String, hint: &str| Some((reason, hint.to_owned()));
    let refused = judge_server(control, server, catalog, None);
    if refused.is_some() {
        return refused;
    }
    if server.archive_mode == "off" {
        return no(
            "archive_mode is off: without its WAL a base backup cannot be restored".to_owned(),
            "set archive_mode = always and archive_command = 'xdb wal-push \"%p\"', then restart PostgreSQL",
        );
    }
    if !server.archives {
        return no(
            "archive_command is empty: the WAL that makes a backup whole would not be stored"
                .to_owned(),
            "set archive_command = 'xdb wal-push \"%p\"' and reload PostgreSQL",
        );
    }
    if archiver.failing() {
        let last = archiver.last_failed.as_deref().unwrap_or("a segment");
        return no(
            format!("archiving fails ({last}): the backup would wait for its WAL"),
            "see PostgreSQL's log for what `xdb wal-push` said, mend that first",
        );
    }
    let foreign = catalog.backups.iter().find(|backup| {
        let written = backup
            .sentinel
            .as_ref()
            .and_then(|sentinel| sentinel.system_identifier);
        written.is_some_and(|identifier| identifier != server.system_identifier)
    });
    if let Some(foreign) = foreign {
        return no(
            format!("{repository} holds {} of another cluster", foreign.name),
            "one prefix is for one cluster: set archive.repository or cluster.name to a new one",
        );
    }
    None
}

/// Why `server` may not write base backups or delete them, and what to do: it is not the primary that the repository
/// belongs to. `remembered` is the highest timeline that this node ever knew of.
pub(super) fn judge_server(
    control: &ControlData,
    server: &Server,
    catalog: &Catalog,
    remembered: Option<Timeline>,
) -> Option<(String, String)> {
    let no = |reason: String, hint: &str| Some((reason, hint.to_owned()));
    if server.system_identifier != control.system_identifier {
        return no(
            format!(
                "the server that answers has system identifier {}, postgres.data_directory {}",
                server.system_identifier, control.system_identifier
            ),
            "postgres.host and postgres.port must lead to the server of postgres.data_directory",
        );
    }
    if server.in_recovery {
        return no(
            "this server is a standby".to_owned(),
            "base backups are taken and pruned on the primary",
        );
    }
    let newer = catalog.wal.histories.keys().next_back().copied();
    let newer = newer.max(remembered);
    if let Some(timeline) = newer.filter(|timeline| *timeline > server.timeline) {
        return no(
            format!("timeline {timeline} exists, and this server is not on it"),
            "another node was promoted: stop this server and let it rejoin as a standby",
        );
    }
    None
}

/// The backup that a delta may build on: pinned by name, so that no program picks another.
///
/// `None`, a full backup, where the newest cannot be restored or is of another timeline: its pages may be of a history
/// that was left.
pub(super) fn delta_parent<'a>(catalog: &'a Catalog, server: &Server) -> Option<&'a str> {
    let newest = catalog
        .newest()
        .filter(|newest| newest.timeline == server.timeline)?;
    catalog
        .why_unusable(newest)
        .is_none()
        .then_some(newest.name.as_str())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::catalog::Sentinel;
    use super::*;
    use crate::archive::catalog::{Backup, Stored, Wal};
    use crate::model::{SegmentSize, WalSegment};

    fn control() -> ControlData {
        ControlData {
            system_identifier: 7,
            timeline: Timeline(1),
            segment_size: SegmentSize::default(),
            checksums: true,
            limits: Vec::new(),
            wal_level: "replica".into(),
            track_commit_timestamp: false,
        }
    }

    fn server() -> Server {
        Server {
            system_identifier: 7,
            in_recovery: false,
            timeline: Timeline(1),
            version: 170_011,
            data_directory: "/data".into(),
            segment_size: SegmentSize::default(),
            wal_end: None,
            position: None,
            streaming: false,
            archive_mode: "on".into(),
            archives: true,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn catalog(backups: Vec<Backup>) -> Catalog {
        Catalog {
            backups,
            wal: Wal::default(),
        }
    }

    fn backup(timeline: u32, system_identifier: u64) -> Backup {
        let json = format!(r#"{{"LSN":40,"FinishLSN":80,"SystemIdentifier":{system_identifier}}}"#);
        Backup {
            name: format!("base_{timeline:08X}0000000000000000"),
            timeline: Timeline(timeline),
            sentinel: Some(Sentinel::parse(json.as_bytes()).unwrap()),
            damage: None,
            finished_at: Some(Timestamp::UNIX_EPOCH),
        }
    }

    fn judged(server: &Server, archiver: &Archiver, catalog: &Catalog) -> Option<String> {
        let repository = Repository {
            bucket: "b".into(),
            prefix: "p".into(),
        };
        judge_push(&control(), server, archiver, catalog, &repository).map(|(reason, _)| reason)
    }

    #[test]
    fn a_backup_is_refused_where_it_would_be_worthless() {
        let (well, empty) = (Archiver::default(), catalog(Vec::new()));
        assert_eq!(judged(&server(), &well, &empty), None);
        let failing = Archiver {
            last_failed_at: Some(Timestamp::UNIX_EPOCH),
            ..Archiver::default()
        };
        for (server, archiver, catalog, reason) in [
            (
                Server {
                    system_identifier: 8,
                    ..server()
                },
                &well,
                &empty,
                "system identifier 8",
            ),
            (
                Server {
                    in_recovery: true,
                    ..server()
                },
                &well,
                &empty,
                "standby",
            ),
            (
                Server {
                    archive_mode: "off".into(),
                    ..server()
                },
                &well,
                &empty,
                "archive_mode is off",
            ),
            (server(), &failing, &empty, "archiving fails"),
            (
                server(),
                &well,
                &catalog(vec![backup(1, 9)]),
                "another cluster",
            ),
        ] {
            let judged = judged(&server, archiver, catalog).unwrap_or_default();
            assert!(judged.contains(reason), "{judged:?} for {reason:?}");
        }
    }

    #[test]
    fn the_first_backup_on_a_timeline_is_full_and_so_is_the_one_after_a_bad_one() {
        let whole = |timeline| {
            let mut catalog = catalog(vec![backup(timeline, 7)]);
            let stored = Stored {
                size: 1,
                last_modified: Timestamp::UNIX_EPOCH,
            };
            catalog.wal.add(
                WalSegment {
                    timeline: Timeline(timeline),
                    number: 0,
                },
                stored,
            );
            catalog
        };
        assert_eq!(delta_parent(&catalog(Vec::new()), &server()), None);
        assert!(delta_parent(&whole(1), &server()).is_some());
        assert_eq!(
            delta_parent(
                &whole(1),
                &Server {
                    timeline: Timeline(2),
                    ..server()
                }
            ),
            None
        );
        // Its WAL is not there.
        assert_eq!(delta_parent(&catalog(vec![backup(1, 7)]), &server()), None);
    }
}
