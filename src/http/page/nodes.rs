//! The nodes: role, replication, and what PgBouncer does on each.

use maud::{Markup, html};

use super::Facts;
use super::words::{or_dash, since_look, stale, word};
use crate::cluster::{Line, PgBouncerCondition, View};
use crate::model::{Finding, ago};

/// Checks on what PgBouncer's pools have left.
const POOLS: [&str; 2] = ["pgbouncer-saturation", "pgbouncer-clients-waiting"];

pub(super) fn nodes(facts: &Facts<'_>) -> Markup {
    html! {
        section aria-labelledby="nodes" {
            h2 #nodes { "Nodes and replication" }
            div.scroll #nodes-table tabindex="0" role="group" aria-labelledby="nodes" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Node" }
                            th scope="col" { "Role" }
                            th scope="col" { "Timeline" }
                            th scope="col" { "Position" }
                            th scope="col" { "Behind" }
                            th scope="col" { "PgBouncer" }
                            th scope="col" { "Heard" }
                        }
                    }
                    tbody { @for line in &facts.status.nodes { (row(facts, line)) } }
                }
            }
            @for line in &facts.status.nodes {
                @if let Some(trouble) = &line.trouble { p { strong { (line.hostname) } ": " (trouble) } }
            }
        }
    }
}

fn row(facts: &Facts<'_>, line: &Line) -> Markup {
    let behind = line.lag_bytes.zip(line.lag_secs).map(|(bytes, secs)| {
        let least = if line.lag_at_least { "at least " } else { "" };
        format!("{}, {least}{secs:.1} s", bytesize::ByteSize(bytes))
    });
    html! {
        tr {
            th scope="row" { (line.hostname) }
            td { (line.role.as_deref().unwrap_or("unknown")) }
            td.n { (or_dash(line.timeline)) }
            td.n { (or_dash(line.position)) }
            td.n { (or_dash(behind)) }
            td { (pgbouncer(facts, line)) }
            td.n { (line.heard_at.map_or_else(|| "never".to_owned(), |at| ago(at, facts.now))) }
        }
    }
}

fn pgbouncer(facts: &Facts<'_>, line: &Line) -> Markup {
    let theirs = facts
        .known
        .peers
        .iter()
        .filter_map(|peer| peer.live(facts.now));
    let mut theirs = theirs.filter(|state| state.hostname == line.hostname);
    let view: Option<&View> = if line.hostname == facts.hostname {
        Some(facts.view)
    } else {
        theirs.next().map(|state| &state.view)
    };
    let Some(state) = view.and_then(|view| view.pgbouncer.as_ref()) else {
        return html! { "unknown" };
    };
    let (verdict, text) = match state.condition {
        PgBouncerCondition::Serves => ("ok", "serves"),
        PgBouncerCondition::Lives => ("warning", "answers, and refuses xdb's login"),
        PgBouncerCondition::Silent => ("critical", "silent"),
        PgBouncerCondition::Gone => ("critical", "down"),
    };
    html! { (word(verdict)) " " (text) }
}

/// What this node's checks say of PgBouncer's pools; another node's are on its own page.
pub(super) fn pools(facts: &Facts<'_>) -> Markup {
    let all = facts.observed.findings.iter().map(|(finding, _)| finding);
    let pools: Vec<&Finding> = all
        .filter(|it| POOLS.contains(&it.check.as_str()))
        .take(40)
        .collect();
    let has_values = pools.iter().any(|finding| finding.value.is_some());
    html! {
        section aria-labelledby="pools" {
            h2 #pools { "Pools on " (facts.hostname) }
            (stale(since_look(facts.observed.at, facts.now).as_deref()))
            @if pools.is_empty() {
                p.muted { "They have not been looked at yet, or PgBouncer is down." }
            } @else {
                div.scroll #pools-table tabindex="0" role="group" aria-labelledby="pools" {
                    table {
                        thead { tr {
                            th scope="col" { "Check" }
                            th scope="col" { "Of" }
                            @if has_values { th scope="col" { "Value" } }
                            th scope="col" { "Verdict" }
                        } }
                        tbody { @for finding in pools { tr {
                            th scope="row" { (finding.check.trim_start_matches("pgbouncer-")) }
                            td { (finding.object) }
                            @if has_values { td.n { (or_dash(finding.value)) } }
                            td { (word(finding.verdict.word())) " " (finding.verdict.reason().unwrap_or_default()) }
                        } } }
                    }
                }
            }
        }
    }
}
