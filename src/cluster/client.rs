//! Asks a daemon over HTTP: a peer's, or this node's own.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LsnRing, NodeState, Status};

/// For one question, connecting included.
const LIMIT: Duration = Duration::from_secs(2);
/// No answer is larger; a day of positions is 120 kB.
const LARGEST: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{address} cannot be reached: {source}")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("{address} did not answer within {} s", LIMIT.as_secs())]
    Silent { address: String },
    #[error("{address} gives no answer that xdb can read: {reason}")]
    Answer { address: String, reason: String },
}

/// Where the daemon of this very node answers: `listen` may say "everywhere".
pub(crate) fn own_address(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        _ => listen.to_owned(),
    }
}

/// What the daemon at `address` says of its node.
///
/// # Errors
/// When it does not answer, or another program does.
pub(crate) async fn ask_state(address: &str) -> Result<NodeState, AskError> {
    get_json(address, "/api/node").await
}

/// The primary's positions as the daemon at `address` knows them.
///
/// # Errors
/// When it does not answer, or another program does.
pub(crate) async fn ask_positions(address: &str) -> Result<LsnRing, AskError> {
    get_json(address, "/api/positions").await
}

/// The verdict of the daemon at `address`.
///
/// # Errors
/// When it does not answer, or another program does.
pub(crate) async fn ask_status(address: &str) -> Result<Status, AskError> {
    get_json(address, "/api/status").await
}

/// The text at `path` of another HTTP server, which needs no password.
///
/// # Errors
/// When it does not answer with success, or not with UTF-8.
pub(crate) async fn ask_text(address: &str, path: &str) -> Result<String, AskError> {
    let asked = timeout(LIMIT, get(address, path)).await;
    let body = asked.unwrap_or_else(|_| {
        Err(AskError::Silent {
            address: address.to_owned(),
        })
    })?;
    String::from_utf8(body.to_vec()).map_err(|error| odd(address, &error.to_string()))
}

async fn get_json<T: DeserializeOwned>(address: &str, path: &str) -> Result<T, AskError> {
    let asked = timeout(LIMIT, get(address, path)).await;
    let body = asked.unwrap_or_else(|_| {
        Err(AskError::Silent {
            address: address.to_owned(),
        })
    })?;
    serde_json::from_slice(&body).map_err(|error| odd(address, &error.to_string()))
}

async fn get(address: &str, path: &str) -> Result<Bytes, AskError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AskError::Connect {
            address: address.to_owned(),
            source,
        })?;
    let wrong = |error: hyper::Error| odd(address, &error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(wrong)?;
    let request = Request::get(path)
        .header("host", address)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| odd(address, &error.to_string()))?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(wrong)?;
        if !answer.status().is_success() {
            return Err(odd(address, &format!("{path} gives {}", answer.status())));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| odd(address, &error.to_string()))?;
        Ok(body.to_bytes())
    };
    tokio::pin!(answered);
    tokio::select! {
        body = &mut answered => body,
        // The connection may end as soon as the answer is read from it.
        _ = connection => answered.await,
    }
}

fn odd(address: &str, reason: &str) -> AskError {
    AskError::Answer {
        address: address.to_owned(),
        reason: reason.to_owned(),
    }
}
