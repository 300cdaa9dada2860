//! Holds the rules and the dashboard of packaging/ to the table of metrics.

use std::collections::BTreeSet;
use std::path::Path;

use super::family::FamilyType;
use super::table::families;

const RULES: &str = include_str!("../../../packaging/prometheus-rules.yml");
const DASHBOARD: &str = include_str!("../../../packaging/grafana-dashboard.json");

/// The names of series that a text queries.
fn names(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_name(c));
    words.filter(|word| word.starts_with("xdb_")).collect()
}

fn series() -> BTreeSet<String> {
    let of = families().flat_map(|family| match family.kind {
        FamilyType::Histogram => ["_bucket", "_sum", "_count"]
            .map(|suffix| family.name() + suffix)
            .to_vec(),
        FamilyType::Gauge | FamilyType::Counter | FamilyType::Info => vec![family.name()],
    });
    of.collect()
}

#[test]
fn rules_and_dashboard_query_only_what_is_served() {
    let served = series();
    for (file, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
        let queried = names(text);
        assert!(queried.len() > 8, "{file}: {queried:?}");
        let unknown: Vec<_> = queried
            .iter()
            .filter(|name| !served.contains(**name))
            .collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn every_rule_has_a_time_a_severity_a_summary_and_a_runbook() {
    let rules: Vec<&str> = RULES.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 20, "{}", rules.len());
    for rule in rules {
        let value = |key: &str| {
            let mut lines = rule.lines().map(str::trim);
            let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("no {key} in {rule}"))
        };
        value("for");
        value("summary");
        // An alert of xdb brings its own severity; `unknown` would match no route of an Alertmanager.
        let own = "'{{ if eq $labels.severity \"critical\" }}critical{{ else }}warning{{ end }}'";
        assert!(
            ["critical", "warning", own].contains(&value("severity")),
            "{rule}"
        );
        let url = value("runbook_url").trim_matches('\'');
        let named = url.rsplit('/').next().unwrap().trim_end_matches(".md");
        // The checks, the jobs and the services each have a runbook of their name.
        if !named.starts_with("{{") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let runbook = root.join(format!("runbooks/{named}.md"));
            assert!(runbook.exists(), "{rule}");
        }
    }
}

/// How a rule chooses checks: `check="a"`, `check=~"a|b"` or `check!~"a|b"`.
fn chooses(rule: &str, check: &str) -> Option<bool> {
    let chosen = rule.split_once("xdb_check_alerts{check")?.1;
    let (operator, rest) = chosen.split_once('"')?;
    let is_named = rest.split('"').next()?.split('|').any(|name| name == check);
    match operator {
        "=" | "=~" => Some(is_named),
        "!~" => Some(!is_named),
        other => panic!("{other} in {rule}"),
    }
}

#[test]
fn each_alert_of_xdb_fires_one_rule_unless_it_is_silenced() {
    let expressions: Vec<&str> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        // The others look whether anything was raised that says the same.
        .filter(|expression| expression.starts_with("'xdb_check_alerts{"))
        .collect();
    assert!(expressions.len() > 10, "{expressions:?}");
    for expression in &expressions {
        assert!(expression.contains("silenced=\"false\""), "{expression}");
    }
    // Not only those that are known here: a check of the operator's own.
    let all = crate::model::RUNBOOKS.iter().map(|(name, _)| *name);
    for check in all.chain(["checks", "own"]) {
        let found = expressions
            .iter()
            .filter(|expression| chooses(expression, check) == Some(true));
        assert_eq!(found.count(), 1, "{check}");
    }
    // What no file of checks, no job and no service is called is a slip.
    for expression in expressions.iter().filter(|it| !it.contains("!~")) {
        let names = expression.split('"').nth(1).unwrap_or_default();
        for name in names.split('|').filter(|name| *name != "checks") {
            assert!(crate::model::runbook(name).is_some(), "{name}");
        }
    }
}

#[test]
fn each_panel_of_the_dashboard_asks_the_source_that_is_chosen() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
    }
}
