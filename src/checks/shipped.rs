//! The definitions that come with xdb, compiled in.

/// Name and text of each file in `checks/`.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    (
        "archive-backlog-age",
        include_str!("../../checks/archive-backlog-age.toml"),
    ),
    (
        "archive-program",
        include_str!("../../checks/archive-program.toml"),
    ),
    ("archiver", include_str!("../../checks/archiver.toml")),
    (
        "base-backup-age",
        include_str!("../../checks/base-backup-age.toml"),
    ),
    (
        "configuration",
        include_str!("../../checks/configuration.toml"),
    ),
    ("dump-age", include_str!("../../checks/dump-age.toml")),
    (
        "dump-test-age",
        include_str!("../../checks/dump-test-age.toml"),
    ),
    (
        "pgbouncer-clients-waiting",
        include_str!("../../checks/pgbouncer-clients-waiting.toml"),
    ),
    (
        "pgbouncer-saturation",
        include_str!("../../checks/pgbouncer-saturation.toml"),
    ),
    (
        "pgbouncer-up",
        include_str!("../../checks/pgbouncer-up.toml"),
    ),
    (
        "postgresql-connections",
        include_str!("../../checks/postgresql-connections.toml"),
    ),
    (
        "postgresql-up",
        include_str!("../../checks/postgresql-up.toml"),
    ),
    (
        "replication-lag",
        include_str!("../../checks/replication-lag.toml"),
    ),
    (
        "restore-test-age",
        include_str!("../../checks/restore-test-age.toml"),
    ),
    ("wal-volume", include_str!("../../checks/wal-volume.toml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::super::parse::parse;
    use super::*;

    fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let paths = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_file_in_checks_is_compiled_in_and_parses() {
        let shipped: BTreeSet<_> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(shipped, stems("checks", "toml"));
        for (name, text) in SHIPPED {
            let definition = parse(name, name, text).unwrap_or_else(|error| panic!("{error}"));
            let runbook = format!("runbooks/{name}.md");
            assert_eq!(definition.runbook, Some(runbook));
        }
    }

    #[test]
    fn every_check_has_its_runbook_and_every_runbook_its_four_parts() {
        let runbooks = stems("runbooks", "md");
        for (name, _) in SHIPPED {
            assert!(runbooks.contains(*name), "runbooks/{name}.md is missing");
        }
        for name in runbooks {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("runbooks/{name}.md"));
            let text = fs::read_to_string(path).unwrap();
            let parts: Vec<_> = text.split("\n## ").skip(1).collect();
            let headings: Vec<_> = parts
                .iter()
                .map(|part| part.lines().next().unwrap())
                .collect();
            assert_eq!(
                headings,
                ["Meaning", "Impact", "Diagnosis", "Mitigation"],
                "runbooks/{name}.md"
            );
            assert!(
                parts
                    .iter()
                    .all(|part| part.lines().skip(1).any(|line| !line.is_empty())),
                "runbooks/{name}.md has an empty part"
            );
        }
    }
}
