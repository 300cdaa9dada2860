//! Whether a base backup may be taken, on what it may build, and whether it counts. Pure.

use crate::model::Supersession;
use crate::postgres::{Archiver, ControlData, ServerIdentity};
use crate::repository::catalog::{Backup, Catalog};
use crate::storage::Location;

/// Why no backup should be taken now, and what to do; `None` when all is well.
pub(in crate::archive) fn judge_push(
    control: &ControlData,
    server: &ServerIdentity,
    archiver: &Archiver,
    (catalog, newer): (&Catalog, Option<&Supersession>),
    repository: &Location,
) -> Option<(String, String)> {
    let no = |reason: String, hint: &str| Some((reason, hint.to_owned()));
    let refused = judge_server(control, server, newer);
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
/// belongs to. `newer` proves that another node was promoted.
pub(in crate::archive) fn judge_server(
    control: &ControlData,
    server: &ServerIdentity,
    newer: Option<&Supersession>,
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
    if let Some(newer) = newer {
        return no(
            format!(
                "timeline {} exists, and this server is not on it",
                newer.timeline
            ),
            "another node was promoted: stop this server and let it rejoin as a standby",
        );
    }
    None
}

/// The backup that a delta may build on: pinned by name, so that no program picks another.
///
/// `None`, a full backup, after `max_steps` deltas, and where the newest cannot be restored or is of another timeline:
/// its pages may be of a history that was left. Both programs build nothing on a permanent one either.
pub(in crate::archive) fn delta_parent<'a>(
    catalog: &'a Catalog,
    server: &ServerIdentity,
    max_steps: u32,
) -> Option<&'a Backup> {
    let newest = catalog.newest()?;
    let sentinel = newest.sentinel.as_ref()?;
    let step = sentinel.delta.as_ref().map_or(0, |delta| delta.count) + 1;
    let builds = step <= max_steps
        && newest.timeline == server.timeline
        && !sentinel.permanent
        && catalog.why_no_way(newest).is_none();
    builds.then_some(newest)
}

/// Why what was pushed does not count: the server that answers afterwards is not what it was before.
pub(in crate::archive) fn judge_change(
    before: &ServerIdentity,
    after: &ServerIdentity,
) -> Option<String> {
    if after.system_identifier != before.system_identifier {
        return Some(format!(
            "the server that answers has system identifier {}, and had {} when the backup began",
            after.system_identifier, before.system_identifier
        ));
    }
    if after.in_recovery {
        return Some("this server became a standby during the backup".to_owned());
    }
    (after.timeline != before.timeline).then(|| {
        format!(
            "this server went from timeline {} to {} during the backup",
            before.timeline, after.timeline
        )
    })
}

/// Why a backup does not count that was taken while another node was promoted.
pub(in crate::archive) fn judge_promotion(newer: &Supersession) -> String {
    format!(
        "timeline {} began during the backup, and this server is not on it",
        newer.timeline
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{SegmentSize, Timeline, WalSegment};
    use crate::repository::catalog::{Delta, Stored, Wal};

    fn control() -> ControlData {
        ControlData {
            system_identifier: 7,
            timeline: Timeline(1),
            segment_size: SegmentSize::default(),
            checksums: true,
            limits: Vec::new(),
            wal_level: "replica".into(),
            track_commit_timestamp: false,
            ended_before: 3,
        }
    }

    fn server() -> ServerIdentity {
        ServerIdentity {
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
        let identifier = format!(r#","SystemIdentifier":{system_identifier}"#);
        Backup::sample(timeline, 0, &identifier)
    }

    fn judged(server: &ServerIdentity, archiver: &Archiver, catalog: &Catalog) -> Option<String> {
        let repository = Location {
            bucket: "b".into(),
            prefix: "p".into(),
        };
        let seen = (catalog, None);
        judge_push(&control(), server, archiver, seen, &repository).map(|(reason, _)| reason)
    }

    #[test]
    fn a_server_that_another_one_superseded_writes_no_backups() {
        let newer = Supersession {
            system_identifier: 7,
            timeline: Timeline(2),
            history: "1\t0/3000000\tr\n".parse().unwrap(),
            proven_by: "000000020000000000000003".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(judge_server(&control(), &server(), None), None);
        let (reason, _) = judge_server(&control(), &server(), Some(&newer)).unwrap();
        assert!(reason.contains("timeline 2 exists"), "{reason}");
        let reason = judge_promotion(&newer);
        assert!(reason.contains("timeline 2 began"), "{reason}");
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
                ServerIdentity {
                    system_identifier: 8,
                    ..server()
                },
                &well,
                &empty,
                "system identifier 8",
            ),
            (
                ServerIdentity {
                    in_recovery: true,
                    ..server()
                },
                &well,
                &empty,
                "standby",
            ),
            (
                ServerIdentity {
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

    /// A backup of timeline 1 that can be restored: with `deltas` before it.
    fn whole(deltas: u32, permanent: bool) -> Catalog {
        let mut catalog = catalog(vec![backup(1, 7)]);
        let stored = Stored {
            size: 1,
            last_modified: Timestamp::UNIX_EPOCH,
        };
        catalog.wal.add(
            WalSegment {
                timeline: Timeline(1),
                number: 0,
            },
            stored,
        );
        for count in 1..=deltas {
            let mut delta = backup(1, 7);
            let parent = catalog.backups[catalog.backups.len() - 1].name.clone();
            delta.name = format!("base_{count:024X}_D_x");
            delta.finished_at = Some(Timestamp::from_second(i64::from(count)).unwrap());
            let sentinel = delta.sentinel.as_mut().unwrap();
            sentinel.delta = Some(Delta {
                from: parent,
                full: catalog.backups[0].name.clone(),
                count,
            });
            catalog.backups.push(delta);
        }
        let newest = catalog.backups.last_mut().unwrap();
        newest.sentinel.as_mut().unwrap().permanent = permanent;
        catalog
    }

    #[test]
    fn a_delta_builds_on_a_whole_backup_of_the_same_timeline_and_only_so_many_times() {
        let promoted = ServerIdentity {
            timeline: Timeline(2),
            ..server()
        };
        // Its parent is gone.
        let mut cut_off = whole(1, false);
        cut_off.backups.remove(0);
        for (what, catalog, server, max_steps, builds) in [
            ("the first", catalog(Vec::new()), server(), 6, false),
            ("after a full", whole(0, false), server(), 6, true),
            ("deltas are off", whole(0, false), server(), 0, false),
            ("one more", whole(1, false), server(), 2, true),
            ("enough of them", whole(2, false), server(), 2, false),
            ("a new timeline", whole(0, false), promoted, 6, false),
            ("a permanent one", whole(0, true), server(), 6, false),
            (
                "without WAL",
                catalog(vec![backup(1, 7)]),
                server(),
                6,
                false,
            ),
            ("without parent", cut_off, server(), 6, false),
        ] {
            let parent = delta_parent(&catalog, &server, max_steps);
            assert_eq!(parent.is_some(), builds, "{what}");
        }
    }

    #[test]
    fn a_backup_counts_only_when_the_server_is_what_it_was() {
        assert_eq!(judge_change(&server(), &server()), None);
        for (after, words) in [
            (
                ServerIdentity {
                    system_identifier: 8,
                    ..server()
                },
                "system identifier 8",
            ),
            (
                ServerIdentity {
                    in_recovery: true,
                    ..server()
                },
                "became a standby",
            ),
            (
                ServerIdentity {
                    timeline: Timeline(2),
                    ..server()
                },
                "from timeline 1 to 2",
            ),
        ] {
            let judged = judge_change(&server(), &after).unwrap_or_default();
            assert!(judged.contains(words), "{judged:?}");
        }
    }
}
