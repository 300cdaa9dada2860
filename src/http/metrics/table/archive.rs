//! The archive and the restore tests.

use crate::http::metrics::family::{Family, FamilyType, Unit, counter, family, gauge};

pub(super) const RESTORE_TESTS: &[Family] = &[
    gauge(
        "proof_timestamp",
        Unit::Seconds,
        &[],
        "When the last restore test that proves a backup ended, on any node",
    ),
    gauge(
        "proof_age",
        Unit::Seconds,
        &[],
        "The age of xdb_proof_timestamp_seconds",
    ),
    gauge(
        "proof_rto",
        Unit::Seconds,
        &[],
        "The RTO that this restore test measured",
    ),
    gauge(
        "proof_rpo",
        Unit::Seconds,
        &[],
        "The RPO that this restore test measured",
    ),
    gauge(
        "proof_newest_backup",
        Unit::None,
        &[],
        "1 if the newest base backup has a restore test that passed, 0 if it has none",
    ),
    gauge(
        "restore_test_passed",
        Unit::None,
        &[],
        "1 if the last restore test passed, 0 if it did not",
    ),
    gauge(
        "restore_test_phase",
        Unit::Seconds,
        &["phase"],
        "How long each phase of the last restore test took",
    ),
    gauge(
        "restore_test_verifications",
        Unit::None,
        &["verdict"],
        "The verifications of the last restore test that ended in the verdict",
    ),
];

pub(super) const ARCHIVE: &[Family] = &[
    gauge(
        "archive_ready_files",
        Unit::None,
        &[],
        "Files of this node that wait to be archived",
    ),
    gauge(
        "archive_ready",
        Unit::Bytes,
        &[],
        "The size of the files of this node that wait to be archived",
    ),
    gauge(
        "archive_oldest_ready_age",
        Unit::Seconds,
        &[],
        "How long the oldest of these files has waited; 0 if none waits",
    ),
    gauge(
        "wal_volume_free",
        Unit::Bytes,
        &[],
        "What the server may still write to the volume of pg_wal",
    ),
    gauge(
        "wal_volume_full",
        Unit::Seconds,
        &[],
        "How long the volume of pg_wal lasts if archiving stops, at the rate of the last hour",
    ),
    family(
        "archive_push",
        Unit::Seconds,
        FamilyType::Histogram,
        &[],
        "How long PostgreSQL waited for each file that the daemon stored",
    ),
    counter(
        "archive_push_refused",
        Unit::None,
        &[],
        "Files that the daemon did not store, so that their xdb wal-push ran the program itself",
    ),
    gauge(
        "archive_segments",
        Unit::None,
        &[],
        "WAL segments in the repository",
    ),
    gauge(
        "repository",
        Unit::Bytes,
        &["kind"],
        "What the repository takes in the bucket, by kind (base-backups, wal)",
    ),
    gauge(
        "base_backups",
        Unit::None,
        &["state"],
        "Base backups in the repository by their state (complete; incomplete, unusable, disproved, left where there are any)",
    ),
    gauge(
        "base_backup_timestamp",
        Unit::Seconds,
        &[],
        "When the newest base backup finished",
    ),
    gauge(
        "base_backup_age",
        Unit::Seconds,
        &[],
        "The age of xdb_base_backup_timestamp_seconds",
    ),
    gauge(
        "dump_timestamp",
        Unit::Seconds,
        &[],
        "When the newest complete set of dumps of every database was begun; one whose dump test failed does not count",
    ),
    gauge(
        "dump_age",
        Unit::Seconds,
        &[],
        "The age of xdb_dump_timestamp_seconds",
    ),
    gauge(
        "dump",
        Unit::Bytes,
        &[],
        "The size of the last dump that succeeded",
    ),
];
