//! Symbolic links in the data directory, which no WAL-G program follows but those of tablespaces: what is behind one is in
//! no backup.

use crate::repository::RepositoryError;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A link, relative to the data directory, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataLink {
    pub path: PathBuf,
    pub target: PathBuf,
}

impl fmt::Display for DataLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = format!("{} -> {}", self.path.display(), self.target.display());
        // A name may hold anything, and this is printed on a terminal.
        shown.chars().try_for_each(|character| match character {
            control if control.is_control() => write!(f, "{}", control.escape_default()),
            other => write!(f, "{other}"),
        })
    }
}

/// Links of tablespaces are followed.
const FOLLOWED: &str = "pg_tblspc";
/// Without what is below these a cluster is lost. The content of `pg_subtrans`, `pg_replslot` and their kind is in no base
/// backup at all: a server starts without it.
const DATA: [&str; 8] = [
    "base",
    "global",
    "pg_xact",
    "pg_multixact",
    "pg_commit_ts",
    "pg_twophase",
    "pg_tblspc",
    "PG_VERSION",
];
/// The progress of subscriptions is a file in it; the directories beside that belong to slots.
const ORIGINS: [&str; 2] = ["pg_logical", "pg_logical/replorigin_checkpoint"];

impl DataLink {
    /// Whether a cluster without what is behind the link lacks data.
    pub fn is_data(&self) -> bool {
        DATA.iter().any(|name| self.path.starts_with(name))
            || ORIGINS.iter().any(|name| self.path == Path::new(name))
    }
}

/// Finds every link below `data` that a backup leaves out.
///
/// # Errors
/// When a directory cannot be read; one that is removed meanwhile holds none.
pub fn data_links(data: &Path) -> io::Result<Vec<DataLink>> {
    let mut links = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != data => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let relative = path.strip_prefix(data).unwrap_or(&path).to_owned();
            if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                links.push(DataLink {
                    path: relative,
                    target,
                });
            } else if kind.is_dir() && relative != Path::new(FOLLOWED) {
                folders.push(path);
            }
        }
    }
    links.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(links)
}

/// Whether a backup without what is behind `links` is one.
///
/// # Errors
/// [`RepositoryError::Refused`] where data is behind one of them.
pub(crate) fn judge_links(links: &[DataLink]) -> Result<(), RepositoryError> {
    match links.iter().find(|link| link.is_data()) {
        Some(link) => Err(RepositoryError::Refused {
            reason: format!(
                "the data directory holds a symbolic link: {link}; the backup would lack the data behind it"
            ),
            hint: "move the data back into the data directory, or into a tablespace".to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_found_and_only_those_to_data_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let at = |path: &str| data.path().join(path);
        for directory in ["base/5", "conf.d", "pg_tblspc"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for (path, target) in [
            ("conf.d/more.conf", "/etc/more.conf"),
            ("log", "/var/log/postgresql"),
            ("pg_tblspc/16390", "/srv/aside"),
            ("pg_wal", "/wal"),
            ("postgresql.conf", "/etc/postgresql.conf"),
        ] {
            symlink(target, at(path)).unwrap();
        }
        let links = data_links(data.path()).unwrap();
        let shown: Vec<String> = links.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "conf.d/more.conf -> /etc/more.conf",
                "log -> /var/log/postgresql",
                "pg_wal -> /wal",
                "postgresql.conf -> /etc/postgresql.conf",
            ]
        );
        judge_links(&links).unwrap();
        symlink("/big/16384", at("base/16384")).unwrap();
        let refused = judge_links(&data_links(data.path()).unwrap()).unwrap_err();
        assert!(
            refused.to_string().contains("base/16384 -> /big/16384"),
            "{refused}"
        );
    }

    #[test]
    fn data_is_what_no_server_creates_again() {
        for (path, expected) in [
            ("base", true),
            ("base/5/16384", true),
            ("global", true),
            ("global/pg_control", true),
            ("pg_xact", true),
            ("pg_multixact/offsets", true),
            ("pg_commit_ts", true),
            ("pg_twophase", true),
            ("pg_tblspc", true),
            ("pg_logical", true),
            ("pg_logical/replorigin_checkpoint", true),
            ("pg_logical/snapshots", false),
            ("pg_wal", false),
            ("pg_subtrans", false),
            ("pg_replslot", false),
            ("pg_stat", false),
            ("log", false),
            ("postgresql.conf", false),
        ] {
            let link = DataLink {
                path: path.into(),
                target: "/elsewhere".into(),
            };
            assert_eq!(link.is_data(), expected, "{path}");
        }
    }
}
