//! Writes `docs/reference/metrics.md` from the table of metrics, and fails where it differs.
//!
//! `UPDATE_EXPECT=1 cargo test --lib http::metrics::reference` writes it.

use std::fmt::Write as _;

use super::family::{Family, FamilyType};
use super::table::GROUPS;

const REFERENCE: &str = "docs/reference/metrics.md";

const BEGINS: &str = "\
# Metrics reference

<!-- Written by `UPDATE_EXPECT=1 cargo test --lib http::metrics::reference` from src/http/metrics/table/. Do not edit it by hand. -->

Each node's daemon serves `GET /metrics` on its HTTP port (`http.listen`, 8009). A scraper that names
`application/openmetrics-text` in `Accept` gets OpenMetrics 1.0, any other the text format 0.0.4.

- The metrics are made from what the daemon knows at that moment. A scrape asks neither PostgreSQL nor S3 nor Redis.
- Where nothing is known there is no sample. Use `absent()` to alert on that.
- Both nodes judge the cluster. `max()` or `min()` over `xdb_rpo_seconds` and the like gives the worse of the two.
- Times are seconds, sizes are bytes. A point in time is in seconds since 1970 (`…_timestamp_seconds`).
- A state has one series for each value that it can have: 1 for the one that holds, 0 for the others. A check has only the series
  that holds.
- Counters begin at 0 with the daemon, and are there from its first look at its own work on (a few seconds).
- Alert on `xdb_check_alerts`, not on verdicts or ages: it counts what xdb has raised by its own limits, once it has lasted for as long as the
  check demands, and tells what is silenced or acknowledged.

[packaging/prometheus-rules.yml](../../packaging/prometheus-rules.yml) has alerts and
[packaging/grafana-dashboard.json](../../packaging/grafana-dashboard.json) a dashboard.
";

fn reference() -> String {
    let mut text = BEGINS.to_owned();
    for (heading, families) in GROUPS {
        let _ = write!(
            text,
            "\n## {heading}\n\n| metric | type | labels | |\n|---|---|---|---|\n"
        );
        text.extend(families.iter().map(row));
    }
    text
}

fn row(family: &Family) -> String {
    let kind = match family.kind {
        FamilyType::Gauge => "gauge",
        FamilyType::Counter => "counter",
        FamilyType::Info => "info",
        FamilyType::Histogram => "histogram",
    };
    let labels = family.labels.iter().map(|label| format!("`{label}`"));
    let labels: Vec<_> = labels.collect();
    let (name, labels) = (family.name(), labels.join(", "));
    format!("| `{name}` | {kind} | {labels} | {} |\n", family.help)
}

#[test]
fn the_page_is_what_the_table_says() {
    let (path, expected) = (
        format!("{}/{REFERENCE}", env!("CARGO_MANIFEST_DIR")),
        reference(),
    );
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{REFERENCE} is stale: UPDATE_EXPECT=1 cargo test --lib http::metrics::reference"
    );
}
