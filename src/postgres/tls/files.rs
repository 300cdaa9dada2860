//! The files of TLS: root certificates, revocation lists, and a client's own certificate with its key.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::certificate::{Certificate, RevocationList};
use super::chain::Trust;

/// Where Debian and others keep the roots of public authorities, one file for all.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("root certificate file {} does not exist", .0.display())]
    NoRoots(PathBuf),
    #[error("no root certificates: the home directory is unknown, and sslrootcert is not set")]
    NoHome,
    #[error("cannot read {what} from {}: {reason}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("the private key {} is not used: others may read it", .0.display())]
    OpenKey(PathBuf),
    #[error("certificate {} has no private key {}", certificate.display(), key.display())]
    NoKey { certificate: PathBuf, key: PathBuf },
    #[error("{0} is not safe with this sslmode: it needs {1}")]
    WeakMode(&'static str, &'static str),
}

impl TlsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoRoots(_) | Self::NoHome => {
                "name the PEM file of the server's CA with --sslrootcert, or use the system's with --sslrootcert system"
            }
            Self::File { .. } => {
                "it must be a readable PEM file; sslrootcert is one with the server's CA"
            }
            Self::OpenKey(_) => "chmod 0600 the file of sslkey",
            Self::NoKey { .. } => "name its private key with sslkey, or set sslcertmode=disable",
            Self::WeakMode(..) => {
                "set --sslmode verify-full (or require for sslnegotiation=direct)"
            }
        }
    }
}

/// Where root certificates come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RootCert {
    /// `~/.postgresql/root.crt`, where it exists.
    #[default]
    Home,
    File(PathBuf),
    System,
}

impl RootCert {
    /// A setting: the word `system`, a file, or nothing.
    pub fn of(setting: Option<&Path>) -> Self {
        match setting {
            Some(path) if path == Path::new("system") => Self::System,
            Some(path) => Self::File(path.to_owned()),
            None => Self::Home,
        }
    }
}

/// The files that libpq reads for TLS; what is unset is looked for in `~/.postgresql`.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The home directory, where it is known.
    pub home: Option<PathBuf>,
    pub root: RootCert,
    pub revoked: Option<PathBuf>,
    pub revoked_directory: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// `sslcertmode=disable`: the client's certificate stays at home.
    pub without_certificate: bool,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) webpki_roots: Arc<RootCertStore>,
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Loaded {
    pub(super) fn nothing() -> Self {
        Self {
            trust: None,
            webpki_roots: Arc::new(RootCertStore::empty()),
            own: None,
        }
    }
}

impl TlsFiles {
    /// Reads what is there, as libpq does; without root certificates nothing is verified, unless they are needed.
    pub(super) fn load(&self, needs_roots: bool) -> Result<Loaded, TlsError> {
        let mut loaded = Loaded {
            own: self.own()?,
            ..Loaded::nothing()
        };
        let path = match &self.root {
            RootCert::Home => self.in_home("root.crt"),
            RootCert::File(path) => Some(path.clone()),
            RootCert::System => Some(system_roots()),
        };
        match path {
            Some(path) if path.exists() => {
                let (trust, webpki_roots) = self.trust(&path)?;
                loaded.trust = Some(Arc::new(trust));
                loaded.webpki_roots = Arc::new(webpki_roots);
            }
            Some(path) if needs_roots => return Err(TlsError::NoRoots(path)),
            None if needs_roots => return Err(TlsError::NoHome),
            _ => {}
        }
        Ok(loaded)
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        let home = self.home.as_ref()?;
        Some(home.join(".postgresql").join(name))
    }

    fn trust(&self, path: &Path) -> Result<(Trust, RootCertStore), TlsError> {
        let wrong = |reason: String| TlsError::File {
            what: "certificates",
            path: path.to_owned(),
            reason,
        };
        let mut roots = Vec::new();
        let mut webpki = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            match Certificate::parse(&certificate) {
                Ok(root) => roots.push(root),
                // Among a system's hundreds there may be one that no caller needs.
                Err(_) if self.root == RootCert::System => continue,
                Err(reason) => return Err(wrong(reason)),
            }
            // It refuses some that OpenSSL takes, and serves only where names are constrained.
            let _ = webpki.add(certificate);
        }
        if roots.is_empty() {
            return Err(wrong("it holds none".to_owned()));
        }
        let trust = Trust {
            roots,
            revoked: self.revoked()?,
            algorithms: ring::default_provider()
                .signature_verification_algorithms
                .all,
        };
        Ok((trust, webpki))
    }

    fn revoked(&self) -> Result<Vec<RevocationList>, TlsError> {
        // libpq does not look for them beside the system's roots.
        if self.root == RootCert::System {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        if let Some(directory) = &self.revoked_directory {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()));
        }
        match &self.revoked {
            Some(file) => files.push(file.clone()),
            None if self.revoked_directory.is_none() => files.extend(self.in_home("root.crl")),
            None => {}
        }
        // As for libpq: a list that is missing is none.
        files.retain(|file| file.is_file());
        let mut lists = Vec::new();
        for file in files {
            let wrong = |reason: String| TlsError::File {
                what: "a revocation list",
                path: file.clone(),
                reason,
            };
            let found = CertificateRevocationListDer::pem_file_iter(&file);
            for list in found.map_err(|error| wrong(error.to_string()))? {
                let list = list.map_err(|error| wrong(error.to_string()))?;
                lists.push(RevocationList::parse(&list).map_err(wrong)?);
            }
        }
        Ok(lists)
    }

    /// The client's own certificate, which is sent where the server asks for one.
    fn own(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
        let certificate = self
            .certificate
            .clone()
            .or_else(|| self.in_home("postgresql.crt"));
        let Some(path) = certificate.filter(|path| !self.without_certificate && path.exists())
        else {
            return Ok(None);
        };
        let key = self.key.clone().or_else(|| self.in_home("postgresql.key"));
        let key = key.unwrap_or_default();
        let wrong = |path: &Path, reason: String| TlsError::File {
            what: "a client certificate or its key",
            path: path.to_owned(),
            reason,
        };
        let chain = CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&path, error.to_string()))?;
        let Ok(metadata) = fs::metadata(&key) else {
            return Err(TlsError::NoKey {
                certificate: path,
                key,
            });
        };
        // As libpq: root's may be read by its group.
        let open = if metadata.uid() == 0 { 0o037 } else { 0o077 };
        if metadata.permissions().mode() & open != 0 {
            return Err(TlsError::OpenKey(key));
        }
        let read = PrivateKeyDer::from_pem_file(&key);
        let key = read.map_err(|error| wrong(&key, error.to_string()))?;
        Ok(Some((chain, key)))
    }
}

/// OpenSSL's variable, or where the distribution keeps them.
fn system_roots() -> PathBuf {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        return PathBuf::from(file);
    }
    let usual = SYSTEM_ROOTS.iter().map(Path::new);
    let there = usual.clone().find(|path| path.exists());
    there.unwrap_or(Path::new(SYSTEM_ROOTS[0])).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{SslMode, Tls};

    #[test]
    fn modes_that_verify_need_certificates_and_the_others_take_those_that_exist() {
        let missing = RootCert::File(PathBuf::from("/nonexistent/ca.pem"));
        let empty = RootCert::File(PathBuf::from("/dev/null"));
        for (mode, root, good) in [
            (SslMode::Disable, &missing, true),
            (SslMode::Prefer, &missing, true),
            (SslMode::Require, &RootCert::Home, true),
            // libpq verifies nothing then.
            (SslMode::Require, &missing, true),
            (SslMode::Require, &empty, false),
            (SslMode::Prefer, &empty, true),
            (SslMode::VerifyCa, &RootCert::Home, false),
            (SslMode::VerifyFull, &RootCert::Home, false),
            (SslMode::VerifyFull, &missing, false),
            (SslMode::VerifyFull, &empty, false),
            (SslMode::Require, &RootCert::System, false),
            (SslMode::Disable, &RootCert::System, false),
        ] {
            let files = TlsFiles {
                root: root.clone(),
                ..TlsFiles::default()
            };
            assert_eq!(Tls::new(mode, &files).is_ok(), good, "{mode:?} {root:?}");
        }
    }
}
