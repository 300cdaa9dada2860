//! The authentication method of a server, by its first answer to a login that is then given up.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Target;

/// How long a session may take to end.
const END: Duration = Duration::from_secs(1);

/// What the server asks for; codes of the protocol's Authentication messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginMethod {
    /// Nothing: `trust`, `peer`, a certificate.
    Free,
    Cleartext,
    Md5,
    Scram,
    /// GSSAPI and the like.
    Other,
}

/// How the server of `target` lets the user in, without TLS; `None` where it refuses before it asks.
///
/// PostgreSQL logs nothing of a client that leaves when it is asked for a password.
///
/// # Errors
/// When the server does not answer in time, or is none.
pub(crate) async fn login_method(target: &Target) -> io::Result<Option<LoginMethod>> {
    let asked = async {
        if target.host.starts_with('/') {
            let socket = format!("{}/.s.PGSQL.{}", target.host, target.port);
            ask(UnixStream::connect(socket).await?, target).await
        } else {
            let address = (target.host.as_str(), target.port);
            ask(TcpStream::connect(address).await?, target).await
        }
    };
    timeout(target.connect_timeout, asked).await?
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &Target,
) -> io::Result<Option<LoginMethod>> {
    stream.write_all(&startup(target)?).await?;
    let kind = stream.read_u8().await?;
    let length = stream.read_i32().await?;
    if kind != b'R' {
        return Ok(None);
    }
    let method = method(stream.read_i32().await?);
    // What is left unread would reset the connection, which PostgreSQL logs; an end it takes in silence.
    let rest = u64::try_from(length.saturating_sub(8)).unwrap_or_default();
    let mut sink = tokio::io::sink();
    tokio::io::copy(&mut (&mut stream).take(rest), &mut sink).await?;
    if method == LoginMethod::Free {
        // The session is there: it is ended as clients end one.
        stream.write_all(b"X\0\0\0\x04").await?;
        let _ = timeout(END, tokio::io::copy(&mut stream, &mut sink)).await;
    }
    Ok(Some(method))
}

/// The startup message of protocol 3.0.
fn startup(target: &Target) -> io::Result<Vec<u8>> {
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    for text in ["user", &target.user, "database", &target.database] {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = i32::try_from(body.len() + 4).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

fn method(code: i32) -> LoginMethod {
    match code {
        0 => LoginMethod::Free,
        3 => LoginMethod::Cleartext,
        5 => LoginMethod::Md5,
        10 => LoginMethod::Scram,
        _ => LoginMethod::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_method_is_read_from_the_first_answer() {
        let target = Target {
            host: "localhost".to_owned(),
            port: 5432,
            user: "ann".to_owned(),
            password: None,
            database: "shop".to_owned(),
            connect_timeout: Duration::from_secs(1),
            tls: crate::postgres::Tls::none(),
        };
        let expected = b"\0\0\0\x20\0\x03\0\0user\0ann\0database\0shop\0\0";
        assert_eq!(startup(&target).unwrap(), expected);
        for (answer, method) in [
            (&b"R\0\0\0\x0c\0\0\0\x05salt"[..], Some(LoginMethod::Md5)),
            (b"R\0\0\0\x08\0\0\0\0", Some(LoginMethod::Free)),
            (
                b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
                Some(LoginMethod::Scram),
            ),
            (b"E\0\0\0\x08no\0\0", None),
        ] {
            let (near, mut far) = tokio::io::duplex(64);
            far.write_all(answer).await.unwrap();
            assert_eq!(ask(near, &target).await.unwrap(), method);
        }
        let (near, far) = tokio::io::duplex(64);
        drop(far);
        assert!(ask(near, &target).await.is_err());
    }
}
