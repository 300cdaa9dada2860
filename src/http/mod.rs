//! What the daemon serves over HTTP: answers for HAProxy, for its peers and for people. Nothing here changes anything.

mod connections;
mod metrics;
mod observed;
mod page;
mod plots;

use axum::extract::State;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, get};
use axum::{Json, Router};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster::{
    Knowledge, LsnRing, NodeState, Status, View, evaluate, judge_primary, judge_replica,
};

pub(crate) use observed::{JobState, LastRun, LastSuccess, Observed, Pushes, Requests, WaitingWal};

pub(crate) use plots::Plots;
#[cfg(test)]
pub(crate) use plots::SPANS;

/// What the answers are made from.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub cluster: String,
    pub hostname: String,
    pub listen: String,
    pub view: watch::Receiver<View>,
    pub known: watch::Receiver<Knowledge>,
    pub observed: watch::Receiver<Observed>,
}

/// Serves until the process ends; once `closing` ends, only those that were connected already.
///
/// `open_files` is the limit on this process's open files, where it is known.
///
/// # Errors
/// When the server ends.
pub(crate) async fn serve(
    listener: TcpListener,
    closing: impl Future<Output = ()>,
    shown: Shown,
    open_files: Option<u64>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/primary", checked(primary))
        .route("/replica", checked(replica))
        .route("/healthz", checked(healthz))
        .route("/", get(page::index))
        .route("/runbooks/{name}", get(page::one_runbook))
        .route("/badge/proven.svg", get(page::proven_badge))
        .route("/metrics", get(metrics::metrics))
        .route("/api/status", get(status))
        .route("/api/node", get(node))
        .route("/api/positions", get(positions))
        .with_state(shown);
    connections::serve(listener, closing, routes, open_files).await
}

/// GET, HEAD, and OPTIONS, which `option httpchk` of HAProxy sends where no method is named.
fn checked<H, T>(handler: H) -> MethodRouter<Shown>
where
    H: Handler<T, Shown>,
    T: 'static,
{
    get(handler.clone()).on(MethodFilter::OPTIONS, handler)
}

type Answer = (StatusCode, String);

/// 200: writes may come here. 503 says why not.
async fn primary(State(shown): State<Shown>) -> Answer {
    answer(judge_primary(&shown.view.borrow(), Timestamp::now()))
}

/// 200: reads may come here. 503 says why not.
async fn replica(State(shown): State<Shown>) -> Answer {
    answer(judge_replica(&shown.view.borrow(), Timestamp::now()))
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// The verdict on the cluster.
async fn status(State(shown): State<Shown>) -> Json<Status> {
    let (view, known) = (shown.view.borrow().clone(), shown.known.borrow());
    let now = Timestamp::now();
    Json(evaluate(
        &shown.cluster,
        &shown.hostname,
        &view,
        &known,
        now,
    ))
}

/// What this node says of itself to its peers.
async fn node(State(shown): State<Shown>) -> Json<NodeState> {
    Json(shown.state(Timestamp::now()))
}

/// Where the primary was when, for a peer that has just begun to listen.
async fn positions(State(shown): State<Shown>) -> Json<LsnRing> {
    Json(shown.known.borrow().positions.clone())
}

impl Shown {
    /// What this node says of itself.
    pub(crate) fn state(&self, now: Timestamp) -> NodeState {
        let (alerts, silences, rpo, server) = {
            let known = self.known.borrow();
            (
                known.alerts.clone(),
                known.silences.clone(),
                known.rpo.clone(),
                known.server.clone(),
            )
        };
        let view = self.view.borrow().clone();
        NodeState {
            silences,
            rpo,
            server,
            ..NodeState::new(&self.hostname, &self.listen, view, alerts, now)
        }
    }
}

fn answer(judged: Result<(), String>) -> Answer {
    match judged {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
