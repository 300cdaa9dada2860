//! A listener that can stop listening while what it took in is still answered.

use std::future::pending;
use std::net::SocketAddr;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Open until `closing` is sent to or dropped.
///
/// Dropping axum's server instead would close each connection that has not sent its request yet.
pub(super) struct Door {
    pub listener: Option<TcpListener>,
    pub closing: oneshot::Receiver<()>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        if let Some(listener) = &mut self.listener {
            tokio::select! {
                biased;
                _ = &mut self.closing => {}
                taken = Listener::accept(listener) => return taken,
            }
        }
        // Where systemd holds the socket too, whoever comes now waits there.
        self.listener = None;
        pending().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        let listener = self.listener.as_ref();
        listener.map_or(Err(std::io::ErrorKind::NotConnected.into()), |listener| {
            listener.local_addr()
        })
    }
}
