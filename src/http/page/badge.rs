//! A small picture for other pages: when a restore was last proven.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::cluster::{Evidence, unread};
use crate::model::{Finding, Verdict, ago};

/// White text is readable on each of these.
const GREEN: &str = "#1a7f37";
const BROWN: &str = "#8a5a00";
const RED: &str = "#b91c1c";
const GREY: &str = "#57606a";

/// Judges the age of the last proof.
const AGE_CHECK: &str = "restore-test-age";
/// From this age on a proof is not green where nothing has judged its age: the shipped limit of that check.
const OLD: SignedDuration = SignedDuration::from_hours(54);

/// `findings` are those of this node and of the cluster.
pub(super) fn proven<'a>(
    evidence: Option<&Evidence>,
    findings: impl Iterator<Item = &'a Finding>,
    now: Timestamp,
) -> Markup {
    let of_age = findings.filter(|finding| finding.check == AGE_CHECK);
    let verdicts: Vec<&Verdict> = of_age.map(|finding| &finding.verdict).collect();
    let age = (!verdicts.is_empty()).then(|| Verdict::worst(verdicts));
    let (text, colour) = judged(evidence, age.as_ref(), now);
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

/// What is said, and its colour: only a proof that is read now, recent and of the newest backup is green.
fn judged(
    evidence: Option<&Evidence>,
    age: Option<&Verdict>,
    now: Timestamp,
) -> (String, &'static str) {
    let unread = |it: &&Evidence| unread(it, now).is_some();
    let Some(evidence) = evidence.filter(|it| !unread(it)) else {
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
            let is_old = now.duration_since(proof.at) > OLD;
            match (has_failed_since, age, proof.newest_backup_proven) {
                (true, ..) => (format!("{text}, failed since"), RED),
                (false, Some(Verdict::Critical(_)), _) => (format!("{text}, too old"), RED),
                (false, Some(Verdict::Warning(_)), _) => (format!("{text}, too old"), BROWN),
                (false, None, _) if is_old => (format!("{text}, too old"), BROWN),
                (false, Some(Verdict::Unknown(_)), _) | (false, _, None) => (text, GREY),
                (false, _, Some(false)) => (format!("{text}, not the newest"), BROWN),
                (false, _, Some(true)) => (text, GREEN),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{NOW, at, evidence};

    #[test]
    fn only_a_recent_proof_of_the_newest_backup_that_is_read_now_is_green() {
        let known = |change: fn(&mut Evidence)| {
            let mut evidence = evidence();
            if let Some(proof) = &mut evidence.proof {
                proof.newest_backup_proven = Some(true);
            }
            change(&mut evidence);
            evidence
        };
        let proven = |evidence: &mut Evidence, newest| {
            if let Some(proof) = &mut evidence.proof {
                proof.newest_backup_proven = newest;
            }
        };
        let warning = Verdict::Warning("w".to_owned());
        let critical = Verdict::Critical("c".to_owned());
        let unknown = Verdict::Unknown("u".to_owned());
        let refused = |it: &mut Evidence| it.proof_error = Some("S3 refuses".to_owned());
        let backup_refused =
            |it: &mut Evidence| it.base_backup_error = Some("S3 refuses".to_owned());
        let hangs = |it: &mut Evidence| it.at = at(NOW - 1000);
        let never = |it: &mut Evidence| it.proof = None;
        let old = |it: &mut Evidence| it.proof.as_mut().unwrap().at = at(NOW - 60 * 3600);
        let ok = |_: &mut Evidence| ();
        let (mut other, mut not_known) = (known(ok), known(ok));
        proven(&mut other, Some(false));
        proven(&mut not_known, None);
        let now = "40 s ago";
        for (evidence, age, text, colour) in [
            (None, Some(&Verdict::Ok), "unknown", GREY),
            (Some(known(ok)), Some(&Verdict::Ok), now, GREEN),
            (Some(known(ok)), None, now, GREEN),
            (Some(known(ok)), Some(&warning), "40 s ago, too old", BROWN),
            (Some(known(ok)), Some(&critical), "40 s ago, too old", RED),
            (Some(known(ok)), Some(&unknown), now, GREY),
            (Some(known(old)), None, "2 days ago, too old", BROWN),
            // A week may be allowed: one test a week.
            (Some(known(old)), Some(&Verdict::Ok), "2 days ago", GREEN),
            (Some(known(refused)), Some(&Verdict::Ok), "unknown", GREY),
            (Some(known(backup_refused)), None, "unknown", GREY),
            (Some(known(hangs)), None, "unknown", GREY),
            (Some(other), None, "40 s ago, not the newest", BROWN),
            (Some(not_known), None, now, GREY),
            (Some(known(never)), None, "never", RED),
        ] {
            let found = judged(evidence.as_ref(), age, at(NOW));
            assert_eq!(found, (text.to_owned(), colour));
        }
    }
}
