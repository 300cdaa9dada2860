//! The files of TLS: root certificates, revocation lists, and a client's own certificate with its key.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::certificate::Certificate;
use super::chain::Trust;
use super::revocation::RevocationList;

/// Where Debian and others keep the roots of public authorities, one file for all.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
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
    pub(crate) fn hint(&self) -> &'static str {
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
pub(crate) enum RootCert {
    /// `~/.postgresql/root.crt`, where it exists.
    #[default]
    Home,
    File(PathBuf),
    System,
}

impl RootCert {
    /// A setting: the word `system`, a file, or nothing.
    pub(crate) fn of(setting: Option<&Path>) -> Self {
        match setting {
            Some(path) if path == Path::new("system") => Self::System,
            Some(path) => Self::File(path.to_owned()),
            None => Self::Home,
        }
    }
}

/// The files that libpq reads for TLS; what is unset is looked for in `~/.postgresql`.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
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
#[derive(Debug, Default)]
pub(super) struct ReadTlsFiles {
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// A file as it was when it was read; `None` where there is none.
pub(super) type Stamp = (PathBuf, Option<[i64; 7]>);

impl TlsFiles {
    /// Reads what is there, as libpq does; without root certificates nothing is verified, unless they are needed.
    pub(super) fn load(&self, needs_roots: bool) -> Result<ReadTlsFiles, TlsError> {
        let mut loaded = ReadTlsFiles {
            own: self.own()?,
            trust: None,
        };
        match self.root_file() {
            Some(path) if path.exists() => loaded.trust = Some(Arc::new(self.trust(&path)?)),
            Some(path) if needs_roots => return Err(TlsError::NoRoots(path)),
            None if needs_roots => return Err(TlsError::NoHome),
            _ => {}
        }
        Ok(loaded)
    }

    /// All files that [`Self::load`] reads: while their stamps stay the same, so does its result.
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        let mut files = Vec::from_iter(self.root_file());
        files.extend(self.certificate_file());
        files.extend(self.key_file());
        files.extend(self.revocation_file());
        files.extend(self.hashed_lists());
        let stamp = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok();
            let stamp = metadata.map(|it| {
                let (device, inode) = (it.dev().cast_signed(), it.ino().cast_signed());
                let size = it.size().cast_signed();
                let changed = (it.ctime(), it.ctime_nsec());
                [
                    device,
                    inode,
                    size,
                    it.mtime(),
                    it.mtime_nsec(),
                    changed.0,
                    changed.1,
                ]
            });
            (path, stamp)
        };
        files.into_iter().map(stamp).collect()
    }

    fn root_file(&self) -> Option<PathBuf> {
        match &self.root {
            RootCert::Home => self.in_home("root.crt"),
            RootCert::File(path) => Some(path.clone()),
            RootCert::System => Some(system_roots()),
        }
    }

    fn certificate_file(&self) -> Option<PathBuf> {
        if self.without_certificate {
            return None;
        }
        let named = self.certificate.clone();
        named.or_else(|| self.in_home("postgresql.crt"))
    }

    fn key_file(&self) -> Option<PathBuf> {
        let named = self.key.clone();
        named.or_else(|| self.in_home("postgresql.key"))
    }

    /// libpq looks for the usual list only where neither a file nor a directory is named.
    fn revocation_file(&self) -> Option<PathBuf> {
        match (&self.revoked, &self.revoked_directory) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(_)) => None,
            (None, None) => self.in_home("root.crl"),
        }
    }

    /// The lists of a directory, which OpenSSL finds by the hash of their issuer's name: `1a2b3c4d.r0`.
    fn hashed_lists(&self) -> Vec<PathBuf> {
        let is_hashed = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let parts = name.and_then(|name| name.split_once(".r"));
            parts.is_some_and(|(hash, number)| {
                let is_hash = hash.len() == 8 && hash.bytes().all(|it| it.is_ascii_hexdigit());
                is_hash && number.parse::<u32>().is_ok()
            })
        };
        let directory = self.revoked_directory.as_ref();
        let entries = directory.and_then(|directory| fs::read_dir(directory).ok());
        let paths = entries.into_iter().flatten().flatten();
        let mut files: Vec<_> = paths.map(|entry| entry.path()).filter(is_hashed).collect();
        files.sort_unstable();
        files
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        let home = self.home.as_ref()?;
        Some(home.join(".postgresql").join(name))
    }

    fn trust(&self, path: &Path) -> Result<Trust, TlsError> {
        let wrong = |reason: String| TlsError::File {
            what: "certificates",
            path: path.to_owned(),
            reason,
        };
        let mut roots = Vec::new();
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            match Certificate::parse(&certificate) {
                Ok(root) => roots.push(root),
                // Among a system's hundreds there may be one that no caller needs.
                Err(_) if self.root == RootCert::System => {}
                Err(reason) => return Err(wrong(reason)),
            }
        }
        if roots.is_empty() {
            return Err(wrong("it holds none".to_owned()));
        }
        Ok(Trust {
            roots,
            revoked: self.revoked()?,
            algorithms: ring::default_provider()
                .signature_verification_algorithms
                .all,
        })
    }

    /// `None` where nothing is to be checked: no directory is named, and there is no file.
    fn revoked(&self) -> Result<Option<Vec<RevocationList>>, TlsError> {
        // libpq does not look for them beside the system's roots.
        if self.root == RootCert::System {
            return Ok(None);
        }
        // As for libpq: a file that is missing is none.
        let file = self.revocation_file().filter(|file| file.is_file());
        if file.is_none() && self.revoked_directory.is_none() {
            return Ok(None);
        }
        let mut lists = Vec::new();
        if let Some(file) = file {
            lists = revocation_lists(&file)?;
        }
        for file in self.hashed_lists() {
            // As OpenSSL: one that cannot be read is none, and its issuer's certificates are refused.
            lists.extend(revocation_lists(&file).into_iter().flatten());
        }
        Ok(Some(lists))
    }

    /// The client's own certificate, which is sent where the server asks for one.
    fn own(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
        let Some(path) = self.certificate_file().filter(|path| path.exists()) else {
            return Ok(None);
        };
        let key = self.key_file().unwrap_or_default();
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

/// Stricter than libpq, which ignores a file without a readable list: its user would believe that revocation is checked.
fn revocation_lists(file: &Path) -> Result<Vec<RevocationList>, TlsError> {
    let wrong = |reason: String| TlsError::File {
        what: "a revocation list",
        path: file.to_owned(),
        reason,
    };
    let mut lists = Vec::new();
    let found = CertificateRevocationListDer::pem_file_iter(file);
    for list in found.map_err(|error| wrong(error.to_string()))? {
        let list = list.map_err(|error| wrong(error.to_string()))?;
        lists.push(RevocationList::parse(&list).map_err(wrong)?);
    }
    match lists.is_empty() {
        true => Err(wrong("it holds none".to_owned())),
        false => Ok(lists),
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
