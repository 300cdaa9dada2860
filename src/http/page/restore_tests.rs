//! The restore tests, and what they measured over time.

use jiff::Timestamp;
use maud::{Markup, html};

use super::plot::{Curve, Plot};
use super::words::{or_dash, stale, word};
use crate::cluster::{ArchiveExtent, RestoreTested, in_time};
use crate::model::ago;

/// Rows of the table.
const ROWS: usize = 8;

pub(super) fn restore_tests(
    (extent, unread): (Option<&ArchiveExtent>, Option<&str>),
    rto_objective: Option<f64>,
    now: Timestamp,
) -> Markup {
    let tests = extent.map_or(&[][..], |extent| &extent.tests);
    html! {
        section aria-labelledby="restore-tests" {
            h2 #restore-tests { "Restore tests" }
            (stale(unread))
            @if tests.is_empty() {
                p.muted { "None is known." }
            } @else {
                div.plots {
                    (plot("RTO that they measured", tests, |test| test.rto_secs, rto_objective))
                    (plot("RPO that they measured", tests, |test| test.rpo_secs, None))
                }
                div.scroll #restore-tests-table tabindex="0" role="group" aria-labelledby="restore-tests" {
                    table {
                        caption { "The last " (tests.len().min(ROWS)) " of " (tests.len()) }
                        thead { tr {
                            th scope="col" { "Ended" }
                            th scope="col" { "Result" }
                            th scope="col" { "On" }
                            th scope="col" { "Backup" }
                            th scope="col" { "RTO" }
                            th scope="col" { "RPO" }
                            th scope="col" { "Phases" }
                        } }
                        tbody { @for test in tests.iter().take(ROWS) { (row(test, now)) } }
                    }
                }
            }
        }
    }
}

fn row(test: &RestoreTested, now: Timestamp) -> Markup {
    let phases = test.phases.iter();
    let phases: Vec<_> = phases
        .map(|(name, secs)| format!("{name} {}", in_time(*secs)))
        .collect();
    html! {
        tr {
            th.n scope="row" { (ago(test.at, now)) }
            td { (word(if test.passed { "ok" } else { "critical" })) " " @if test.passed { "passed" } @else { "not passed" } }
            td { (test.node) }
            td { code { (test.backup) } }
            td.n { (or_dash(test.rto_secs.map(in_time))) }
            td.n { (or_dash(test.rpo_secs.map(in_time))) }
            td.muted { (phases.join(", ")) }
        }
    }
}

fn plot(
    title: &str,
    tests: &[RestoreTested],
    measured: fn(&RestoreTested) -> Option<f64>,
    limit: Option<f64>,
) -> Markup {
    let points = tests.iter().rev().filter_map(|test| {
        let value = measured(test)?;
        Some((test.at.as_second(), value, test.passed))
    });
    let points: Vec<(i64, f64, bool)> = points.collect();
    let first = points.first().map_or(0, |(at, ..)| *at);
    let last = points.last().map_or(0, |(at, ..)| *at);
    let plot = Plot {
        title,
        from: first,
        to: last.max(first + 1),
        limit,
        is_bytes: false,
        curve: Curve::Dots(points),
    };
    plot.render()
}
