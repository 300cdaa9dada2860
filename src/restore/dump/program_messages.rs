//! The globals for `psql`, and the messages of `psql` and `pg_restore`. Pure.

use crate::process::Finished;

/// The globals without their tablespaces, which could use directories of the live cluster.
pub(super) fn roles_only(globals: &str) -> &str {
    let end = globals.find("\n-- Tablespaces\n");
    end.map_or(globals, |end| &globals[..end])
}

/// The first error, other than that `superuser`, which initdb made, exists.
pub(super) fn roles_error(finished: &Finished, superuser: &str) -> Option<String> {
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

/// The errors of `pg_restore`, read line by line.
///
/// `pg_restore` continues after an error: a materialized view that reads another server cannot be filled, and is no fault of the dump.
#[derive(Debug, Default)]
pub(super) struct ProgramErrors {
    /// The last error, until its statement is known.
    last: Option<String>,
    /// The first error of another kind. Never the lines that follow it: they show the statement, and a user mapping's has
    /// a password.
    error: Option<String>,
    /// Views that were not filled.
    not_filled: Vec<String>,
}

impl ProgramErrors {
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((_, error)) = line.split_once(": error: ") {
            self.judge_last(None);
            self.last = Some(error.to_owned());
        } else if let Some(view) = line.strip_prefix("Command was: REFRESH MATERIALIZED VIEW ") {
            self.judge_last(Some(view.trim_end_matches(';')));
        }
    }

    /// The first error that is not about an unfilled view, and these views.
    pub(crate) fn judge(mut self) -> (Option<String>, Vec<String>) {
        self.judge_last(None);
        (self.error, self.not_filled)
    }

    fn judge_last(&mut self, view: Option<&str>) {
        let Some(error) = self.last.take() else {
            return;
        };
        let of_another = !self.not_filled.is_empty() && error.contains("has not been populated");
        match view {
            Some(view) if is_out_of_reach(&error) || of_another => {
                self.not_filled.push(view.to_owned());
            }
            _ => {
                self.error.get_or_insert(error);
            }
        }
    }
}

/// Whether an error is about another server, which the scratch server cannot reach.
pub(super) fn is_out_of_reach(reason: &str) -> bool {
    const WORDS: [&str; 4] = [
        "access to non-system foreign table",
        "Network is unreachable",
        "could not connect to server",
        "could not establish connection",
    ];
    WORDS.iter().any(|words| reason.contains(words))
}

/// Whether the scratch server ended, or ended a session.
pub(super) fn server_is_gone(stderr: &str) -> bool {
    const WORDS: [&str; 4] = [
        "server closed the connection",
        "terminating connection",
        "no connection to the server",
        "out of memory",
    ];
    WORDS.iter().any(|words| stderr.contains(words))
}

/// Whether a connection was refused: by the scratch server, or by another one that a function dialled.
pub(super) fn no_connection(stderr: &str) -> bool {
    stderr.contains("connection to server")
}

/// Whether an error is about an extension, a library, a setting or a locale that this node lacks.
pub(super) fn is_missing_here(reason: &str) -> bool {
    const WORDS: [&str; 16] = [
        "is not available",
        "must be preloaded",
        "must be loaded via",
        // The scratch server starts none.
        "background worker",
        "max_worker_processes",
        "could not open extension control file",
        "could not access file",
        "could not load library",
        "could not find function",
        "shared_preload_libraries",
        "unrecognized configuration parameter",
        "can only create extension in database",
        "locale name",
        "could not create locale",
        "could not open collator",
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
                roles_error(&finished, "postgres").as_deref(),
                reason,
                "{finished:?}"
            );
        }
    }

    fn complaints(lines: &str) -> (Option<String>, Vec<String>) {
        let mut complaints = ProgramErrors::default();
        lines.lines().for_each(|line| complaints.read(line));
        complaints.judge()
    }

    #[test]
    fn a_reason_shows_no_statement() {
        let stderr = "pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
            Command was: CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'secret');\n\
            pg_restore: error: could not execute query: ERROR:  server \"far\" does not exist\n";
        assert_eq!(
            complaints(stderr).0.unwrap(),
            "could not execute query: ERROR:  role \"app\" does not exist"
        );
        let warning = "pg_restore: warning: only this";
        assert_eq!(complaints(warning), (None, Vec::new()));
    }

    #[test]
    fn a_view_that_reads_another_server_hides_no_other_error() {
        let far = "pg_restore: error: could not execute query: ERROR:  access to non-system foreign table \"t\" is restricted\n\
            Command was: REFRESH MATERIALIZED VIEW public.\"far view\";\n\n\n\
            pg_restore: error: could not execute query: ERROR:  materialized view \"far view\" has not been populated\n\
            HINT:  Use the REFRESH MATERIALIZED VIEW command.\n\
            Command was: REFRESH MATERIALIZED VIEW public.on_far;\n\n\n\
            pg_restore: error: could not execute query: ERROR:  could not establish connection\n\
            DETAIL:  connection to server on socket \"/s\" failed: Network is unreachable\n\
            Command was: REFRESH MATERIALIZED VIEW public.dialled;\n\n\n\
            pg_restore: warning: errors ignored on restore: 3\n";
        let views = ["public.\"far view\"", "public.on_far", "public.dialled"];
        let (error, not_filled) = complaints(far);
        assert_eq!((error, not_filled), (None, views.map(str::to_owned).into()));
        let divided = "pg_restore: error: could not execute query: ERROR:  division by zero\n\
            Command was: REFRESH MATERIALIZED VIEW public.by_zero;\n";
        let (error, not_filled) = complaints(&format!("{far}{divided}"));
        assert!(error.unwrap().ends_with("division by zero"));
        assert_eq!(not_filled.len(), 3);
        // Rows that cannot be restored without another server are no view's.
        let checked = "pg_restore: error: COPY failed for table \"t\": ERROR:  could not establish connection\n";
        let error = complaints(checked).0.unwrap();
        assert!(is_out_of_reach(&error), "{error}");
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
            (
                "could not execute query: ERROR:  unrecognized configuration parameter \"cron.database_name\"",
                true,
            ),
            (
                "could not execute query: FATAL:  extension \"timescaledb\" must be preloaded",
                true,
            ),
            (
                "could not execute query: ERROR:  pgaudit must be loaded via shared_preload_libraries",
                true,
            ),
            (
                "could not execute query: ERROR:  could not start maintenance background worker",
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
