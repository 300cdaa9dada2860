//! One client's connection.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::protocol::{ERROR, HEADER, OK, Request, body_length, frame};
use super::{PendingRequest, push_times};

/// How long a client may take to say what it wants.
const ASKS: Duration = Duration::from_secs(10);

/// Answers until the client is done; a check is answered well only where pushing is served, too.
pub(super) async fn converse(mut stream: UnixStream, asking: mpsc::Sender<PendingRequest>) {
    // A client that goes away is its own business.
    while let Ok(Ok(request)) = timeout(ASKS, read(&mut stream)).await {
        let is_check = request == Some(Request::Check);
        let begun = Instant::now();
        let good = match request {
            Some(request) => match asked(&asking, request).await {
                Some(good) => good,
                // Unanswered: an upload of it may still be running.
                None => return,
            },
            None => false,
        };
        if !is_check {
            push_times::note(good, begun.elapsed());
        }
        let answer = frame(if good { OK } else { ERROR }, "");
        if stream.write_all(&answer).await.is_err() || !is_check {
            return;
        }
    }
}

async fn asked(asking: &mpsc::Sender<PendingRequest>, request: Request) -> Option<bool> {
    let (answer, answered) = oneshot::channel();
    asking.send((request, answer)).await.ok()?;
    answered.await.ok()
}

/// `None` for a request that is not served.
async fn read(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let Some(length) = body_length(header) else {
        return Ok(None);
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Request::parse(header[0], &body))
}
