//! A relay between the server and a program whose session settings cannot be chosen: it adds them to each login.
//!
//! It knows the first message of a connection, and passes on all that follows as it is. It answers no request for TLS by
//! itself: where the server agrees to one, the login is encrypted, and passes unchanged.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Target, program_options};

/// Where a program finds the server; dropping it ends the relay and all that it passes on.
#[derive(Debug)]
pub struct Relay {
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
    pub async fn start(target: &Target, directory: &Path) -> Result<Self> {
        let server = target.clone();
        if !target.host.starts_with('/') {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let port = listener.local_addr()?.port();
            let task = tokio::spawn(async move {
                let mut sessions = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    sessions.spawn(pass_on(client, server.clone()));
                    while sessions.try_join_next().is_some() {}
                }
            });
            return Ok(Self {
                host: "127.0.0.1".to_owned(),
                port,
                task,
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
        let task = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                sessions.spawn(pass_on(client, server.clone()));
                while sessions.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            host: directory.to_string_lossy().into_owned(),
            port: target.port,
            task,
            socket: Some(socket),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn pass_on(client: impl Stream, target: Target) {
    // Either end sees for itself that the other is gone.
    let _ = pass_on_login(client, &target).await;
}

async fn pass_on_login(mut client: impl Stream, target: &Target) -> Result<()> {
    let mut server: Box<dyn Stream> = if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
        Box::new(UnixStream::connect(path).await?)
    } else {
        Box::new(TcpStream::connect((target.host.as_str(), target.port)).await?)
    };
    let options = program_options();
    relay(&mut client, &mut server, &options).await
}

/// Codes in place of a protocol's version: requests for TLS and for GSSAPI, which the server answers with one byte.
const REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
const PROTOCOL_3: u32 = 3 << 16;

async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    options: &str,
) -> Result<()> {
    loop {
        let message = first_message(client).await?;
        let code = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
        if code & 0xFFFF_0000 == PROTOCOL_3 {
            server.write_all(&with_options(message, options)).await?;
            break;
        }
        server.write_all(&message).await?;
        if !REQUESTS.contains(&code) {
            break;
        }
        let answer = server.read_u8().await?;
        client.write_all(&[answer]).await?;
        if answer != b'N' {
            break;
        }
    }
    copy_bidirectional(client, server).await?;
    Ok(())
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
        let relayed = tokio::spawn(async move { relay(&mut near, &mut far, "-c a=b").await });
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
        program.write_all(b"more").await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop((program, server));
        let _ = relayed.await.unwrap();
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
