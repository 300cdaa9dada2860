//! The jobs: what came of each, and when it runs next.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{or_dash, point, since_look, stale, word};
use crate::http::{JobState, Observed};
use crate::model::ago;

pub(super) fn jobs(observed: &Observed, now: Timestamp) -> Markup {
    let jobs = &observed.jobs;
    html! {
        section aria-labelledby="jobs" {
            h2 #jobs { "Jobs" }
            (stale(since_look(observed.at, now).as_deref()))
            @if jobs.is_empty() {
                p.muted { "Nothing is known of them yet." }
            } @else {
                div.scroll #jobs-table tabindex="0" role="group" aria-labelledby="jobs" {
                    table {
                        thead { tr {
                            th scope="col" { "Job" }
                            th scope="col" { "Schedule (UTC)" }
                            th scope="col" { "Runs on" }
                            th scope="col" { "Last run here" }
                            th scope="col" { "Last success" }
                            th scope="col" { "Next run" }
                        } }
                        tbody { @for job in jobs { (row(job, now)) } }
                    }
                }
            }
        }
    }
}

fn row(job: &JobState, now: Timestamp) -> Markup {
    let success = job.last_success.as_ref();
    let success = success.map(|it| format!("{} on {}", ago(it.finished_at, now), it.node));
    html! {
        tr {
            th scope="row" { (job.name) }
            td.n { (job.schedule) }
            td { (job.runs_on) @if job.is_here { " (this node)" } }
            td {
                @match &job.last_run {
                    None => { "–" }
                    Some(run) => {
                        (word(run.verdict)) " " (ago(run.finished_at, now))
                        @if let Some(reason) = &run.reason { ": " (reason) }
                    }
                }
            }
            td.n { (or_dash(success)) }
            td.n { (next(job, now)) }
        }
    }
}

fn next(job: &JobState, now: Timestamp) -> String {
    match (job.running_since, job.next_run) {
        (Some(since), _) => format!("running, began {}", ago(since, now)),
        (None, Some(next)) if next <= now => "due".to_owned(),
        (None, Some(next)) => point(next),
        (None, None) => format!("each {}", job.schedule),
    }
}
