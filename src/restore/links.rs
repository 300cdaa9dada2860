//! Symbolic links of the backed up data directory, other than those of tablespaces.
//!
//! Neither WAL-G program stores what is behind one. walrus leaves it out; wal-g stores a link to its own name, which no
//! server can open.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Directories that PostgreSQL wants and can start without their content.
const EMPTIED: [&str; 13] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_wal/summaries",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_replslot",
    "pg_logical/snapshots",
    "pg_logical/mappings",
];

/// The links of tablespaces are judged apart.
const TABLESPACES: &str = "pg_tblspc";

/// Removes every link from a fetched data directory, so that nothing is written through one, and makes the directories
/// that PostgreSQL wants in place of missing ones. Returns the links' paths, relative to `data`.
///
/// # Errors
/// When a directory cannot be read or changed.
pub fn clear(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let relative = path.strip_prefix(data).unwrap_or(&path).to_owned();
            if kind.is_symlink() {
                fs::remove_file(&path)?;
                links.push(relative);
            } else if kind.is_dir() && relative != Path::new(TABLESPACES) {
                folders.push(path);
            }
        }
    }
    // Without it there is no data directory, and nothing to make one of.
    if data.join("PG_VERSION").is_file() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in EMPTIED {
            builder.create(data.join(name))?;
        }
    }
    links.sort();
    Ok(links)
}

/// What a person should know of `links`; `None` where there are none.
pub fn remark(links: &[PathBuf]) -> Option<String> {
    let named: Vec<_> = links.iter().map(|link| link.to_string_lossy()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "symbolic links in the old data directory, whose content no backup holds: {}",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_removed_and_what_postgresql_wants_is_made() {
        let parent = tempfile::tempdir().unwrap();
        let (data, live) = (parent.path().join("data"), parent.path().join("live"));
        for directory in [
            data.join("conf.d"),
            data.join("pg_tblspc"),
            live.join("conf"),
        ] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(data.join("PG_VERSION"), "17\n").unwrap();
        fs::write(live.join("postgresql.conf"), "port = 1").unwrap();
        // As wal-g stores them, and as they stood.
        symlink("postgresql.conf", data.join("postgresql.conf")).unwrap();
        symlink("conf.d/more.conf", data.join("conf.d/more.conf")).unwrap();
        symlink(live.join("postgresql.conf"), data.join("pg_hba.conf")).unwrap();
        symlink(live.join("conf"), data.join("pg_stat_tmp")).unwrap();
        symlink(&live, data.join("pg_tblspc/16390")).unwrap();
        let links = clear(&data).unwrap();
        let names = [
            "conf.d/more.conf",
            "pg_hba.conf",
            "pg_stat_tmp",
            "postgresql.conf",
        ];
        assert_eq!(links, names.map(PathBuf::from));
        for name in EMPTIED {
            assert!(
                data.join(name).symlink_metadata().unwrap().is_dir(),
                "{name}"
            );
        }
        assert!(data.join("pg_tblspc/16390").is_symlink());
        assert!(live.join("postgresql.conf").is_file() && live.join("conf").is_dir());
        assert!(
            remark(&links)
                .unwrap()
                .contains("conf.d/more.conf, pg_hba.conf")
        );
        assert_eq!(clear(&data).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(remark(&[]), None);
    }

    #[test]
    fn what_is_no_data_directory_stays_one() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(clear(data.path()).unwrap(), Vec::<PathBuf>::new());
        assert!(!data.path().join("pg_wal").exists());
    }
}
