//! How verdicts, times and numbers are written on the page.

use jiff::Timestamp;
use maud::{Markup, html};

/// A verdict, by sign and word: colour alone says nothing to many.
pub(super) fn word(verdict: &str) -> Markup {
    let sign = match verdict {
        "ok" => "✓",
        "warning" => "!",
        "critical" => "✕",
        _ => "?",
    };
    html! {
        span class={ "word " (verdict) } { span aria-hidden="true" { (sign) } " " (verdict.to_uppercase()) }
    }
}

/// As `2026-11-21 13:00:48 UTC`.
pub(super) fn point(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| text.to_string())
}
