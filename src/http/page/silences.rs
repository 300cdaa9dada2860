//! What people decided about alerts: silences, maintenance and acknowledgements in force.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::point;
use crate::model::{Silence, Silenced};

/// More are counted only.
const MOST: usize = 20;

pub(super) fn silences(all: &[Silence], now: Timestamp) -> Markup {
    let mut live: Vec<&Silence> = all.iter().filter(|one| one.is_live(now)).collect();
    live.sort_by_key(|one| one.expires_at);
    html! {
        section aria-labelledby="silences" {
            h2 #silences { "Silences and acknowledgements (" (live.len()) ")" }
            @if live.is_empty() {
                p.muted { "None is in force." }
            } @else {
                div.scroll #silences-table tabindex="0" role="group" aria-labelledby="silences" {
                    table {
                        thead { tr {
                            th scope="col" { "Alerts" }
                            th scope="col" { "Until" }
                            th scope="col" { "Up to" }
                            th scope="col" { "By" }
                            th scope="col" { "Comment" }
                        } }
                        tbody { @for one in live.iter().take(MOST) { (row(one)) } }
                    }
                }
                @if live.len() > MOST {
                    p { (live.len() - MOST) " more: " code { "xdb alerts" } }
                }
            }
        }
    }
}

fn row(silence: &Silence) -> Markup {
    html! {
        tr {
            th scope="row" {
                @match &silence.of {
                    Silenced::Silence { pattern } => { "silenced: " code { (pattern) } }
                    Silenced::Maintenance { node } => { "maintenance of " (node) }
                    Silenced::Acknowledgement { alert, .. } => { "acknowledged: " code { (alert) } }
                }
            }
            td.n { (point(silence.expires_at)) }
            td { (silence.severity.word()) }
            td { (silence.author) }
            td { (silence.comment) }
        }
    }
}
