//! What the daemon serves over HTTP: three answers for HAProxy and people. Nothing here changes anything.

mod door;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::cluster::{View, judge_primary, judge_replica};
use door::Door;

/// Serves until the process ends; once `closing` is dropped, only those that were connected already.
///
/// # Errors
/// When the server ends.
pub async fn serve(
    listener: TcpListener,
    closing: oneshot::Receiver<()>,
    view: watch::Receiver<View>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/primary", get(primary))
        .route("/replica", get(replica))
        .route("/healthz", get(healthz))
        .route("/api/status", get(status))
        .with_state(view);
    let door = Door {
        listener: Some(listener),
        closing,
    };
    axum::serve(door, routes).await
}

type Answer = (StatusCode, String);

/// 200: writes may come here. 503 says why not.
async fn primary(State(view): State<watch::Receiver<View>>) -> Answer {
    answer(judge_primary(&view.borrow(), Timestamp::now()))
}

/// 200: reads may come here. 503 says why not.
async fn replica(State(view): State<watch::Receiver<View>>) -> Answer {
    answer(judge_replica(&view.borrow(), Timestamp::now()))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn status(State(view): State<watch::Receiver<View>>) -> Json<View> {
    Json(view.borrow().clone())
}

fn answer(judged: Result<(), String>) -> Answer {
    match judged {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
