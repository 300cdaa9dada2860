//! What the databases of a copy need from the node: libraries, locales, versions of collations.
//!
//! A backup contains none of them, so that a missing one is a fault of the node and never of the backup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Row;

use super::databases::{CopiedDatabase, Name, disable_foreign_servers, name_bytes};
use super::object_findings::ObjectFindings;
use crate::model::Verdict;
use crate::postgres::{Connection, PostgresError};
use crate::restore::recover::ScratchServer;

/// Limit of one query to a database of a cluster that is kept, which may have a hundred thousand tables and a cold disk.
const KEPT: Duration = Duration::from_secs(300);

/// Connects to each of `databases`, disables its foreign servers, and reports what this node lacks for it. In a cluster that
/// is kept (`is_kept`) foreign servers stay enabled.
pub(crate) async fn check_node(
    server: &ScratchServer,
    databases: &[CopiedDatabase],
    is_kept: bool,
) -> Verdict {
    let mut findings = ObjectFindings::default();
    // A test has a limit of its own, a restore for good has none.
    let limit = if is_kept { KEPT } else { Duration::ZERO };
    for database in databases {
        let mut entered = ObjectFindings::default();
        let connection = database.enter_within(server, &mut entered, limit).await;
        let Some(connection) = connection else {
            findings.remark_unchecked(entered);
            continue;
        };
        if !is_kept && let Err(error) = disable_foreign_servers(&connection).await {
            findings.check_failed(&database.name, &error);
        }
        match missing_needs(&connection).await {
            Ok(needs) => {
                for need in needs {
                    findings.remark(format!("{}: this node lacks {need}", database.name));
                }
            }
            Err(error) => findings.check_failed(&database.name, &error),
        }
    }
    findings.verdict()
}

/// What the node lacks for the database of `connection`, as nouns.
async fn missing_needs(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    let mut needs = missing_libraries(connection).await?;
    needs.extend(other_collations(connection).await?);
    Ok(needs)
}

async fn missing_libraries(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    let query = format!(
        "SELECT DISTINCT {} AS library, e.extname::text AS extension,
                (SELECT setting FROM pg_catalog.pg_config WHERE name = 'PKGLIBDIR') AS directory
           FROM pg_catalog.pg_proc AS p
           JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
           LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                                              AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
           LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
          WHERE p.probin IS NOT NULL
          ORDER BY 1",
        name_bytes("p.probin")
    );
    let what = "which libraries it needs";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let missing = |row: &Row| -> Result<Option<String>, tokio_postgres::Error> {
        let library = Name::get(row, "library")?.text;
        let extension: Option<String> = row.try_get("extension")?;
        let directory: Option<String> = row.try_get("directory")?;
        let Some(directory) = directory else {
            return Ok(None);
        };
        let is_here = candidates(&library, Path::new(&directory))
            .iter()
            .any(|path| path.exists());
        let of = extension.map_or_else(String::new, |name| format!(" of the extension {name}"));
        Ok((!is_here).then(|| format!("the library {library}{of}")))
    };
    let all: Result<Vec<_>, _> = rows.iter().map(missing).collect();
    Ok(all.map_err(failed)?.into_iter().flatten().collect())
}

/// Where PostgreSQL looks for `library` (`dynamic_library_path` is `$libdir` in a copy).
fn candidates(library: &str, directory: &Path) -> [PathBuf; 2] {
    let path = match library.strip_prefix("$libdir/") {
        Some(name) => directory.join(name),
        // An absolute path stays what it is.
        None => directory.join(library),
    };
    let with_suffix = format!("{}.so", path.display());
    [path, PathBuf::from(with_suffix)]
}

/// Collations that tables and indexes use and that are not here, or sort otherwise: an index on text is then in no order.
async fn other_collations(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    const USED: &str = "
        SELECT DISTINCT c.oid::text AS oid, pg_catalog.format('%I.%I', n.nspname, c.collname) AS name, c.collversion AS version
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid AND r.relkind IN ('r', 'm', 'p', 'i', 'I')
          JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation AND c.collprovider <> 'd'
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.collname NOT IN ('C', 'POSIX')
         ORDER BY 2";
    const DATABASE: &str = "
        SELECT datcollversion AS built, pg_catalog.pg_database_collation_actual_version(oid) AS here
          FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";
    let what = "which collations it needs";
    let failed = |error| PostgresError::Query { what, error };
    let mut needs = Vec::new();
    let row = connection.query_one(DATABASE, &[]).await.map_err(failed)?;
    let (built, here) = (
        row.try_get("built").map_err(failed)?,
        row.try_get("here").map_err(failed)?,
    );
    needs.extend(other_version("the database's collation", built, here));
    for row in connection.query(USED, &[]).await.map_err(failed)? {
        let oid: &str = row.try_get("oid").map_err(failed)?;
        let name: &str = row.try_get("name").map_err(failed)?;
        let built: Option<&str> = row.try_get("version").map_err(failed)?;
        // The first is refused where the operating system has no such locale.
        let query = format!(
            "SELECT 'a'::text COLLATE {name} < 'b'::text COLLATE {name}, pg_catalog.pg_collation_actual_version({oid}) AS here"
        );
        match connection.query_one(&query, &[]).await {
            Ok(row) => {
                let here = row.try_get("here").map_err(failed)?;
                needs.extend(other_version(&format!("the collation {name}"), built, here));
            }
            Err(error) if connection.is_closed() => return Err(failed(error)),
            Err(_) => needs.push(format!("the locale of the collation {name}")),
        }
    }
    Ok(needs)
}

fn other_version(what: &str, built: Option<&str>, here: Option<&str>) -> Option<String> {
    let (built, here) = built.zip(here).filter(|(built, here)| built != here)?;
    Some(format!(
        "version {built} of {what}: it has {here}, so indexes on text must be rebuilt here (REINDEX, then ALTER … REFRESH VERSION)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_looked_for_where_postgresql_does() {
        let directory = Path::new("/usr/lib/postgresql/17/lib");
        for (library, path) in [
            ("$libdir/hstore", "/usr/lib/postgresql/17/lib/hstore"),
            ("hstore", "/usr/lib/postgresql/17/lib/hstore"),
            ("/opt/x.so", "/opt/x.so"),
        ] {
            let [plain, suffixed] = candidates(library, directory);
            assert_eq!(plain, Path::new(path));
            assert_eq!(suffixed, PathBuf::from(format!("{path}.so")));
        }
    }

    #[test]
    fn only_a_known_other_version_is_another() {
        for (built, here, is_other) in [
            (Some("2.36"), Some("2.41"), true),
            (Some("2.41"), Some("2.41"), false),
            (None, Some("2.41"), false),
            (Some("2.41"), None, false),
        ] {
            assert_eq!(other_version("x", built, here).is_some(), is_other);
        }
    }
}
