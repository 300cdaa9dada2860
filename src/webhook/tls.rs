//! TLS to a server of somebody else.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::certificates_in;
use crate::log;

/// Secures `stream` to the server `name`, verified by the authorities of `ca_cert_file` or the system's.
///
/// # Errors
/// As a reason.
pub(super) async fn secure(
    stream: TcpStream,
    name: &str,
    ca_cert_file: Option<&Path>,
) -> Result<TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(ca_cert_file).await?)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let secured = connector.connect(name, stream).await;
    secured.map_err(|error| error.to_string())
}

async fn roots(ca_cert_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca_cert_file {
        Some(path) => {
            let bytes = certificates_in(path).await;
            let bytes = bytes.map_err(|error| log::chain(&error))?;
            let unread = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let certificate = certificate.map_err(|error| unread(&error))?;
                roots.add(certificate).map_err(|error| unread(&error))?;
            }
        }
        None => {
            let load = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let known = load.await.map_err(|error| error.to_string())?;
            roots.add_parsable_certificates(known.certs);
        }
    }
    if roots.is_empty() {
        return Err("no CA certificate is known to verify the server's with".to_owned());
    }
    Ok(roots)
}
