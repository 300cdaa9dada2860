//! The words that go into PostgreSQL's programs, and those that come out of them. Pure.

use crate::process::Finished;

/// The globals without their end: a tablespace made here could take hold of the live cluster's directories.
pub(super) fn roles_only(globals: &str) -> &str {
    let end = globals.find("\n-- Tablespaces\n");
    end.map_or(globals, |end| &globals[..end])
}

/// The first error but that `superuser`, whom initdb made, is there.
pub(super) fn why_no_roles(finished: &Finished, superuser: &str) -> Option<String> {
    let known = format!("role \"{superuser}\" already exists");
    let mut errors = finished.stderr.lines().filter_map(|line| {
        let at = ["ERROR:", "FATAL:", "error:"]
            .iter()
            .filter_map(|level| line.find(level));
        Some(&line[at.min()?..])
    });
    let first = errors.find(|error| !error.ends_with(&known));
    match first {
        Some(error) => Some(error.to_owned()),
        None if finished.status.success() => None,
        None => Some(finished.status.to_string()),
    }
}

/// Never the lines that follow it: they show the statement, and a user mapping's has a password.
pub(super) fn first_error(stderr: &str) -> Option<String> {
    let error = stderr
        .lines()
        .find_map(|line| Some(line.split_once(": error: ")?.1));
    error.map(str::to_owned)
}

pub(super) fn server_is_gone(stderr: &str) -> bool {
    const WORDS: [&str; 5] = [
        "server closed the connection",
        "terminating connection",
        "connection to server",
        "no connection to the server",
        "out of memory",
    ];
    WORDS.iter().any(|words| stderr.contains(words))
}

/// An extension, a library or a locale that is installed where the dump was made.
pub(super) fn is_missing_here(reason: &str) -> bool {
    const WORDS: [&str; 8] = [
        "is not available",
        "could not open extension control file",
        "could not access file",
        "could not load library",
        "shared_preload_libraries",
        "locale name",
        "could not create locale",
        "collator for locale",
    ];
    WORDS.iter().any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn psql(code: i32, stderr: &str) -> Finished {
        Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn tablespaces_are_cut_off_the_globals() {
        let roles = "--\n-- Roles\n--\n\nCREATE ROLE app;\n";
        let all = format!(
            "{roles}--\n-- Tablespaces\n--\n\nCREATE TABLESPACE a OWNER b LOCATION '/live';\n"
        );
        assert!(!roles_only(&all).contains("TABLESPACE"));
        assert!(roles_only(&all).contains("CREATE ROLE app;"));
        assert_eq!(roles_only(roles), roles);
    }

    #[test]
    fn only_the_role_that_initdb_made_may_be_there_already() {
        let there = "ERROR:  role \"postgres\" already exists\n";
        for (finished, reason) in [
            (psql(0, ""), None),
            (psql(0, there), None),
            (
                psql(0, &format!("{there}ERROR:  role \"app\" already exists\n")),
                Some("ERROR:  role \"app\" already exists"),
            ),
            (
                psql(2, "psql: error: connection to server failed"),
                Some("error: connection to server failed"),
            ),
            (psql(3, there), Some("exit status: 3")),
        ] {
            assert_eq!(
                why_no_roles(&finished, "postgres").as_deref(),
                reason,
                "{finished:?}"
            );
        }
    }

    #[test]
    fn a_reason_shows_no_statement() {
        let stderr = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 3456; 1417 16390 USER MAPPING USER MAPPING app SERVER far postgres\n\
            pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
            Command was: CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'secret');\n";
        assert_eq!(
            first_error(stderr).unwrap(),
            "could not execute query: ERROR:  role \"app\" does not exist"
        );
        assert_eq!(first_error("pg_restore: warning: only this"), None);
    }

    #[test]
    fn what_this_node_lacks_is_no_fault_of_the_dump() {
        for (reason, missing) in [
            (
                "could not execute query: ERROR:  extension \"postgis\" is not available",
                true,
            ),
            (
                "could not execute query: ERROR:  invalid LC_COLLATE locale name: \"xx_YY\"",
                true,
            ),
            ("could not read from input file: end of file", false),
            (
                "could not execute query: ERROR:  role \"app\" does not exist",
                false,
            ),
        ] {
            assert_eq!(is_missing_here(reason), missing, "{reason}");
        }
        assert!(server_is_gone(
            "pg_restore: error: could not execute query: server closed the connection unexpectedly"
        ));
    }
}
