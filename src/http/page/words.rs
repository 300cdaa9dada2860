//! How verdicts, times and numbers are written on the page.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::model::ago;

/// The daemon looks at its own work much more often.
const LOOKS: SignedDuration = SignedDuration::from_secs(60);

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

/// A mark for what is of earlier, with the reason; nothing for what is of now.
pub(super) fn stale(reason: Option<&str>) -> Markup {
    html! {
        @if let Some(reason) = reason {
            p.stale { span.word.unknown { span aria-hidden="true" { "?" } " STALE" } " " (reason) }
        }
    }
}

/// What the daemon has looked at last at `at`, where that is long ago.
pub(super) fn since_look(at: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let at = at.filter(|at| now.duration_since(*at) > LOOKS)?;
    Some(format!(
        "As it was {}: the daemon has not looked since.",
        ago(at, now)
    ))
}

/// As `2026-11-21 13:00:48 UTC`.
pub(super) fn point(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| text.to_string())
}
