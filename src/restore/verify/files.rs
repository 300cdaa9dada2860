//! Every file that the backup says it holds is on the scratch disk, before the server starts.
//!
//! A missing relation segment passes pg_checksums, pg_amcheck, pg_dump and count(*): PostgreSQL takes the relation for shorter.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::Verdict;

/// Every path below `data`, relative to it.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn restored_files(data: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if let Ok(relative) = entry.path().strip_prefix(data) {
                found.insert(relative.to_string_lossy().into_owned());
            }
            // A link is a tablespace: not followed.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Compares what the backup lists with what is there.
pub(crate) fn judge_files(listed: &[String], found: &BTreeSet<String>) -> Verdict {
    let missing: Vec<&str> = listed
        .iter()
        .map(String::as_str)
        .filter(|path| !path.is_empty() && !found.contains(*path))
        .collect();
    match missing.as_slice() {
        [] if listed.is_empty() => {
            Verdict::Unknown("the backup does not list its files".to_owned())
        }
        [] => Verdict::Ok,
        [first, rest @ ..] => Verdict::Critical(format!(
            "the backup lists {first}, and it was not restored{}",
            if rest.is_empty() {
                String::new()
            } else {
                format!(" (and {} more)", rest.len())
            }
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_relation_segment_is_found() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("base/5")).unwrap();
        std::fs::write(data.path().join("base/5/16384"), "").unwrap();
        let found = restored_files(data.path()).unwrap();
        let listed = ["base/5".to_owned(), "base/5/16384".to_owned()];
        assert_eq!(judge_files(&listed, &found), Verdict::Ok);
        let with_segment = [listed.as_slice(), &["base/5/16384.1".to_owned()]].concat();
        assert!(
            judge_files(&with_segment, &found)
                .reason()
                .unwrap()
                .contains("base/5/16384.1")
        );
        assert_ne!(judge_files(&[], &found), Verdict::Ok);
    }
}
