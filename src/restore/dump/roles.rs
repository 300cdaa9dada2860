//! Roles that a dump needs, and the statements of the globals that make those that are missing. Pure.

use std::collections::BTreeSet;

use super::program_messages::roles_only;
use super::sql::{Statement, statements};
use super::toc::Entry;

/// The roles that `entries` name: owners, and those of privileges, policies, user mappings and settings.
///
/// `with_owners` is whether owners and privileges are restored.
pub(super) fn needed_roles<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    with_owners: bool,
) -> BTreeSet<String> {
    let mut roles = BTreeSet::new();
    for entry in entries {
        if with_owners && !entry.owner.is_empty() {
            roles.insert(entry.owner.clone());
        }
        let keywords: &[&str] = match entry.kind.as_str() {
            "ACL" if with_owners => &["TO", "FROM", "AUTHORIZATION"],
            "DEFAULT ACL" if with_owners => &["ROLE", "TO", "FROM"],
            "DATABASE PROPERTIES" if with_owners => &["ROLE"],
            "POLICY" => &["TO"],
            "USER MAPPING" => &["FOR"],
            _ => continue,
        };
        for statement in statements(&entry.definition) {
            let statement = match entry.kind.as_str() {
                "POLICY" => until_expression(statement),
                _ => statement,
            };
            for keyword in keywords {
                let names = statement.names_after(keyword);
                roles.extend(names.into_iter().map(str::to_owned));
            }
        }
    }
    // It stands for every role.
    roles.remove("PUBLIC");
    roles.remove("public");
    roles
}

/// A policy without its expressions, which may name anything.
fn until_expression(mut statement: Statement<'_>) -> Statement<'_> {
    let end = statement
        .tokens
        .iter()
        .position(|token| token.is("USING") || token.is("CHECK"));
    statement.tokens.truncate(end.unwrap_or(usize::MAX));
    statement
}

/// The roles that the globals make.
pub(super) fn roles_of(globals: &str) -> BTreeSet<String> {
    let all = statements(roles_only(globals));
    let made = all.iter().filter(|it| it.begins(&["CREATE", "ROLE"]));
    let names = made.flat_map(|statement| statement.names_after("ROLE"));
    names.map(str::to_owned).collect()
}

/// The statements of the globals that make the roles of `missing`, with their passwords and memberships, in their order.
///
/// Roles that are there already stay as they are.
pub(super) fn statements_for(globals: &str, missing: &BTreeSet<String>) -> Vec<String> {
    let all = statements(roles_only(globals));
    let wanted = all.iter().filter_map(|statement| {
        let is_missing = |name: &&&str| missing.contains(**name);
        let is_about_role = [
            &["CREATE", "ROLE"][..],
            &["ALTER", "ROLE"],
            &["COMMENT", "ON", "ROLE"],
            &["SECURITY", "LABEL"],
        ];
        if is_about_role.iter().any(|words| statement.begins(words)) {
            let names = statement.names_after("ROLE");
            return names
                .first()
                .filter(is_missing)
                .map(|_| statement.sql.to_owned());
        }
        if !statement.begins(&["GRANT"]) {
            return None;
        }
        // A membership, or a privilege on a setting of the server.
        let on_setting = statement.tokens.iter().any(|token| token.is("PARAMETER"));
        let mut names = statement.names_after("TO");
        if !on_setting {
            names.extend(statement.names_after("GRANT"));
        }
        names
            .iter()
            .any(|name| missing.contains(*name))
            .then(|| without_grantor(statement))
    });
    wanted.collect()
}

/// The grantor may be a role that is not here; the role that restores takes its place.
fn without_grantor(statement: &Statement<'_>) -> String {
    let at = statement
        .tokens
        .iter()
        .position(|token| token.is("GRANTED"));
    let end = at.map_or(statement.sql.len(), |at| statement.tokens[at].start);
    statement.sql[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOBALS: &str = "\\restrict abc\n\nSET client_encoding = 'UTF8';\n--\n-- Roles\n--\n\n\
        CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM;app';\n\
        CREATE ROLE \"Odd role\";\nALTER ROLE \"Odd role\" WITH NOLOGIN;\n\
        COMMENT ON ROLE \"Odd role\" IS 'app; CREATE ROLE x';\n\
        CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\n\
        --\n-- User Configurations\n--\n\nALTER ROLE app SET statement_timeout TO '1s';\n\
        --\n-- Role memberships\n--\n\n\
        GRANT \"Odd role\" TO app WITH INHERIT TRUE GRANTED BY postgres;\n\
        GRANT postgres TO app WITH INHERIT TRUE GRANTED BY postgres;\n\
        GRANT SET ON PARAMETER work_mem TO \"Odd role\";\n\n\
        --\n-- Tablespaces\n--\n\nCREATE TABLESPACE fast OWNER app LOCATION '/x';\n";

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_missing_roles_are_made_with_what_belongs_to_them() {
        assert_eq!(roles_of(GLOBALS), names(&["app", "Odd role", "postgres"]));
        assert_eq!(
            statements_for(GLOBALS, &names(&["Odd role"])),
            [
                "CREATE ROLE \"Odd role\"",
                "ALTER ROLE \"Odd role\" WITH NOLOGIN",
                "COMMENT ON ROLE \"Odd role\" IS 'app; CREATE ROLE x'",
                "GRANT \"Odd role\" TO app WITH INHERIT TRUE",
                "GRANT SET ON PARAMETER work_mem TO \"Odd role\"",
            ]
        );
        let app = statements_for(GLOBALS, &names(&["app"]));
        assert_eq!(app.len(), 5, "{app:?}");
        assert!(statements_for(GLOBALS, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn roles_are_found_in_each_kind_of_entry() {
        for (kind, definition, roles) in [
            ("TABLE", "CREATE TABLE public.t (a int)", &["own"][..]),
            (
                "ACL",
                "REVOKE ALL ON TABLE public.t FROM PUBLIC;\nSET SESSION AUTHORIZATION granter;\n\
                 GRANT SELECT(a) ON TABLE public.\"to\" TO \"Odd role\" WITH GRANT OPTION;\nRESET SESSION AUTHORIZATION",
                &["Odd role", "granter", "own"],
            ),
            (
                "DEFAULT ACL",
                "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES TO readers",
                &["app", "own", "readers"],
            ),
            (
                "POLICY",
                "CREATE POLICY p ON public.t TO a, b USING ((x = (SELECT y.x TO FROM y)))",
                &["a", "b", "own"],
            ),
            (
                "USER MAPPING",
                "CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'FOR x')",
                &["app", "own"],
            ),
            (
                "DATABASE PROPERTIES",
                "ALTER ROLE app IN DATABASE d SET x TO 'TO y'",
                &["app", "own"],
            ),
        ] {
            let entry = Entry {
                kind: kind.to_owned(),
                definition: definition.to_owned(),
                owner: "own".to_owned(),
                ..Entry::default()
            };
            assert_eq!(needed_roles([&entry], true), names(roles), "{kind}");
            let without = needed_roles([&entry], false);
            let stays = ["POLICY", "USER MAPPING"].contains(&kind);
            assert_eq!(without.is_empty(), !stays, "{kind}");
        }
    }
}
