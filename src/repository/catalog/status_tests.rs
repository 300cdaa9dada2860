//! The status of backups made by hand: a full one in segment 2, a delta of it in 4, another full one in 6.

use jiff::Timestamp;

use super::super::{Stored, StoredParts, Tested, Tests, Wal};
use super::*;
use crate::model::{Timeline, WalSegment};
use crate::storage::Object;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// 100 bytes are stored of it, as it counted.
fn backup(number: u64, extra: &str) -> Backup {
    let more = format!(r#","SystemIdentifier":7,"CompressedSize":1000{extra}"#);
    Backup {
        stored: Some(stored(800)),
        ..Backup::sample(1, number, &more)
    }
}

fn stored(bytes: u64) -> StoredParts {
    let mut stored = StoredParts::default();
    for (part, size) in [("part_001.tar.lz4", bytes), ("pg_control.tar.lz4", 200)] {
        let path = format!("tar_partitions/{part}");
        let object = Object {
            key: path.clone(),
            size,
            last_modified: at(0),
            tag: String::new(),
        };
        stored.add(&path, &object);
    }
    stored
}

fn catalog() -> Catalog {
    let mut wal = Wal::default();
    for number in 1..=9 {
        let (timeline, last_modified) = (Timeline(1), at(100));
        let stored = Stored {
            size: 100,
            last_modified,
        };
        wal.add(WalSegment { timeline, number }, stored);
    }
    let of = r#","DeltaFrom":"base_000000010000000000000002""#;
    Catalog {
        backups: vec![backup(2, ""), backup(4, of), backup(6, "")],
        wal,
    }
}

fn tested(second: i64, passed: bool) -> Tests {
    Tests {
        newest: Some(Tested {
            at: at(second),
            node: "db2".to_owned(),
            passed,
            reason: (!passed).then(|| "tables: bad page".to_owned()),
            spares_backup: false,
            damaged_wal: None,
        }),
        ..Tests::default()
    }
}

type Change = fn(&mut Catalog);

#[test]
fn one_judgement_tells_what_each_backup_is_worth() {
    use State::{Complete, Disproved, Incomplete, Left, Unusable};
    let cases: [(&str, Change, [State; 3], Option<u64>); 14] = [
        ("all is well", |_| {}, [Complete; 3], Some(6)),
        (
            "the newest is cut",
            |c| c.backups[2].stored = Some(stored(1)),
            [Complete, Complete, Unusable],
            Some(4),
        ),
        (
            "a full backup is cut",
            |c| c.backups[0].stored = Some(stored(1)),
            [Unusable, Unusable, Complete],
            Some(6),
        ),
        (
            "a sentinel is damaged",
            |c| {
                c.backups[2].sentinel = None;
                c.backups[2].damage = Some("cut".to_owned());
            },
            [Complete, Complete, Unusable],
            Some(4),
        ),
        (
            "one never finished",
            |c| {
                c.backups[2].sentinel = None;
                c.backups[2].finished_at = None;
            },
            [Complete, Complete, Incomplete],
            Some(4),
        ),
        (
            "its WAL is gone",
            |c| c.wal.runs.get_mut(&Timeline(1)).unwrap()[0].last = 5,
            [Complete, Complete, Unusable],
            Some(4),
        ),
        (
            "the newest failed its test",
            |c| c.backups[2].tests = tested(9, false),
            [Complete, Complete, Disproved],
            Some(4),
        ),
        (
            "it passed since",
            |c| c.backups[2].tests = tested(10, true),
            [Complete; 3],
            Some(6),
        ),
        (
            "the full one failed",
            |c| c.backups[0].tests = tested(9, false),
            [Disproved, Disproved, Complete],
            Some(6),
        ),
        (
            "its delta passed since",
            |c| {
                c.backups[0].tests = tested(9, false);
                c.backups[1].tests = tested(10, true);
            },
            [Disproved, Complete, Complete],
            Some(6),
        ),
        (
            "its delta had passed before",
            |c| {
                c.backups[0].tests = tested(9, false);
                c.backups[1].tests = tested(8, true);
            },
            [Disproved, Disproved, Complete],
            Some(6),
        ),
        (
            "the delta failed",
            |c| c.backups[1].tests = tested(9, false),
            [Complete, Disproved, Complete],
            Some(6),
        ),
        (
            "a test found a gap that is none any more",
            |c| {
                c.backups[2].tests = tested(9, false);
                c.backups[2].tests.newest.as_mut().unwrap().spares_backup = true;
            },
            [Complete; 3],
            Some(6),
        ),
        (
            "another node was promoted before the last two finished",
            |c| {
                let history = "1\t0/3000000\tr\n".parse().unwrap();
                c.wal.histories.insert(Timeline(2), Ok(history));
            },
            [Complete, Left, Left],
            Some(2),
        ),
    ];
    for (what, change, expected, good) in cases {
        let mut catalog = catalog();
        change(&mut catalog);
        let statuses: Vec<BackupStatus> = catalog
            .backups
            .iter()
            .map(|it| catalog.status(it))
            .collect();
        let states: Vec<State> = statuses.iter().map(|status| status.state).collect();
        assert_eq!(states, expected, "{what}: {statuses:?}");
        for status in statuses {
            assert_eq!(
                status.reason.is_none(),
                status.state == Complete,
                "{what}: {status:?}"
            );
        }
        let newest = catalog.newest_good().map(|good| good.name.clone());
        assert_eq!(
            newest,
            good.map(|number| format!("base_00000001{number:016X}")),
            "{what}"
        );
    }
}
