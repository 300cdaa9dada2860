//! The last hour, day and week.

use maud::{Markup, html};

use super::Facts;
use super::plot::{Curve, Plot};
use super::words::{since_look, stale};
use crate::http::plots::{SERIES, SPANS, Series, Span};

pub(super) fn plots(facts: &Facts<'_>) -> Markup {
    html! {
        section aria-labelledby="plots" {
            h2 #plots { "The last hour, day and week, as " (facts.hostname) " saw them" }
            (stale(since_look(facts.observed.at, facts.now).as_deref()))
            p.muted { "Each point is the highest value of its step. Where nothing was known there is a hole." }
            @for series in &SERIES {
                h3 { (series.title) }
                div.plots { @for span in SPANS { (plot(facts, series, span)) } }
            }
        }
    }
}

fn plot(facts: &Facts<'_>, series: &Series, span: Span) -> Markup {
    let points = facts.observed.plots.points(series.name, span);
    let now = facts.now.as_second();
    let limit = match series.name {
        "rpo" => facts.status.rpo.warning_secs,
        "rto" => facts.status.rto.objective_secs,
        _ => None,
    };
    let title = format!("Last {}", span.name);
    let plot = Plot {
        title: &title,
        from: now - span.steps * span.step_secs,
        to: now,
        limit,
        is_bytes: series.is_bytes,
        curve: Curve::Line(points.collect(), span.step_secs * 2),
    };
    plot.render()
}
