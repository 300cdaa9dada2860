//! Requests to HTTP servers of others: receivers of alerts, and dead man's switches. One connection a request, with a deadline.
//!
//! It never follows a redirect, never reads more of an answer than its status, and shows no URL: only scheme, host and port.

mod tls;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::config::Endpoint;

/// For one request, connecting included.
const LIMIT: Duration = Duration::from_secs(10);
/// No URL and no token is longer.
const LARGEST: u64 = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} may be read by every user, and holds a secret", path.display())]
    Exposed { path: PathBuf },
    #[error("{} holds no {expected}", path.display())]
    Content {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("{server} cannot be reached")]
    Connect {
        server: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no TLS with {server}: {reason}")]
    Tls { server: String, reason: String },
    #[error("{server} did not answer within {} s", LIMIT.as_secs())]
    Silent { server: String },
    #[error("{server} does not speak HTTP/1.1: {reason}")]
    Protocol { server: String, reason: String },
    #[error("{server} answered {status}")]
    Refused {
        server: String,
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

impl WebhookError {
    /// Whether the server has judged the content of the request: the same request will never do.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status.as_u16(), 400 | 413 | 422),
            _ => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "name a file that the database's user may read",
            Self::Exposed { .. } => "chown root:postgres and chmod 0640 that file",
            Self::Content { .. } => {
                "write one line into that file: nothing but the URL or the token"
            }
            Self::Connect { .. } | Self::Silent { .. } => {
                "does the server run there, and does a security group or a route stand in the way?"
            }
            Self::Tls { .. } => {
                "ca_cert_file names the CA of the server's certificate, which must hold the host name in the URL"
            }
            Self::Protocol { .. } => "does the URL's port belong to a web server?",
            Self::Refused { status, .. } => match status.as_u16() {
                300..400 => "the server has moved: write its new URL",
                401 | 403 => "check the token, or the secret in the URL",
                404 | 405 | 410 => "check the path of the URL",
                400 | 413 | 422 => "check format: the server does not take such a request",
                429 => "the server asks for fewer requests; xdb waits",
                _ => "see the server's own log",
            },
        }
    }
}

/// One request: a POST of JSON, or a GET without a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call<'a> {
    /// Appended to the URL's path, which may end with it already.
    pub path: &'a str,
    pub json: Option<&'a str>,
    pub token: Option<&'a SecretString>,
    /// The same on each attempt at the same event.
    pub id: Option<&'a str>,
    pub ca_cert_file: Option<&'a Path>,
}

/// Makes one request and waits for its status.
///
/// # Errors
/// Without an answer, or with one that is no success.
pub(crate) async fn call(endpoint: &Endpoint, call: &Call<'_>) -> Result<(), WebhookError> {
    let mut url = url_of(endpoint)?;
    if !url.path().ends_with(call.path) {
        let path = format!("{}{}", url.path().trim_end_matches('/'), call.path);
        url.set_path(&path);
    }
    let server = server_of(&url);
    let asked = timeout(LIMIT, ask(&url, &server, call)).await;
    let (status, retry_after) = asked.unwrap_or_else(|_| {
        Err(WebhookError::Silent {
            server: server.clone(),
        })
    })?;
    if status.is_success() {
        return Ok(());
    }
    Err(WebhookError::Refused {
        server,
        status,
        retry_after,
    })
}

/// The one line of a file that holds a secret.
///
/// # Errors
/// When it cannot be read, every user may read it, or it holds no line.
pub(crate) fn secret_in(path: &Path) -> Result<SecretString, WebhookError> {
    let failed = |source| WebhookError::File {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o007 != 0 {
        let path = path.to_owned();
        return Err(WebhookError::Exposed { path });
    }
    let mut text = String::new();
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let line = text.trim();
    if line.is_empty() || !line.is_ascii() || line.contains(char::is_control) {
        return Err(WebhookError::Content {
            path: path.to_owned(),
            expected: "secret on one line",
        });
    }
    Ok(line.into())
}

fn url_of(endpoint: &Endpoint) -> Result<Url, WebhookError> {
    let (text, path) = match endpoint {
        Endpoint::Url(url) => (url.clone(), Path::new("xdb.toml")),
        Endpoint::File(path) => (secret_in(path)?, path.as_path()),
    };
    let url = Url::parse(text.expose_secret()).ok();
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    url.filter(is_http).ok_or_else(|| WebhookError::Content {
        path: path.to_owned(),
        expected: "URL that begins with http:// or https://",
    })
}

/// What messages show of a URL.
fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}://{host}:{port}", url.scheme())
}

async fn ask(
    url: &Url,
    server: &str,
    call: &Call<'_>,
) -> Result<(StatusCode, Option<Duration>), WebhookError> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    // An IPv6 address stands in brackets in a URL alone.
    let name = host.trim_matches(['[', ']']);
    let stream =
        TcpStream::connect((name, port))
            .await
            .map_err(|source| WebhookError::Connect {
                server: server.to_owned(),
                source,
            })?;
    if url.scheme() == "https" {
        let secured = tls::secure(stream, name, call.ca_cert_file).await;
        let secured = secured.map_err(|reason| WebhookError::Tls {
            server: server.to_owned(),
            reason,
        })?;
        exchange(secured, url, server, call).await
    } else {
        exchange(stream, url, server, call).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Url,
    server: &str,
    call: &Call<'_>,
) -> Result<(StatusCode, Option<Duration>), WebhookError> {
    let wrong = |reason: String| WebhookError::Protocol {
        server: server.to_owned(),
        reason,
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| wrong(error.to_string()))?;
    let request = request(url, call).map_err(|error| wrong(error.to_string()))?;
    let answered = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| wrong(error.to_string()))?;
        let header = answer.headers().get(RETRY_AFTER);
        let secs = header.and_then(|secs| secs.to_str().ok()?.trim().parse().ok());
        Ok((answer.status(), secs.map(Duration::from_secs)))
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // The connection may end as soon as the answer is read from it.
        _ = connection => answered.await,
    }
}

fn request(url: &Url, call: &Call<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    const ID: HeaderName = HeaderName::from_static("idempotency-key");
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = url.host_str().unwrap_or_default();
    let host = url
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let method = if call.json.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(HOST, host).header("connection", "close");
    request = request.header("user-agent", concat!("xdb/", env!("CARGO_PKG_VERSION")));
    if call.json.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = call.token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    }
    if let Some(id) = call.id {
        request = request.header(ID, id);
    }
    let body = call.json.unwrap_or_default().to_owned();
    request.body(Full::new(Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_a_url() {
        let secret = "https://hooks.example:8443/services/T0/B0/hush?token=hush";
        let url = Url::parse(secret).unwrap();
        assert_eq!(server_of(&url), "https://hooks.example:8443");
        let endpoint = Endpoint::Url(secret.into());
        assert!(!format!("{endpoint:?}").contains("hush"));
        let error = WebhookError::Refused {
            server: server_of(&url),
            status: StatusCode::NOT_FOUND,
            retry_after: None,
        };
        assert_eq!(
            error.to_string(),
            "https://hooks.example:8443 answered 404 Not Found"
        );
        assert!(!error.is_final());
    }

    #[test]
    fn a_secret_is_one_line_of_a_file_that_not_everybody_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            secret_in(&path)
        };
        assert_eq!(write(" hush\n", 0o640).unwrap().expose_secret(), "hush");
        assert!(matches!(
            write("hush", 0o644),
            Err(WebhookError::Exposed { .. })
        ));
        for text in ["", "\n", "hush\nhush"] {
            let error = write(text, 0o600).unwrap_err();
            assert!(matches!(error, WebhookError::Content { .. }), "{text:?}");
            assert!(!error.to_string().contains("hush"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(secret_in(&path), Err(WebhookError::File { .. })));
    }
}
