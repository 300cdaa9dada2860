//! docs/reference/checks.md, generated from the files in checks/. `UPDATE_EXPECT=1` writes it.

use std::fmt::Write as _;

use super::parse::parse;
use super::shipped::SHIPPED;
use super::sql::Databases;
use super::{Definition, Kind};

const REFERENCE: &str = "docs/reference/checks.md";

const BEGINS: &str = include_str!("reference.md");

/// The file's comments: each says why something is as it is.
fn comments(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
    lines.collect::<Vec<_>>().join(" ")
}

fn entry(definition: &Definition, text: &str) -> String {
    let (warning, critical) = definition.thresholds();
    let Definition {
        name, title, role, ..
    } = definition;
    let kind = definition.kind.word();
    let mut entry = format!(
        "\n### `{name}`\n\n{title}.\n\n- Kind: `{kind}`; role: {role}; runbook: [runbooks/{name}.md](../../runbooks/{name}.md)\n"
    );
    let _ = writeln!(
        entry,
        "- Warning: {warning}; critical: {critical}; for: {}; every: {}",
        definition.held(),
        definition.every()
    );
    if let Kind::Sql(sql) = &definition.kind
        && sql.databases == Databases::Each
    {
        entry.push_str("- Asked in each database\n");
    }
    let comments = comments(text);
    if !comments.is_empty() {
        let _ = writeln!(entry, "- {comments}");
    }
    entry
}

#[test]
fn the_reference_is_what_the_files_say() {
    let mut expected = BEGINS.to_owned();
    for (name, text) in SHIPPED {
        let definition = parse(name, name, text).unwrap_or_else(|error| panic!("{error}"));
        expected.push_str(&entry(&definition, text));
    }
    let path = format!("{}/{REFERENCE}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{REFERENCE} is stale: UPDATE_EXPECT=1 cargo test --lib checks::reference"
    );
}
