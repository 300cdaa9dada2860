//! Watches the bytes of a server: whether any came (a proxy that accepts proves nothing), and how it authenticates the client.
//! The login ends before an answer that `require_auth` forbids.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::auth_methods::{AuthMethods, proves};

/// The server asks for what `require_auth` forbids.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Forbidden(pub(super) String);

/// What comes next from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// One byte: whether it agrees to TLS.
    Answer,
    /// Messages of the login.
    Messages,
    /// TLS or a session, which are not watched.
    Anything,
}

/// A stream whose messages from the server are read up to the end of the login.
pub(super) struct Watched<S> {
    stream: S,
    watch: Watch,
    /// Set with the first byte from the server.
    heard: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    pub(super) fn new(
        stream: S,
        methods: Option<&AuthMethods>,
        next: Awaited,
        heard: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            stream,
            watch: Watch::new(methods, next),
            heard: Arc::clone(heard),
        }
    }
}

struct Watch {
    methods: Option<AuthMethods>,
    next: Awaited,
    /// The beginning of a message: its type, its length, and the code of one about the login.
    head: Vec<u8>,
    /// What is left of a message.
    skip: usize,
    has_proven: bool,
}

impl Watch {
    fn new(methods: Option<&AuthMethods>, next: Awaited) -> Self {
        Self {
            methods: methods.cloned(),
            next,
            head: Vec::new(),
            skip: 0,
            has_proven: false,
        }
    }

    fn judge(&mut self, bytes: &[u8]) -> Result<(), Forbidden> {
        let Some(methods) = &self.methods else {
            return Ok(());
        };
        for byte in bytes {
            match self.next {
                Awaited::Anything => return Ok(()),
                Awaited::Answer => {
                    self.next = match byte {
                        b'S' => Awaited::Anything,
                        _ => Awaited::Messages,
                    };
                    continue;
                }
                Awaited::Messages => {}
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.head.push(*byte);
            let (kind, head) = match self.head.as_slice() {
                [b'R', head @ ..] if head.len() == 8 => (b'R', head),
                [kind, head @ ..] if *kind != b'R' && head.len() == 4 => (*kind, head),
                _ => continue,
            };
            let number = |at: usize| {
                u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
            self.skip = length.saturating_sub(head.len());
            if kind == b'R' {
                let code = number(4);
                methods.judge(code, self.has_proven).map_err(Forbidden)?;
                self.has_proven |= proves(code);
                if code == 0 {
                    self.next = Awaited::Anything;
                }
            }
            self.head.clear();
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.heard.store(true, Ordering::Relaxed);
        }
        let judged = self.watch.judge(read);
        Poll::Ready(judged.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Watches what comes through TLS.
pub(super) struct WatchedTls<C> {
    pub(super) connector: C,
    pub(super) methods: Option<AuthMethods>,
    pub(super) heard: Arc<AtomicBool>,
}

impl<S, C> TlsConnect<S> for WatchedTls<C>
where
    C: TlsConnect<S>,
    C::Future: Send + 'static,
{
    type Stream = Watched<C::Stream>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.connector.connect(stream);
        Box::pin(async move {
            let stream = connecting.await?;
            let methods = self.methods.as_ref();
            Ok(Watched::new(
                stream,
                methods,
                Awaited::Messages,
                &self.heard,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_watched_up_to_its_end() {
        const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
        const FINAL: &[u8] = b"R\0\0\0\x0a\0\0\0\x0cv=";
        const PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
        const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
        const NOTICE: &[u8] = b"N\0\0\0\x06\0\0";
        for (methods, next, parts, good) in [
            (
                "scram-sha-256",
                Awaited::Messages,
                &[SCRAM, FINAL, OK][..],
                true,
            ),
            ("scram-sha-256", Awaited::Messages, &[SCRAM, OK], false),
            (
                "scram-sha-256",
                Awaited::Messages,
                &[NOTICE, PASSWORD],
                false,
            ),
            ("scram-sha-256", Awaited::Answer, &[b"N", PASSWORD], false),
            (
                "scram-sha-256",
                Awaited::Answer,
                &[b"N", SCRAM, FINAL, OK],
                true,
            ),
            // Encrypted.
            ("scram-sha-256", Awaited::Answer, &[b"S", PASSWORD], true),
            ("scram-sha-256", Awaited::Anything, &[PASSWORD], true),
            ("none", Awaited::Messages, &[OK], true),
            ("none", Awaited::Messages, &[SCRAM], false),
            // After the login.
            ("none", Awaited::Messages, &[OK, PASSWORD], true),
            ("!password", Awaited::Messages, &[NOTICE, OK], true),
        ] {
            let methods = AuthMethods::parse(methods).unwrap();
            let bytes = parts.concat();
            // However the bytes come.
            for size in [1, 3, 1000] {
                let mut watch = Watch::new(Some(&methods), next);
                let judged = bytes.chunks(size).try_for_each(|part| watch.judge(part));
                assert_eq!(judged.is_ok(), good, "{methods:?} {parts:?} {judged:?}");
            }
        }
    }
}
