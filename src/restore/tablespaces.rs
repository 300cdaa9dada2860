//! Tablespaces of a backup come back as directories in `pg_tblspc`, which PostgreSQL calls in place: where they stood, the
//! live ones stand.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::RestoreError;
use crate::archive::Program;
use crate::archive::catalog::Tablespace;

/// What lists the tablespaces of a backup and where they stood, for the program and for PostgreSQL.
pub const MAP: &str = "tablespace_map";

/// A tablespace that came back, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placed {
    pub oid: String,
    pub stood: String,
    /// The directory that holds it now.
    pub placed: PathBuf,
}

/// Whether `program` can restore `tablespaces` to another place than the one that they stood in.
///
/// # Errors
/// [`RestoreError::Refused`] where it cannot.
pub fn judge(program: Program, tablespaces: &[Tablespace]) -> Result<(), RestoreError> {
    let first = tablespaces.first();
    match first.filter(|_| program.in_place().is_none()) {
        Some(first) => Err(refuse(program, &first.oid, &first.location)),
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
        Some(oid) if program.in_place().is_none() => Err(refuse(program, &oid, "an unknown place")),
        _ => Ok(()),
    }
}

fn refuse(program: Program, oid: &str, location: &str) -> RestoreError {
    RestoreError::Refused {
        reason: format!("the backup holds the tablespace {oid} of {location}"),
        hint: format!(
            "{program} writes it to that place and nowhere else, over the live one's files; wal-g reads the same repository and can \
             restore it elsewhere: name it as archive.program"
        ),
    }
}

/// Of a tablespace that the WAL makes; `reason` tells where.
pub fn refuse_new(reason: &str) -> RestoreError {
    RestoreError::Refused {
        reason: format!("the WAL makes a tablespace after the backup: {reason}"),
        hint: "replaying that here could write into the live tablespace; --until an LSN some megabytes before that segment brings back what lies before"
            .to_owned(),
    }
}

/// The last look before a server is started on `data`: a link there leads to live files. Returns how many directories there are.
///
/// # Errors
/// When there is a link.
pub fn refuse_links(data: &Path) -> Result<usize, RestoreError> {
    let mut directories = 0;
    for entry in fs::read_dir(folder(data)).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|found| found.is_dir()) {
            return Err(RestoreError::Refused {
                reason: format!("{} is no directory", entry.path().display()),
                hint: "what was fetched could lead to the files of a live tablespace".to_owned(),
            });
        }
        directories += 1;
    }
    Ok(directories)
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

/// Takes away what is left of tablespaces that the WAL dropped: the replay may not, and pg_checksums stumbles over it.
pub fn clear_dropped(data: &Path) {
    for entry in fs::read_dir(folder(data)).into_iter().flatten().flatten() {
        // Only an empty one goes.
        let _ = fs::remove_dir(entry.path());
    }
}

/// Those of `tablespaces` that a directory in `data` holds.
pub fn placed(data: &Path, tablespaces: &[Tablespace]) -> Vec<Placed> {
    let placed = tablespaces.iter().map(|tablespace| Placed {
        placed: folder(data).join(&tablespace.oid),
        oid: tablespace.oid.clone(),
        stood: tablespace.location.clone(),
    });
    placed.filter(|placed| placed.placed.is_dir()).collect()
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
        for (program, can) in [(Program::WalG, true), (Program::Walrus, false)] {
            assert_eq!(judge(program, &[aside()]).is_ok(), can);
            assert_eq!(judge_listed(program, &listed).is_ok(), can);
            judge(program, &[]).unwrap();
            judge_listed(program, &listed[..2]).unwrap();
        }
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
    fn directories_are_restored_tablespaces_and_links_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(refuse_links(data).unwrap(), 0);
        fs::create_dir_all(data.join("pg_tblspc/16390/PG_17_1")).unwrap();
        fs::create_dir_all(data.join("pg_tblspc/16391")).unwrap();
        assert_eq!(refuse_links(data).unwrap(), 2);
        clear_dropped(data);
        assert_eq!(refuse_links(data).unwrap(), 1);
        let [placed] = &placed(data, &[aside()])[..] else {
            panic!("not one");
        };
        assert_eq!(placed.placed, data.join("pg_tblspc/16390"));
        std::os::unix::fs::symlink("/srv/aside", data.join("pg_tblspc/7")).unwrap();
        assert!(
            refuse_links(data)
                .unwrap_err()
                .to_string()
                .contains("no directory")
        );
    }
}
