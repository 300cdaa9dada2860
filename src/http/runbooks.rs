//! The runbooks, which the page shows where their alert stands: a node may not reach the place that they were written at.

/// Each by its name, as Markdown.
pub(super) static RUNBOOKS: &[(&str, &str)] = &[
    (
        "archive-backlog-age",
        include_str!("../../runbooks/archive-backlog-age.md"),
    ),
    (
        "alert-delivery",
        include_str!("../../runbooks/alert-delivery.md"),
    ),
    (
        "archive-program",
        include_str!("../../runbooks/archive-program.md"),
    ),
    ("archive-rpo", include_str!("../../runbooks/archive-rpo.md")),
    ("archiver", include_str!("../../runbooks/archiver.md")),
    (
        "backup-incomplete",
        include_str!("../../runbooks/backup-incomplete.md"),
    ),
    ("base-backup", include_str!("../../runbooks/base-backup.md")),
    (
        "base-backup-age",
        include_str!("../../runbooks/base-backup-age.md"),
    ),
    (
        "configuration",
        include_str!("../../runbooks/configuration.md"),
    ),
    (
        "disaster_restore",
        include_str!("../../runbooks/disaster_restore.md"),
    ),
    ("dump", include_str!("../../runbooks/dump.md")),
    ("dump-age", include_str!("../../runbooks/dump-age.md")),
    ("dump-prune", include_str!("../../runbooks/dump-prune.md")),
    ("dump-test", include_str!("../../runbooks/dump-test.md")),
    (
        "dump-test-age",
        include_str!("../../runbooks/dump-test-age.md"),
    ),
    (
        "dump_restore",
        include_str!("../../runbooks/dump_restore.md"),
    ),
    (
        "foreign-backup",
        include_str!("../../runbooks/foreign-backup.md"),
    ),
    ("node", include_str!("../../runbooks/node.md")),
    (
        "pgbouncer-clients-waiting",
        include_str!("../../runbooks/pgbouncer-clients-waiting.md"),
    ),
    (
        "pgbouncer-saturation",
        include_str!("../../runbooks/pgbouncer-saturation.md"),
    ),
    (
        "pgbouncer-up",
        include_str!("../../runbooks/pgbouncer-up.md"),
    ),
    (
        "postgresql-connections",
        include_str!("../../runbooks/postgresql-connections.md"),
    ),
    (
        "postgresql-up",
        include_str!("../../runbooks/postgresql-up.md"),
    ),
    ("primary", include_str!("../../runbooks/primary.md")),
    ("promote", include_str!("../../runbooks/promote.md")),
    ("prune", include_str!("../../runbooks/prune.md")),
    (
        "recoverability",
        include_str!("../../runbooks/recoverability.md"),
    ),
    ("redis", include_str!("../../runbooks/redis.md")),
    ("rejoin", include_str!("../../runbooks/rejoin.md")),
    (
        "replication-lag",
        include_str!("../../runbooks/replication-lag.md"),
    ),
    (
        "restore-objective",
        include_str!("../../runbooks/restore-objective.md"),
    ),
    (
        "restore-test",
        include_str!("../../runbooks/restore-test.md"),
    ),
    (
        "restore-test-age",
        include_str!("../../runbooks/restore-test-age.md"),
    ),
    ("s3", include_str!("../../runbooks/s3.md")),
    ("state-store", include_str!("../../runbooks/state-store.md")),
    ("wait", include_str!("../../runbooks/wait.md")),
    ("wal-gap", include_str!("../../runbooks/wal-gap.md")),
    ("wal-volume", include_str!("../../runbooks/wal-volume.md")),
];

/// The runbook of this name, or of a path such as `runbooks/s3.md`.
pub(super) fn runbook(named: &str) -> Option<(&'static str, &'static str)> {
    let name = named.strip_prefix("runbooks/").unwrap_or(named);
    let name = name.strip_suffix(".md").unwrap_or(name);
    let mut runbooks = RUNBOOKS.iter();
    runbooks.find(|(own, _)| *own == name).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_runbook_is_in_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks");
        let files = std::fs::read_dir(folder).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let own = RUNBOOKS.iter().map(|(name, _)| format!("{name}.md"));
        assert_eq!(own.collect::<BTreeSet<_>>(), files);
        assert!(runbook("runbooks/s3.md").is_some() && runbook("s3").is_some());
        assert!(runbook("/etc/passwd").is_none());
    }
}
