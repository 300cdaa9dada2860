//! What every session of xdb pins: a value of the startup packet beats what server, database and role set.
//!
//! Not for PgBouncer, which refuses `options`. `session_preload_libraries` is not among them: only a superuser may set it,
//! and where its library cannot be loaded, applications cannot log in either.

use std::fmt::Write as _;
use std::time::Duration;

/// Settings that change what a query returns, or whether it may run at all.
///
/// None of them needs a privilege, so that a login as a role of `pg_monitor` does not fail.
const PINNED: &[(&str, &str)] = &[
    // Names in queries are schema-qualified; operators and functions of other schemas must not come first either.
    ("search_path", "pg_catalog"),
    // ALTER ROLE … SET role would run xdb with another role's privileges.
    ("role", "none"),
    // A standby refuses to run anything at the isolation level serializable.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("lock_timeout", "5s"),
    // Sessions are kept between samples, and snapshots for as long as a dump takes.
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("transaction_timeout", "0"),
    ("exit_on_error", "off"),
    // A policy must end in an error, and not in fewer rows.
    ("row_security", "off"),
    // How queries are read, and how values are written.
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("xmloption", "content"),
    ("client_min_messages", "warning"),
    ("local_preload_libraries", ""),
    // Compiling a query that runs each second costs more than it saves.
    ("jit", "off"),
];

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

/// The `options` of a startup packet, where a statement may take `statement_timeout`; zero is without limit.
pub(super) fn options(statement_timeout: Duration, access: Access) -> String {
    let read_only = match access {
        Access::ReadOnly => "on",
        Access::ReadWrite => "off",
    };
    let statement_timeout = statement_timeout.as_millis().to_string();
    let own = [
        ("default_transaction_read_only", read_only),
        ("statement_timeout", statement_timeout.as_str()),
    ];
    let mut options = String::new();
    for (name, value) in PINNED.iter().copied().chain(own) {
        let separator = if options.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(options, "{separator}-c {name}={}", escaped(value));
    }
    options
}

/// The same for `PGOPTIONS` of PostgreSQL's own programs, without any time limit: those have their own deadlines.
pub fn program_options() -> String {
    format!(
        "{} -c lock_timeout=0",
        options(Duration::ZERO, Access::ReadWrite)
    )
}

/// PostgreSQL splits `options` at blanks that no backslash precedes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_one_option_and_blanks_are_escaped() {
        let options = options(Duration::from_secs(5), Access::ReadOnly);
        assert!(
            options.starts_with("-c search_path=pg_catalog -c role=none "),
            "{options}"
        );
        assert!(
            options.contains(" -c default_transaction_isolation=read\\ committed "),
            "{options}"
        );
        assert!(
            options.ends_with("-c default_transaction_read_only=on -c statement_timeout=5000"),
            "{options}"
        );
        assert_eq!(options.matches("-c ").count(), PINNED.len() + 2);
    }

    #[test]
    fn no_setting_is_pinned_twice() {
        let mut names: Vec<_> = PINNED.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PINNED.len());
    }
}
