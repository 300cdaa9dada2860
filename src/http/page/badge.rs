//! A small picture for other pages: when a restore was last proven.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::cluster::Evidence;
use crate::model::ago;

/// White text is readable on each of these.
const GREEN: &str = "#1a7f37";
const BROWN: &str = "#8a5a00";
const RED: &str = "#b91c1c";
const GREY: &str = "#57606a";

pub(super) fn proven(evidence: Option<&Evidence>, now: Timestamp) -> Markup {
    let (text, colour) = judged(evidence, now);
    let label = "restore proven";
    // Six and a half pixels a letter are enough for the widest that stand here.
    let width = |text: &str| 12 + text.chars().count() * 13 / 2;
    let (left, right) = (width(label), width(&text));
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(left + right) height="20" role="img" aria-label={ (label) ": " (text) } {
            title { (label) ": " (text) }
            rect width=(left + right) height="20" rx="3" fill="#24292f" {}
            rect x=(left) width=(right) height="20" rx="3" fill=(colour) {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle" {
                text x=(left / 2) y="14" { (label) }
                text x=(left + right / 2) y="14" { (text) }
            }
        }
    }
}

/// What is said, and its colour: a newest backup without a test that passed is no good news.
fn judged(evidence: Option<&Evidence>, now: Timestamp) -> (String, &'static str) {
    let Some(evidence) = evidence else {
        return ("unknown".to_owned(), GREY);
    };
    let newest = evidence
        .extent
        .as_ref()
        .and_then(|extent| extent.tests.first());
    match (&evidence.proof, &evidence.proof_error) {
        (_, Some(_)) => ("unknown".to_owned(), GREY),
        (None, None) => ("never".to_owned(), RED),
        (Some(proof), None) => {
            let has_failed_since = newest.is_some_and(|test| !test.passed && test.at > proof.at);
            let text = ago(proof.at, now);
            match (has_failed_since, proof.newest_backup_proven) {
                (true, _) => (format!("{text}, failed since"), RED),
                (false, Some(false)) => (format!("{text}, not the newest"), BROWN),
                (false, _) => (text, GREEN),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{NOW, at, evidence};

    #[test]
    fn the_badge_says_unknown_where_it_is_not_known() {
        let known = evidence();
        let mut unread = evidence();
        unread.proof_error = Some("S3 does not answer".to_owned());
        let mut other = evidence();
        if let Some(proof) = &mut other.proof {
            proof.newest_backup_proven = Some(false);
        }
        let mut never = evidence();
        never.proof = None;
        for (evidence, text, colour) in [
            (None, "unknown", GREY),
            (Some(&known), "40 s ago", GREEN),
            (Some(&unread), "unknown", GREY),
            (Some(&other), "40 s ago, not the newest", BROWN),
            (Some(&never), "never", RED),
        ] {
            let found = judged(evidence, at(NOW));
            assert_eq!(found, (text.to_owned(), colour));
        }
    }
}
