//! Symbolic links of the backed up data directory, other than those of tablespaces.
//!
//! No WAL-G program stores the content behind a link. walrus leaves the link out; wal-g stores a link to its own name,
//! which no server can open.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::archive::DataLink;
use crate::archive::backup::data_links;
use crate::model::Verdict;

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

/// Removes every link but those of tablespaces from a fetched data directory, so that nothing is written through one, and
/// makes the directories that PostgreSQL wants in place of missing ones. Returns the removed links.
///
/// # Errors
/// When a directory cannot be read or changed.
pub(crate) fn clear_links(data: &Path) -> io::Result<Vec<DataLink>> {
    let links = data_links(data)?;
    for link in &links {
        fs::remove_file(data.join(&link.path))?;
    }
    // Without this file it is no data directory.
    if data.join("PG_VERSION").is_file() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in EMPTIED {
            builder.create(data.join(name))?;
        }
    }
    Ok(links)
}

/// What the cluster lacks without what was behind the removed `links`. Where they led is in the old data directory alone: a
/// backup may hold a link to its own name.
pub(crate) fn judge_links(links: &[DataLink]) -> Verdict {
    let named = |links: &[&DataLink]| {
        let named: Vec<_> = links
            .iter()
            .map(|link| link.path.to_string_lossy())
            .collect();
        named.join(", ")
    };
    let (data, others): (Vec<_>, Vec<_>) = links.iter().partition(|link| link.is_data());
    let others = (!others.is_empty()).then(|| {
        format!(
            "symbolic links in the old data directory, whose content no backup holds: {}",
            named(&others)
        )
    });
    if data.is_empty() {
        return others.map_or(Verdict::Ok, Verdict::Warning);
    }
    let lost = format!(
        "data is missing: it was behind symbolic links in the old data directory, and no backup holds it: {}",
        named(&data)
    );
    let reasons: Vec<String> = [Some(lost), others].into_iter().flatten().collect();
    Verdict::Critical(reasons.join("; "))
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
        let links = clear_links(&data).unwrap();
        let paths: Vec<_> = links
            .iter()
            .map(|link| link.path.to_string_lossy())
            .collect();
        let names = [
            "conf.d/more.conf",
            "pg_hba.conf",
            "pg_stat_tmp",
            "postgresql.conf",
        ];
        assert_eq!(paths, names);
        for name in EMPTIED {
            assert!(
                data.join(name).symlink_metadata().unwrap().is_dir(),
                "{name}"
            );
        }
        assert!(data.join("pg_tblspc/16390").is_symlink());
        assert!(live.join("postgresql.conf").is_file() && live.join("conf").is_dir());
        let Verdict::Warning(remark) = judge_links(&links) else {
            panic!("{:?}", judge_links(&links));
        };
        assert!(remark.contains("conf.d/more.conf, pg_hba.conf"), "{remark}");
        assert_eq!(clear_links(&data).unwrap(), []);
        assert_eq!(judge_links(&[]), Verdict::Ok);
    }

    #[test]
    fn a_link_to_data_is_a_loss_and_no_remark() {
        let links = ["base/16384", "log", "pg_xact"].map(|path| DataLink {
            path: path.into(),
            target: "/big".into(),
        });
        let Verdict::Critical(reason) = judge_links(&links) else {
            panic!("{:?}", judge_links(&links));
        };
        assert!(reason.contains("base/16384, pg_xact; "), "{reason}");
        assert!(reason.ends_with(": log"), "{reason}");
    }

    #[test]
    fn what_is_no_data_directory_stays_one() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(clear_links(data.path()).unwrap(), []);
        assert!(!data.path().join("pg_wal").exists());
    }
}
