//! TLS as libpq's `sslmode` means it. Nothing of it is set up before a server offers TLS.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::WaitError;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// The mode that libpq calls `name`, or the default for what is none: configuration has checked it.
    pub fn named(name: &str) -> Self {
        match name {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => Self::Prefer,
        }
    }

    /// How to come, and how to come again when that is refused.
    pub(super) fn ways(self) -> &'static [Negotiation] {
        match self {
            Self::Disable => &[Negotiation::Disable],
            Self::Allow => &[Negotiation::Disable, Negotiation::Require],
            Self::Prefer => &[Negotiation::Prefer, Negotiation::Disable],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Negotiation::Require],
        }
    }
}

/// Whether to encrypt, and whom to trust.
#[derive(Debug, Clone)]
pub struct Tls {
    pub mode: SslMode,
    /// Empty unless certificates are verified.
    roots: Arc<RootCertStore>,
}

impl Tls {
    pub fn none() -> Self {
        Self {
            mode: SslMode::Disable,
            roots: Arc::new(RootCertStore::empty()),
        }
    }

    /// `mode` with the certificates in the PEM file `sslrootcert`; with one, `require` is `verify-ca`, as for libpq.
    ///
    /// # Errors
    /// When certificates are to be verified and there are none to verify them by.
    pub fn new(mode: SslMode, sslrootcert: Option<&Path>) -> Result<Self, WaitError> {
        let mode = match (mode, sslrootcert) {
            (SslMode::Require, Some(_)) => SslMode::VerifyCa,
            (SslMode::VerifyCa, None) => return Err(WaitError::NoRoots("verify-ca")),
            (SslMode::VerifyFull, None) => return Err(WaitError::NoRoots("verify-full")),
            (mode, _) => mode,
        };
        let mut roots = RootCertStore::empty();
        if let (SslMode::VerifyCa | SslMode::VerifyFull, Some(path)) = (mode, sslrootcert) {
            let wrong = |reason: String| WaitError::Roots {
                path: path.to_owned(),
                reason,
            };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("it holds none".to_owned()));
            }
        }
        Ok(Self {
            mode,
            roots: Arc::new(roots),
        })
    }

    /// For the handshake with `host`.
    pub(super) fn connector(&self, host: &str) -> Connector {
        Connector {
            tls: self.clone(),
            host: host.to_owned(),
        }
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let webpki = if self.roots.is_empty() {
            None
        } else {
            let roots = Arc::clone(&self.roots);
            let built =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            Some(built.map_err(|error| error.to_string())?)
        };
        let verifier = Verifier {
            webpki,
            any_name: self.mode != SslMode::VerifyFull,
            provider: Arc::clone(&provider),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(config)
    }
}

/// Sets TLS up once a server has offered it.
pub(super) struct Connector {
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
            let config = self.tls.client_config().map_err(io::Error::other)?;
            let mut maker = MakeRustlsConnect::new(config);
            let made = MakeTlsConnect::<S>::make_tls_connect(&mut maker, &self.host);
            made.map_err(io::Error::other)?.connect(stream).await
        })
    }
}

/// Verifies as far as `sslmode` asks: nothing, the chain, or chain and name.
#[derive(Debug)]
struct Verifier {
    webpki: Option<Arc<WebPkiServerVerifier>>,
    any_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(webpki) = &self.webpki else {
            return Ok(ServerCertVerified::assertion());
        };
        match webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is judged last: the chain is good.
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if self.any_name =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_verify_need_certificates_and_the_others_read_none() {
        let missing = Path::new("/nonexistent/ca.pem");
        for (mode, path, good) in [
            (SslMode::Disable, Some(missing), true),
            (SslMode::Prefer, Some(missing), true),
            (SslMode::Require, None, true),
            (SslMode::Require, Some(missing), false),
            (SslMode::VerifyCa, None, false),
            (SslMode::VerifyFull, None, false),
            (SslMode::VerifyFull, Some(missing), false),
            (SslMode::VerifyFull, Some(Path::new("/dev/null")), false),
        ] {
            assert_eq!(Tls::new(mode, path).is_ok(), good, "{mode:?} {path:?}");
        }
    }
}
