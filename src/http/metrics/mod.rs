//! `GET /metrics`: what xdb judges, made from live state at each scrape.
//!
//! It names nothing that postgres_exporter or pgbouncer_exporter already measure.

mod encode;
mod family;
#[cfg(test)]
mod packaged;
#[cfg(test)]
mod reference;
mod samples;
mod table;
#[cfg(test)]
pub(super) mod tests;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use jiff::Timestamp;

use super::Shown;
use crate::cluster::evaluate;
use encode::{Format, encode};
use samples::{Samples, Scrape};

pub(super) async fn metrics(
    State(shown): State<Shown>,
    headers: HeaderMap,
) -> impl IntoResponse + use<> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::wanted(accept);
    let samples = scrape(&shown, Timestamp::now());
    let headers = [
        (CONTENT_TYPE, format.content_type()),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, encode(samples, format))
}

fn scrape(shown: &Shown, now: Timestamp) -> Samples {
    let view = shown.view.borrow().clone();
    let (known, observed) = (shown.known.borrow(), shown.observed.borrow());
    let status = evaluate(&shown.cluster, &shown.hostname, &view, &known, now);
    Samples::of(&Scrape {
        cluster: &shown.cluster,
        hostname: &shown.hostname,
        view: &view,
        known: &known,
        status: &status,
        observed: &observed,
        now,
    })
}
