//! A relay between the server and a program whose session settings cannot be chosen: it adds them to each login.
//!
//! It changes the first message of a connection, and passes on the rest unchanged. The server answers requests for TLS: where
//! it agrees to one, the login is encrypted and passes unchanged, too.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Target, program_options};

/// Where a program finds the server; dropping it ends the relay and all that it passes on.
#[derive(Debug)]
pub(crate) struct Relay {
    pub host: String,
    pub port: u16,
    task: JoinHandle<()>,
    /// Of a Unix socket; its file goes with the relay.
    socket: Option<PathBuf>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(socket) = &self.socket {
            // A file that stays is replaced by the next relay.
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Relay {
    /// Listens in front of the server of `target`: on a Unix socket in `directory` where the server is reached by one, so
    /// that logins by the name of the user work as before, else on a port of this machine.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) async fn start(target: &Target, directory: &Path) -> Result<Self> {
        if !target.host.starts_with('/') {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            return Ok(Self {
                host: "127.0.0.1".to_owned(),
                port: listener.local_addr()?.port(),
                task: tokio::spawn(serve(Listener::Tcp(listener), target.clone())),
                socket: None,
            });
        }
        let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
        made.or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        let socket = directory.join(format!(".s.PGSQL.{}", target.port));
        // Of a relay that was killed.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        Ok(Self {
            host: directory.to_string_lossy().into_owned(),
            port: target.port,
            task: tokio::spawn(serve(Listener::Unix(listener), target.clone())),
            socket: Some(socket),
        })
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// After a failed accept: file descriptors may have run out for a moment, and the client waits in the queue.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes on each connection; its sessions end with it.
async fn serve(listener: Listener, target: Target) {
    let mut sessions = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(client) => {
                sessions.spawn(pass_on(client, target.clone()));
            }
            Err(_) => sleep(PAUSE).await,
        }
        while sessions.try_join_next().is_some() {}
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn pass_on(mut client: Box<dyn Stream>, target: Target) {
    // Each end notices that the other is gone.
    let login = timeout(target.connect_timeout, begin(&mut client, &target)).await;
    if let Ok(Ok(mut server)) = login {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Connects to the server and passes on what comes before the session, with the options in it.
async fn begin(client: &mut Box<dyn Stream>, target: &Target) -> Result<Box<dyn Stream>> {
    let mut server: Box<dyn Stream> = if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
        Box::new(UnixStream::connect(path).await?)
    } else {
        Box::new(TcpStream::connect((target.host.as_str(), target.port)).await?)
    };
    relay_login(client, &mut server, &program_options()).await?;
    Ok(server)
}

/// Codes in place of a protocol's version: requests for TLS and for GSSAPI, which the server answers with one byte.
const REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
const PROTOCOL_3: u32 = 3 << 16;

async fn relay_login(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    options: &str,
) -> Result<()> {
    loop {
        let message = first_message(client).await?;
        let code = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
        if code & 0xFFFF_0000 == PROTOCOL_3 {
            server.write_all(&with_options(message, options)).await?;
            return Ok(());
        }
        server.write_all(&message).await?;
        if !REQUESTS.contains(&code) {
            return Ok(());
        }
        let answer = server.read_u8().await?;
        client.write_all(&[answer]).await?;
        if answer != b'N' {
            return Ok(());
        }
    }
}

/// The first message of a connection, which has a length and no type.
async fn first_message(client: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    /// As PostgreSQL: `MAX_STARTUP_PACKET_LENGTH`.
    const LONGEST: usize = 10_000;
    let mut length = [0; 4];
    client.read_exact(&mut length).await?;
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(8..=LONGEST).contains(&bytes) {
        return Err(Error::from(ErrorKind::InvalidData));
    }
    let mut message = vec![0; bytes];
    message[..4].copy_from_slice(&length);
    client.read_exact(&mut message[4..]).await?;
    Ok(message)
}

/// Adds `options` to the names and values of a startup message, which a zero byte ends.
fn with_options(message: Vec<u8>, options: &str) -> Vec<u8> {
    let mut message = message;
    message.pop();
    for text in ["options", options] {
        message.extend_from_slice(text.as_bytes());
        message.push(0);
    }
    message.push(0);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_login_gets_options_and_all_else_passes() {
        let (mut program, mut near) = duplex(1024);
        let (mut far, mut server) = duplex(1024);
        let relayed = tokio::spawn(async move {
            relay_login(&mut near, &mut far, "-c a=b").await.unwrap();
            (near, far)
        });
        // A request for TLS that the server denies comes first.
        let request = b"\0\0\0\x08\x04\xd2\x16\x2f";
        program.write_all(request).await.unwrap();
        let mut seen = [0; 8];
        server.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, request);
        server.write_all(b"N").await.unwrap();
        assert_eq!(program.read_u8().await.unwrap(), b'N');

        let login = b"\0\0\0\x12\0\x03\0\0user\0ann\0\0";
        program.write_all(login).await.unwrap();
        let expected = b"\0\0\0\x21\0\x03\0\0user\0ann\0options\0-c a=b\0\0";
        let mut seen = [0; 33];
        server.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, expected);
        // What follows is the session's.
        program.write_all(b"more").await.unwrap();
        let (mut near, _far) = relayed.await.unwrap();
        let mut rest = [0; 4];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"more");
    }

    fn target(port: u16) -> Target {
        Target {
            host: "127.0.0.1".to_owned(),
            port,
            user: "ann".to_owned(),
            password: None,
            database: "shop".to_owned(),
            connect_timeout: Duration::from_millis(200),
            tls: crate::postgres::Tls::none(),
        }
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_let_go_and_others_are_served() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let target = target(port);
        let relay = Relay::start(&target, Path::new("/nonexistent"));
        let relay = relay.await.unwrap();
        let connect = || TcpStream::connect((relay.host.as_str(), relay.port));
        let mut mute = connect().await.unwrap();
        let _held = server.accept().await.unwrap();
        // Its end: the login has a deadline.
        assert_eq!(mute.read(&mut [0; 1]).await.unwrap(), 0);

        let mut client = connect().await.unwrap();
        let login = b"\0\0\0\x12\0\x03\0\0user\0ann\0\0";
        client.write_all(login).await.unwrap();
        let (mut session, _) = server.accept().await.unwrap();
        let seen = first_message(&mut session).await.unwrap();
        assert!(seen.len() > login.len());
        // A session has none.
        sleep(Duration::from_millis(400)).await;
        session.write_all(b"R").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'R');
    }

    #[tokio::test]
    async fn a_message_of_an_impossible_length_ends_the_connection() {
        for length in [0_u32, 7, 10_001, u32::MAX] {
            let (mut program, mut near) = duplex(64);
            program.write_all(&length.to_be_bytes()).await.unwrap();
            assert!(first_message(&mut near).await.is_err(), "{length}");
        }
    }
}
