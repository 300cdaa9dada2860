//! Whether the tablespaces of a backup can be restored to another place than the one that they stood in.

use std::path::Path;

use crate::repository::Program;
use crate::repository::catalog::Tablespace;
use crate::restore::RestoreError;

/// Which program can, and how to use it without a change of the program that archives.
const ELSEWHERE: &str = "wal-g reads the same repository and can restore it elsewhere: as postgres, XDB_ARCHIVE_PROGRAM=wal-g xdb …";

/// Whether `program` can restore `tablespaces` of a server in `live` to another place than the one that they stood in.
///
/// # Errors
/// [`RestoreError::Refused`] where it cannot.
pub(crate) fn judge_tablespaces(
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

/// The same of the files that a backup lists, relative to the data directory: its sentinel may not list tablespaces.
///
/// # Errors
/// [`RestoreError::Refused`] where it cannot.
pub(crate) fn judge_listed_tablespaces(
    program: Program,
    listed: &[String],
) -> Result<(), RestoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_can_place_a_tablespace_is_let_at_one() {
        let listed = ["base/1/2", "pg_tblspc", "pg_tblspc/16390/PG_17_1/5/6"].map(str::to_owned);
        let live = Path::new("/live");
        let aside = [Tablespace {
            oid: "16390".to_owned(),
            location: "/srv/aside".to_owned(),
        }];
        for (program, can) in [(Program::WalG, true), (Program::Walrus, false)] {
            assert_eq!(judge_tablespaces(program, &aside, live).is_ok(), can);
            assert_eq!(judge_listed_tablespaces(program, &listed).is_ok(), can);
            judge_tablespaces(program, &[], live).unwrap();
            judge_listed_tablespaces(program, &listed[..2]).unwrap();
            assert!(judge_tablespaces(program, &aside, Path::new("/srv")).is_err());
        }
    }
}
