//! Tablespaces of a backup come back as directories in `pg_tblspc`, which PostgreSQL calls in place: where they stood, the
//! live ones stand.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::postgres::{Connection, PostgresError};
use crate::repository::catalog::Tablespace;
use crate::restore::RestoreError;

/// What lists the tablespaces of a backup and where they stood, for the program and for PostgreSQL.
pub(crate) const TABLESPACE_MAP: &str = "tablespace_map";

/// A tablespace that was restored, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlacedTablespace {
    pub oid: String,
    pub stood: String,
    /// The directory that holds it now.
    pub placed: PathBuf,
}

/// The last look before a server is started on `data`: a link there leads to live files, and nothing of `tablespaces` may
/// be missing.
///
/// # Errors
/// [`RestoreError::Refused`] when there is a link, [`RestoreError::Bad`] when one did not come.
pub(crate) fn check_fetched_tablespaces(
    data: &Path,
    tablespaces: &[Tablespace],
) -> Result<(), RestoreError> {
    let found = entries(data)?;
    if let Some(link) = found.iter().find(|entry| !is_directory(entry)) {
        return Err(RestoreError::Refused {
            reason: format!(
                "{} was fetched and is no directory: it could lead to a live tablespace",
                link.path().display()
            ),
            hint: "restore another backup with --backup, or take one with `xdb backup push`"
                .to_owned(),
        });
    }
    let came = |tablespace: &&Tablespace| folder(data).join(&tablespace.oid).is_dir();
    match tablespaces.iter().find(|tablespace| !came(tablespace)) {
        Some(Tablespace { oid, location }) => Err(RestoreError::Bad(format!(
            "nothing came of the tablespace {oid} of {location}: the program stores none where that is a link itself"
        ))),
        None => Ok(()),
    }
}

/// Whether `data` holds any.
///
/// # Errors
/// When that cannot be read.
pub(crate) fn has_tablespaces(data: &Path) -> Result<bool, RestoreError> {
    Ok(!entries(data)?.is_empty())
}

/// Whether the server of `data` may link to the directories of tablespaces.
///
/// # Errors
/// When the directory of the links cannot be changed.
pub(crate) fn allow_tablespace_links(data: &Path, allow: bool) -> Result<(), RestoreError> {
    let mode = if allow { 0o700 } else { 0o500 };
    match fs::set_permissions(folder(data), fs::Permissions::from_mode(mode)) {
        // A backup without it is for PostgreSQL to judge.
        Err(source) if source.kind() != ErrorKind::NotFound => Err(RestoreError::File {
            operation: "change",
            path: folder(data),
            source,
        }),
        _ => Ok(()),
    }
}

/// Takes away what is left in `data` of tablespaces that the server of `connection` does not know any more: dropped between a
/// full backup and its delta, or in the WAL. pg_checksums stumbles over one, and so does a replica.
///
/// # Errors
/// When the server cannot be queried.
pub(crate) async fn remove_dropped_tablespaces(
    connection: &Connection,
    data: &Path,
) -> Result<(), RestoreError> {
    let found = entries(data)?;
    if found.is_empty() {
        return Ok(());
    }
    let what = "which tablespaces there are";
    let rows = connection
        .query("SELECT oid::text FROM pg_catalog.pg_tablespace", &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let known = rows.iter().map(|row| row.try_get(0));
    let known: Vec<String> = known
        .collect::<Result<_, _>>()
        .map_err(|_| PostgresError::Answer { what })?;
    for entry in found {
        let name = entry.file_name();
        if is_directory(&entry) && !known.iter().any(|oid| name == oid.as_str()) {
            fs::remove_dir_all(entry.path()).map_err(|source| RestoreError::File {
                operation: "remove",
                path: entry.path(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Those of `tablespaces` that a directory in `data` holds: the WAL may have dropped one.
pub(crate) fn placed_tablespaces(data: &Path, tablespaces: &[Tablespace]) -> Vec<PlacedTablespace> {
    let placed = tablespaces.iter().map(|tablespace| PlacedTablespace {
        placed: folder(data).join(&tablespace.oid),
        oid: tablespace.oid.clone(),
        stood: tablespace.location.clone(),
    });
    placed.filter(|placed| placed.placed.is_dir()).collect()
}

fn entries(data: &Path) -> Result<Vec<DirEntry>, RestoreError> {
    let failed = |source| RestoreError::File {
        operation: "read",
        path: folder(data),
        source,
    };
    match fs::read_dir(folder(data)) {
        // As above.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        found => found.and_then(Iterator::collect).map_err(failed),
    }
}

/// A link is no directory here.
fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|found| found.is_dir())
}

fn folder(data: &Path) -> PathBuf {
    data.join("pg_tblspc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside() -> Tablespace {
        Tablespace {
            oid: "16390".to_owned(),
            location: "/srv/aside".to_owned(),
        }
    }

    #[test]
    fn no_link_to_a_tablespace_can_be_made_until_it_is_allowed() {
        let data = tempfile::tempdir().unwrap();
        // Missing, it is PostgreSQL's to complain of.
        allow_tablespace_links(data.path(), false).unwrap();
        let links = data.path().join("pg_tblspc");
        fs::create_dir(&links).unwrap();
        for (allow, mode) in [(false, 0o500), (true, 0o700)] {
            allow_tablespace_links(data.path(), allow).unwrap();
            let found = links.metadata().unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
    }

    #[test]
    fn a_link_and_a_tablespace_that_did_not_come_are_found() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        check_fetched_tablespaces(data, &[]).unwrap();
        assert!(!has_tablespaces(data).unwrap());
        let error = check_fetched_tablespaces(data, &[aside()]).unwrap_err();
        assert!(error.to_string().contains("nothing came of"), "{error}");
        assert_eq!(placed_tablespaces(data, &[aside()]), []);
        fs::create_dir_all(data.join("pg_tblspc/16390/PG_17_1")).unwrap();
        check_fetched_tablespaces(data, &[aside()]).unwrap();
        assert!(has_tablespaces(data).unwrap());
        let at = data.join("pg_tblspc/16390");
        assert_eq!(placed_tablespaces(data, &[aside()])[0].placed, at);
        std::os::unix::fs::symlink("/srv/aside", data.join("pg_tblspc/7")).unwrap();
        let error = check_fetched_tablespaces(data, &[aside()]).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
    }
}
