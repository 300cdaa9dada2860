//! Tablespaces of a backup come back as directories in `pg_tblspc`, which PostgreSQL calls in place: where they stood, the
//! live ones stand.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::RestoreError;
use crate::archive::MAKES_TABLESPACE;
use crate::postgres::{Connection, PostgresError};
use crate::repository::Program;
use crate::repository::catalog::Tablespace;

/// What lists the tablespaces of a backup and where they stood, for the program and for PostgreSQL.
pub const MAP: &str = "tablespace_map";

/// Which program can, and how it is asked without a change of what archives.
const ELSEWHERE: &str = "wal-g reads the same repository and can restore it elsewhere: as postgres, XDB_ARCHIVE_PROGRAM=wal-g xdb …";

/// A tablespace that came back, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placed {
    pub oid: String,
    pub stood: String,
    /// The directory that holds it now.
    pub placed: PathBuf,
}

/// Whether `program` can restore `tablespaces` of a server in `live` to another place than the one that they stood in.
///
/// # Errors
/// [`RestoreError::Refused`] where it cannot.
pub fn judge(
    program: Program,
    tablespaces: &[Tablespace],
    live: &Path,
) -> Result<(), RestoreError> {
    let Some(first) = tablespaces.first() else {
        return Ok(());
    };
    if program.in_place().is_none() {
        let Tablespace { oid, location } = first;
        return Err(RestoreError::Refused {
            reason: format!("the backup holds the tablespace {oid} of {location}"),
            hint: format!(
                "{program} writes it to that place and nowhere else, over the live one's files. {ELSEWHERE}"
            ),
        });
    }
    let inside = |tablespace: &&Tablespace| Path::new(&tablespace.location).starts_with(live);
    match tablespaces.iter().find(inside) {
        Some(Tablespace { oid, location }) => Err(RestoreError::Refused {
            reason: format!(
                "the backup holds the tablespace {oid} of {location}, inside of the data directory"
            ),
            hint: "move it out: PostgreSQL warned of it when it was made, and no copy of it can be told from the rest"
                .to_owned(),
        }),
        None => Ok(()),
    }
}

/// The same of the files that a backup lists, relative to the data directory: its sentinel may not tell of tablespaces.
///
/// # Errors
/// [`RestoreError::Refused`] where it cannot.
pub fn judge_listed(program: Program, listed: &[String]) -> Result<(), RestoreError> {
    let below = |path: &String| {
        let oid = path.strip_prefix("pg_tblspc/")?.split('/').next()?;
        (!oid.is_empty()).then(|| oid.to_owned())
    };
    match listed.iter().find_map(below) {
        Some(oid) if program.in_place().is_none() => Err(RestoreError::Refused {
            reason: format!(
                "the backup holds the tablespace {oid} and does not tell where it stood"
            ),
            hint: format!("{program} could write over a live one's files. {ELSEWHERE}"),
        }),
        _ => Ok(()),
    }
}

/// PostgreSQL's own words where it may not make something in `pg_tblspc`, in its log's `reason`: which refusal that is.
pub fn refusal(reason: &str) -> Option<RestoreError> {
    let words = |of: &[&str]| of.iter().any(|words| reason.contains(words));
    if words(&[
        MAKES_TABLESPACE,
        "could not create symbolic link \"pg_tblspc/",
    ]) {
        return Some(RestoreError::Refused {
            reason: format!("the WAL makes a tablespace after the backup: {reason}"),
            hint: "replaying that here could write into the live tablespace; --until an LSN some megabytes before that segment brings back what lies before"
                .to_owned(),
        });
    }
    words(&[
        "could not create directory \"pg_tblspc/",
        "could not create missing directory \"pg_tblspc/",
    ])
    .then(|| RestoreError::Refused {
        reason: format!("a tablespace was dropped while the backup was taken: {reason}"),
        hint: "take another with `xdb backup push`, or name an older one with --backup".to_owned(),
    })
}

/// The last look before a server is started on `data`: a link there leads to live files, and nothing of `tablespaces` may
/// be missing.
///
/// # Errors
/// [`RestoreError::Refused`] when there is a link, [`RestoreError::Bad`] when one did not come.
pub fn judge_fetched(data: &Path, tablespaces: &[Tablespace]) -> Result<(), RestoreError> {
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
pub fn any(data: &Path) -> Result<bool, RestoreError> {
    Ok(!entries(data)?.is_empty())
}

/// Whether the server of `data` may link to the directories of tablespaces.
///
/// # Errors
/// When the directory of the links cannot be changed.
pub fn allow_links(data: &Path, allow: bool) -> Result<(), RestoreError> {
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
/// When the server cannot be asked.
pub async fn clear_dropped(connection: &Connection, data: &Path) -> Result<(), RestoreError> {
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
pub fn placed(data: &Path, tablespaces: &[Tablespace]) -> Vec<Placed> {
    let placed = tablespaces.iter().map(|tablespace| Placed {
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
    fn only_a_program_that_can_place_a_tablespace_is_let_at_one() {
        let listed = ["base/1/2", "pg_tblspc", "pg_tblspc/16390/PG_17_1/5/6"].map(str::to_owned);
        let live = Path::new("/live");
        for (program, can) in [(Program::WalG, true), (Program::Walrus, false)] {
            assert_eq!(judge(program, &[aside()], live).is_ok(), can);
            assert_eq!(judge_listed(program, &listed).is_ok(), can);
            judge(program, &[], live).unwrap();
            judge_listed(program, &listed[..2]).unwrap();
            assert!(judge(program, &[aside()], Path::new("/srv")).is_err());
        }
    }

    #[test]
    fn what_the_closed_folder_stopped_is_told_for_what_it_is() {
        let said = |reason: &str| refusal(reason).map(|refused| refused.to_string());
        let made = "FATAL:  could not create symbolic link \"pg_tblspc/16390\": Permission denied";
        assert!(said(made).unwrap().contains("makes a tablespace"));
        let dropped =
            "PANIC:  could not create missing directory \"pg_tblspc/16390\": Permission denied";
        assert!(said(dropped).unwrap().contains("was dropped while"));
        assert_eq!(said("FATAL:  could not open file \"base/5/1259\""), None);
    }

    #[test]
    fn no_link_to_a_tablespace_can_be_made_until_it_is_allowed() {
        let data = tempfile::tempdir().unwrap();
        // Missing, it is PostgreSQL's to complain of.
        allow_links(data.path(), false).unwrap();
        let links = data.path().join("pg_tblspc");
        fs::create_dir(&links).unwrap();
        for (allow, mode) in [(false, 0o500), (true, 0o700)] {
            allow_links(data.path(), allow).unwrap();
            let found = links.metadata().unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
    }

    #[test]
    fn a_link_and_a_tablespace_that_did_not_come_are_found() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        judge_fetched(data, &[]).unwrap();
        assert!(!any(data).unwrap());
        let error = judge_fetched(data, &[aside()]).unwrap_err();
        assert!(error.to_string().contains("nothing came of"), "{error}");
        assert_eq!(placed(data, &[aside()]), []);
        fs::create_dir_all(data.join("pg_tblspc/16390/PG_17_1")).unwrap();
        judge_fetched(data, &[aside()]).unwrap();
        assert!(any(data).unwrap());
        let at = data.join("pg_tblspc/16390");
        assert_eq!(placed(data, &[aside()])[0].placed, at);
        std::os::unix::fs::symlink("/srv/aside", data.join("pg_tblspc/7")).unwrap();
        let error = judge_fetched(data, &[aside()]).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
    }
}
