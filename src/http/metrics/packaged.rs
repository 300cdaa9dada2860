//! Holds the rules and the dashboard of packaging/ to the table of metrics.

use std::collections::BTreeSet;
use std::path::Path;

use super::family::Kind;
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
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .map(|suffix| family.name() + suffix)
            .to_vec(),
        Kind::Gauge | Kind::Counter | Kind::Info => vec![family.name()],
    });
    of.collect()
}

#[test]
fn rules_and_dashboard_query_only_what_is_served() {
    let served = series();
    for (file, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
        let queried = names(text);
        assert!(queried.len() > 10, "{file}: {queried:?}");
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
        assert!(
            ["critical", "warning"].contains(&value("severity")),
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
