//! TLS as libpq's `sslmode` means it (PostgreSQL manual, "SSL Support"), without OpenSSL.

mod certificate;
mod chain;
mod files;
mod host_name;
mod name;
mod name_constraints;
mod revocation;
mod source;
mod verifier;

pub(crate) use files::{RootCert, TlsError, TlsFiles};
pub(crate) use verifier::tls_failure;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use files::ReadTlsFiles;
use source::TlsSource;
use verifier::Verifier;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// The mode that libpq calls `name`, or the default for what is none: configuration has checked it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => Self::Prefer,
        }
    }

    /// How to connect, and how to try again when that is refused.
    pub(crate) fn ways(self) -> &'static [Negotiation] {
        match self {
            Self::Disable => &[Negotiation::Disable],
            Self::Allow => &[Negotiation::Disable, Negotiation::Require],
            Self::Prefer => &[Negotiation::Prefer, Negotiation::Disable],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Negotiation::Require],
        }
    }

    /// A mode that demands a certificate that proves the server.
    pub(crate) fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// A mode that also accepts a connection without encryption.
    fn is_weak(self) -> bool {
        matches!(self, Self::Disable | Self::Allow | Self::Prefer)
    }
}

/// Which versions of TLS may be spoken; libpq's least is 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TlsVersions {
    #[default]
    Any,
    Only12,
    Only13,
    /// None that is safe.
    Old,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        use rustls::version::{TLS12, TLS13};
        match self {
            Self::Any => vec![&TLS13, &TLS12],
            Self::Only12 => vec![&TLS12],
            Self::Only13 => vec![&TLS13],
            Self::Old => Vec::new(),
        }
    }
}

/// Whether to encrypt, and whom to trust.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub mode: SslMode,
    /// `sslnegotiation=direct`: TLS from the first byte.
    pub direct: bool,
    pub versions: TlsVersions,
    /// `sslsni`: whether the handshake names the host.
    pub names_host: bool,
    /// `None` where nothing is encrypted.
    source: Option<Arc<TlsSource>>,
}

impl Tls {
    pub(crate) fn none() -> Self {
        Self {
            mode: SslMode::Disable,
            direct: false,
            versions: TlsVersions::Any,
            names_host: true,
            source: None,
        }
    }

    /// `mode` with the certificates in `files`; a chain is verified in every mode where there are root certificates.
    ///
    /// # Errors
    /// When encryption is demanded, and its files cannot be used or contradict `mode`.
    pub(crate) fn new(mode: SslMode, files: &TlsFiles) -> Result<Self, TlsError> {
        if files.root == RootCert::System && mode != SslMode::VerifyFull {
            return Err(TlsError::WeakMode("sslrootcert=system", "verify-full"));
        }
        let tls = Self::reading(mode, files);
        if let Some(source) = &tls.source {
            match source.load() {
                Err(error) if !mode.is_weak() => return Err(error),
                // Without the file its handshakes fail, as libpq's do.
                _ => {}
            }
        }
        Ok(tls)
    }

    /// For a server at `host`: what cannot be used makes its handshake fail, and no other one.
    pub(crate) fn of(host: &str, mode: SslMode, root: Option<&Path>) -> Self {
        let root = RootCert::of(root);
        // The configuration refuses a weak mode with them; what is verified must not come without encryption.
        let mode = match root {
            RootCert::System => SslMode::VerifyFull,
            _ => mode,
        };
        // A Unix socket is never encrypted.
        if host.starts_with('/') {
            return Self::none();
        }
        let files = TlsFiles {
            home: std::env::var_os("HOME").map(PathBuf::from),
            root,
            ..TlsFiles::default()
        };
        Self::reading(mode, &files)
    }

    fn reading(mode: SslMode, files: &TlsFiles) -> Self {
        let encrypts = mode != SslMode::Disable;
        Self {
            mode,
            source: encrypts.then(|| Arc::new(TlsSource::new(files, mode.verifies()))),
            ..Self::none()
        }
    }

    /// The same from the first byte on.
    ///
    /// # Errors
    /// When the mode would be content without TLS.
    pub(crate) fn negotiate_directly(self) -> Result<Self, TlsError> {
        if self.mode.is_weak() {
            return Err(TlsError::WeakMode("sslnegotiation=direct", "require"));
        }
        Ok(Self {
            direct: true,
            ..self
        })
    }

    /// For the handshake with `host`, which is empty where only an address is known.
    pub(crate) fn connector(&self, host: &str) -> Connector {
        Connector {
            tls: self.clone(),
            host: host.to_owned(),
        }
    }

    fn client_config(&self, host: &str) -> Result<ClientConfig, String> {
        let loaded = match &self.source {
            Some(source) => source.load().map_err(|error| error.to_string())?,
            None => Arc::new(ReadTlsFiles::default()),
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier {
            trust: loaded.trust.clone(),
            host: (self.mode == SslMode::VerifyFull).then(|| host.to_owned()),
            provider: Arc::clone(&provider),
        };
        let versions = self.versions.list();
        if versions.is_empty() {
            return Err("TLS before 1.2 is not supported".to_owned());
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &loaded.own {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| format!("sslcert and sslkey cannot be used: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        // PostgreSQL 17 knows it, older servers and poolers pay no attention to it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        config.enable_sni = self.names_host;
        Ok(config)
    }
}

/// Logs in as `config` and `tls` say: with TLS, without, or one after the other.
///
/// # Errors
/// The last way's.
pub(crate) async fn open(
    config: &tokio_postgres::Config,
    tls: &Tls,
) -> Result<(Client, Connection<Socket, TlsStream>), tokio_postgres::Error> {
    let mut config = config.clone();
    let (first, second) = match tls.mode.ways() {
        [first, second, ..] => (*first, Some(*second)),
        [first] => (*first, None),
        [] => (Negotiation::Disable, None),
    };
    match (config.ssl_mode(first).connect(tls.clone()).await, second) {
        (Err(error), Some(second)) if asks_for_the_other_way(&error) => {
            config.ssl_mode(second).connect(tls.clone()).await
        }
        (connected, _) => connected,
    }
}

/// Whether TLS, or `pg_hba.conf` for want of it or because of it, is what failed.
fn asks_for_the_other_way(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(answer) => {
            answer.code().code() == "28000" || answer.message().contains("SSL required")
        }
        None => is_tls_failure(error),
    }
}

/// Whether the server answered, and TLS with it failed.
pub(crate) fn is_tls_failure(error: &tokio_postgres::Error) -> bool {
    // The crate has no other way to tell.
    error
        .to_string()
        .starts_with("error performing TLS handshake")
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = Connector;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Connector> {
        Ok(self.connector(host))
    }
}

/// What an encrypted session runs over.
pub(crate) type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Sets TLS up once a server has offered it.
pub(crate) struct Connector {
    tls: Tls,
    host: String,
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let failed = |why: String| io::Error::other(rustls::Error::General(why));
            let Self { tls, host } = self;
            let name = host.clone();
            // It reads files.
            let config = tokio::task::spawn_blocking(move || tls.client_config(&name)).await;
            let config = config.map_err(io::Error::other)?.map_err(failed)?;
            let mut maker = MakeRustlsConnect::new(config);
            // What is no name of the DNS is not sent in the handshake, and an address never is.
            let sent = rustls::pki_types::ServerName::try_from(host.as_str())
                .map_or("0.0.0.0", |_| host.as_str());
            let made = MakeTlsConnect::<S>::make_tls_connect(&mut maker, sent);
            made.map_err(io::Error::other)?.connect(stream).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_of_public_authorities_never_go_without_encryption() {
        let system = Some(Path::new("system"));
        for (host, mode, root, effective) in [
            ("db1", SslMode::Prefer, None, SslMode::Prefer),
            ("db1", SslMode::Prefer, system, SslMode::VerifyFull),
            ("db1", SslMode::Disable, system, SslMode::VerifyFull),
            ("db1", SslMode::Require, None, SslMode::Require),
            // A Unix socket is never encrypted.
            ("/run", SslMode::Prefer, system, SslMode::Disable),
            ("/run", SslMode::VerifyFull, None, SslMode::Disable),
        ] {
            let tls = Tls::of(host, mode, root);
            assert_eq!(tls.mode, effective, "{host} {mode:?} {root:?}");
        }
        let tls = Tls::of("db1", SslMode::Prefer, system);
        assert_eq!(tls.mode.ways(), [Negotiation::Require]);
    }
}
