//! Requests to HTTP servers of others: receivers of alerts, and dead man's switches. One connection a request, with a deadline.
//!
//! It never follows a redirect, never reads more of an answer than its status, and shows no URL: only scheme, host and port.

mod files;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::config::Endpoint;

pub(crate) use files::secret_in;

/// For one request, connecting included.
const LIMIT: Duration = Duration::from_secs(10);

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
        matches!(self.status(), Some(413 | 422))
    }

    /// Whether the server refuses the request itself, and not its sender, its path or its time.
    pub fn is_refusal(&self) -> bool {
        const OF_OTHERS: [u16; 9] = [401, 403, 404, 405, 407, 408, 410, 425, 429];
        let status = self.status().filter(|status| (400..500).contains(status));
        status.is_some_and(|status| !OF_OTHERS.contains(&status))
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            _ => None,
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
            Self::File { .. } => {
                "name a regular file that the account postgres can read (chown root:postgres, chmod 0640)"
            }
            Self::Exposed { .. } => "chown root:postgres and chmod 0640 this file",
            Self::Content { .. } => {
                "write the URL or the token into this file, on one line, and nothing else"
            }
            Self::Connect { .. } | Self::Silent { .. } => {
                "check that the server runs, and that no security group or route blocks this node"
            }
            Self::Tls { .. } => {
                "set ca_cert_file to the CA of the server's certificate; the certificate must name the host of the URL"
            }
            Self::Protocol { .. } => "check the port of the URL: no web server answers there",
            Self::Refused { status, .. } => match status.as_u16() {
                300..400 => "xdb does not follow redirects: write the new URL",
                401 | 403 | 407 => "check the token, or the secret in the URL",
                404 | 405 | 410 => "check the path of the URL",
                408 | 425 | 429 => "the receiver limits requests: xdb waits and tries again",
                400..500 => "check format and token_file: the receiver does not accept the request",
                _ => "read the log of the receiver",
            },
        }
    }
}

/// One request: a POST of JSON, or a GET without a body. It has no `Debug`: the JSON for PagerDuty holds a key.
#[derive(Clone, Default)]
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
    let mut url = url_of(endpoint).await?;
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

async fn url_of(endpoint: &Endpoint) -> Result<Url, WebhookError> {
    let (text, path) = match endpoint {
        Endpoint::Url(url) => (url.clone(), Path::new("xdb.toml")),
        Endpoint::File(path) => (secret_in(path).await?, path.as_path()),
    };
    let url = Url::parse(text.expose_secret()).ok();
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    url.filter(is_http).ok_or_else(|| WebhookError::Content {
        path: path.to_owned(),
        expected: "URL that begins with http:// or https://",
    })
}

/// The value of the header for the user and the password in the URL.
fn login(url: &Url) -> Option<String> {
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    if user.is_empty() && password.is_empty() {
        return None;
    }
    let mut login: Vec<u8> = percent_decode_str(user).collect();
    login.push(b':');
    login.extend(percent_decode_str(password));
    Some(format!("Basic {}", STANDARD.encode(login)))
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
    let authorization = match call.token {
        Some(token) => Some(format!("Bearer {}", token.expose_secret())),
        None => login(url),
    };
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
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
    fn a_login_in_the_url_is_sent_as_basic_authentication_and_a_token_goes_before_it() {
        let token = SecretString::from("t0ken");
        for (url, token, expected) in [
            ("http://hooks.example/x", None, None),
            // user:p@ss
            (
                "http://user:p%40ss@hooks.example/x",
                None,
                Some("Basic dXNlcjpwQHNz"),
            ),
            ("http://user@hooks.example/x", None, Some("Basic dXNlcjo=")),
            (
                "http://user:hush@hooks.example/x",
                Some(&token),
                Some("Bearer t0ken"),
            ),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(server_of(&url), "http://hooks.example:80");
            let call = Call {
                token,
                ..Call::default()
            };
            let request = request(&url, &call).unwrap();
            let headers = request.headers();
            let sent = headers.get(AUTHORIZATION).map(|it| it.to_str().unwrap());
            assert_eq!(sent, expected, "{url}");
            assert_eq!(request.uri(), "/x");
            assert_eq!(headers[HOST], "hooks.example");
        }
    }

    #[test]
    fn a_refusal_is_of_the_request_only_where_nothing_else_is_its_reason() {
        for (status, refusal, is_final) in [
            (400, true, false),
            (413, true, true),
            (415, true, false),
            (422, true, true),
            (401, false, false),
            (403, false, false),
            (404, false, false),
            (410, false, false),
            (429, false, false),
            (301, false, false),
            (500, false, false),
        ] {
            let error = WebhookError::Refused {
                server: "http://hooks.example:80".to_owned(),
                status: StatusCode::from_u16(status).unwrap(),
                retry_after: None,
            };
            assert_eq!(
                (error.is_refusal(), error.is_final()),
                (refusal, is_final),
                "{status}"
            );
        }
    }
}
