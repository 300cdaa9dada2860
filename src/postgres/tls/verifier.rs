//! Judges a server's certificate and its signatures for `rustls`, as libpq does with OpenSSL.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::Certificate;
use super::chain::{Trust, judge_chain};
use super::host_name::judge_host;

/// Verifies as far as libpq would: nothing, the chain, or chain and name.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` where no chain is verified.
    pub(super) trust: Option<Arc<Trust>>,
    /// The name that the certificate must be for.
    pub(super) host: Option<String>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// What is wrong with a certificate, in OpenSSL's or libpq's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Distrust(String);

fn distrust(why: impl Into<String>) -> Error {
    let why: Arc<dyn std::error::Error + Send + Sync> = Arc::new(Distrust(why.into()));
    Error::InvalidCertificate(CertificateError::Other(OtherError(why)))
}

/// What `rustls` says of a handshake that failed; of a certificate, why alone.
pub(crate) fn tls_failure(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            format!("certificate verify failed: {why}")
        }
        error => error.to_string(),
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::parse(certificate).map_err(distrust)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let leaf = parse(certificate)?;
        // One that cannot be read cannot be part of a chain.
        let sent: Vec<Certificate> = intermediates
            .iter()
            .filter_map(|certificate| parse(certificate).ok())
            .collect();
        judge_chain(&leaf, &sent, trust, now).map_err(distrust)?;
        if let Some(host) = &self.host {
            judge_host(&leaf, host).map_err(distrust)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let leaf = parse(certificate)?;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let algorithms = mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signature.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter().copied());
        if leaf.verifies_by_any(algorithms, message, signature.signature()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = parse(certificate)?.public_key();
        let key = key.ok_or_else(|| distrust("no public key"))?;
        let algorithms = &self.provider.signature_verification_algorithms;
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
