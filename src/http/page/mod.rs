//! `GET /`: the cluster for a browser, made from the same verdict as all else. It needs no JavaScript and nothing from elsewhere.
//!
//! A script of a few lines replaces `<main>` each ten seconds; the policy allows that script and the one style sheet by their
//! hashes, and nothing else.

mod alerts;
mod archive;
mod badge;
mod frame;
mod headline;
mod jobs;
mod markdown;
mod nodes;
mod plot;
mod plots;
mod restore_tests;
mod silences;
#[cfg(test)]
mod tests;
mod words;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};

use super::{Observed, Shown};
use crate::cluster::{Knowledge, Status, View, archive_end, evaluate};
use crate::model::{AlertKey, runbook};

/// What the page is made from.
struct Facts<'a> {
    status: &'a Status,
    hostname: &'a str,
    view: &'a View,
    known: &'a Knowledge,
    observed: &'a Observed,
    now: Timestamp,
}

pub(super) async fn index(State(shown): State<Shown>) -> Response {
    let now = Timestamp::now();
    let view = shown.view.borrow().clone();
    let (known, observed) = (shown.known.borrow(), shown.observed.borrow());
    let status = evaluate(&shown.cluster, &shown.hostname, &view, &known, now);
    let facts = Facts {
        status: &status,
        hostname: &shown.hostname,
        view: &view,
        known: &known,
        observed: &observed,
        now,
    };
    answer(StatusCode::OK, page(&facts))
}

/// A runbook of its own page: the rules of Prometheus link there.
pub(super) async fn one_runbook(State(shown): State<Shown>, Path(name): Path<String>) -> Response {
    let Some((name, text)) = runbook(&name) else {
        return runbook_elsewhere(&shown, &name);
    };
    let body = html! {
        p { a href="/" { "The cluster" } }
        (markdown::render(text))
    };
    answer(StatusCode::OK, frame::plain(name, &body))
}

/// Of a check of the operator's own: where its runbook is. 404 for a name that nothing has.
fn runbook_elsewhere(shown: &Shown, check: &str) -> Response {
    let (known, observed) = (shown.known.borrow(), shown.observed.borrow());
    let found = observed.findings.iter();
    let found = found.map(|(finding, _)| (finding.check.clone(), finding.runbook.as_deref()));
    let raised = known.alerts.iter().filter_map(|alert| {
        let key = AlertKey::parse(&alert.key).ok()?;
        Some((key.check, alert.runbook.as_deref()))
    });
    let mut of_check = found.chain(raised).filter(|(name, _)| name == check);
    let Some((_, address)) = of_check.next() else {
        let none = html! {
            p { "There is no runbook of this name. " a href="/" { "The cluster" } }
        };
        let title = "No such runbook";
        return answer(StatusCode::NOT_FOUND, frame::plain(title, &none));
    };
    let body = html! {
        p { a href="/" { "The cluster" } }
        (alerts::address_of(address))
    };
    answer(StatusCode::OK, frame::plain(check, &body))
}

pub(super) async fn proven_badge(State(shown): State<Shown>) -> Response {
    let now = Timestamp::now();
    let view = shown.view.borrow().clone();
    let (known, observed) = (shown.known.borrow(), shown.observed.borrow());
    let status = evaluate(&shown.cluster, &shown.hostname, &view, &known, now);
    let own = observed.findings.iter().map(|(finding, _)| finding);
    let svg = badge::proven(known.evidence.as_ref(), own.chain(&status.findings), now);
    let headers = [
        (CONTENT_TYPE, "image/svg+xml"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ];
    (headers, svg.into_string()).into_response()
}

fn answer(code: StatusCode, page: Markup) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/html; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-store"),
        (CONTENT_SECURITY_POLICY.as_str(), frame::policy()),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    (code, headers, page.into_string()).into_response()
}

fn page(facts: &Facts<'_>) -> Markup {
    let status = facts.status;
    let extent = status.evidence.as_ref().and_then(|it| it.extent.as_ref());
    let end = archive_end(facts.view, facts.known);
    let (unread, unproven) = (headline::unread(facts), headline::unread_proof(facts));
    let main = html! {
        (headline::headline(facts))
        (alerts::alerts(facts))
        (silences::silences(&facts.known.silences, facts.now))
        (nodes::nodes(facts))
        (nodes::pools(facts))
        (archive::archive((extent, unread.as_deref()), end, facts.now))
        (restore_tests::restore_tests((extent, unproven.as_deref()), status.rto.objective_secs, facts.now))
        (jobs::jobs(facts.observed, facts.now))
        (plots::plots(facts))
    };
    frame::refreshing(status, &main)
}
