//! What every session of xdb pins: a value of the startup packet beats what server, database and role set.
//!
//! Not for PgBouncer, which refuses `options`. What only a superuser may set is pinned for a superuser alone: for anybody
//! else the server would refuse the login.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
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
    // Where a restored table is made, and whether a view may be read to fill a materialized one.
    ("default_table_access_method", "heap"),
    ("default_tablespace", ""),
    ("temp_tablespaces", ""),
    ("restrict_nonsystem_relation_kind", ""),
    // Compiling a query that runs each second costs more than it saves.
    ("jit", "off"),
];

/// What a superuser's session pins, too.
const SUPERUSER: &[(&str, &str)] = &[
    // A library that is not installed, or that refuses to load, refuses the login; so does a failing trigger on login.
    ("session_preload_libraries", ""),
    ("event_triggers", "off"),
    // Messages are parsed.
    ("lc_messages", "C"),
    // Damage must end in an error, and not in fewer rows.
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
    // With triggers and rules as they are for everybody, and with room to sort.
    ("session_replication_role", "origin"),
    ("temp_file_limit", "-1"),
];

/// Those of both that a server of an earlier release does not know: it refuses a login that names one.
pub(super) const NEWER: [&str; 3] = [
    "transaction_timeout",
    "event_triggers",
    "restrict_nonsystem_relation_kind",
];

/// Those that a server has refused to this process. The servers of a cluster are of one release.
static UNKNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// Takes in why a login was refused; `true` if another one without the setting that the message names may succeed.
pub(super) fn forget_unknown(message: &str) -> bool {
    let mut unknown = UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let named = NEWER.into_iter().find(|name| message.contains(name));
    // Another login may have learned it meanwhile.
    named.map(|name| unknown.insert(name)).is_some()
}

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
    in_options(PINNED.iter().copied().chain(own))
}

/// The same for a superuser.
pub(super) fn superuser_options(statement_timeout: Duration, access: Access) -> String {
    let more = in_options(SUPERUSER.iter().copied());
    format!("{} {more}", options(statement_timeout, access))
}

/// The same for `PGOPTIONS` of PostgreSQL's own programs, without any time limit: those have their own deadlines.
pub(crate) fn program_options() -> String {
    format!(
        "{} -c lock_timeout=0",
        options(Duration::ZERO, Access::ReadWrite)
    )
}

/// The same for programs that log in as a superuser.
pub(crate) fn superuser_program_options() -> String {
    format!(
        "{} -c lock_timeout=0",
        superuser_options(Duration::ZERO, Access::ReadWrite)
    )
}

/// Pins in a session of a superuser what only one may set; does nothing in any other session.
pub(super) fn pin_for_superuser() -> String {
    let values: Vec<String> = SUPERUSER
        .iter()
        .map(|(name, value)| format!("('{name}', '{value}')"))
        .collect();
    format!(
        "SELECT pg_catalog.set_config(name, value, false)
           FROM (VALUES {}) AS pinned (name, value)
          WHERE pg_catalog.current_setting('is_superuser') = 'on'
            AND pg_catalog.current_setting(name, true) IS NOT NULL",
        values.join(", ")
    )
}

fn in_options<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let unknown = UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = String::new();
    for (name, value) in settings.filter(|(name, _)| !unknown.contains(name)) {
        let separator = if options.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(options, "{separator}-c {name}={}", escaped(value));
    }
    options
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
        let both = || PINNED.iter().chain(SUPERUSER);
        let mut names: Vec<_> = both().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), both().count());
    }

    #[test]
    fn settings_for_superusers_are_pinned_for_superusers_alone() {
        let is_asked = |options: &str| options.contains(" -c session_preload_libraries= ");
        assert!(is_asked(&superuser_program_options()));
        assert!(!is_asked(&program_options()));
        assert!(pin_for_superuser().contains("('zero_damaged_pages', 'off')"));
    }
}
