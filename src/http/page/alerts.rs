//! What is not well, each with its runbook in place.

use maud::{Markup, html};

use super::words::{point, word};
use super::{Facts, markdown};
use crate::cluster::Standing;
use crate::model::{AlertKey, AlertMarks, Finding, Verdict, ago, runbook};

/// More are counted only: the page stays small whatever happens.
const MOST: usize = 40;
/// Runbooks that are shown in place; the others are linked.
const RUNBOOKS: usize = 12;

pub(super) fn alerts(facts: &Facts<'_>) -> Markup {
    let mut bad: Vec<&Finding> = facts
        .status
        .findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Ok)
        .collect();
    bad.sort_by_key(|finding| match finding.verdict {
        Verdict::Critical(_) => 0,
        Verdict::Unknown(_) => 1,
        _ => 2,
    });
    let marked = bad.iter().filter(|one| marks(facts, one).is_some()).count();
    let mut named = Vec::new();
    html! {
        section aria-labelledby="alerts" {
            h2 #alerts { "Alerts (" (bad.len()) @if marked > 0 { ", " (marked) " of them silenced or acknowledged" } ")" }
            @if bad.is_empty() {
                p { (word("ok")) " Nothing is wrong that xdb knows of." }
            }
            @for finding in bad.iter().take(MOST) { (one(facts, finding, &mut named)) }
            @if bad.len() > MOST {
                p { (bad.len() - MOST) " more: " code { "xdb status" } }
            }
        }
    }
}

fn one<'a>(facts: &'a Facts<'_>, finding: &'a Finding, named: &mut Vec<&'static str>) -> Markup {
    let key = AlertKey::of(finding).to_string();
    let verdict = finding.verdict.word();
    let (since, marks) = (since(facts, &key), marks(facts, finding));
    let path = finding.runbook.as_deref();
    let found = path.and_then(runbook);
    // The first alert of a check shows its runbook, the others link to it.
    let shown = found.filter(|(name, _)| !named.contains(name) && named.len() < RUNBOOKS);
    named.extend(shown.map(|(name, _)| name));
    html! {
        details id={ "alert-" (key) } class=(verdict) {
            summary id={ "summary-" (key) } {
                (word(verdict)) " " strong { (key) } ": " (finding.verdict.reason().unwrap_or_default())
                @if let Some(marks) = marks { " " em { "(" (marks) ")" } }
            }
            @if let Some(since) = since {
                p.muted { "Since " (point(since)) ", " (ago(since, facts.now)) }
            }
            @match (shown, found, path) {
                (Some((_, text)), ..) => { (markdown::render(text)) }
                (None, Some((name, _)), _) => { p { "Runbook: " a href={ "/runbooks/" (name) } { (name) } } }
                (None, None, path) => { (address_of(path)) }
            }
        }
    }
}

/// Where the runbook of a check of the operator's own is: a link, for an address of the web.
pub(super) fn address_of(runbook: Option<&str>) -> Markup {
    let is_web = |it: &&str| it.starts_with("https://") || it.starts_with("http://");
    html! {
        @match (runbook, runbook.filter(is_web)) {
            (_, Some(address)) => { p { "Runbook: " a href=(address) { (address) } } }
            (Some(path), None) => { p { "Runbook: " code { (path) } } }
            (None, None) => { p.muted { "This check has no runbook." } }
        }
    }
}

/// What people decided about an alert, or what it follows from.
fn marks<'a>(facts: &'a Facts<'_>, finding: &Finding) -> Option<&'a AlertMarks> {
    let key = AlertKey::of(finding).to_string();
    let mut marked = facts.status.marked.iter();
    let found = marked.find(|marked| marked.alert == key)?;
    Some(&found.marks)
}

/// Since when an alert of this key stands, on any node.
fn since(facts: &Facts<'_>, key: &str) -> Option<jiff::Timestamp> {
    let peers = facts.known.peers.iter();
    let theirs = peers.filter_map(|peer| peer.live(facts.now));
    let theirs = theirs.flat_map(|state| &state.alerts);
    let mut all = facts.known.alerts.iter().chain(theirs);
    let found = all.find(|alert: &&Standing| alert.key == key)?;
    Some(found.since)
}
