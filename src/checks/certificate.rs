//! How long the certificates of a node are valid.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::values::Sampled;

/// A file of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateFile {
    /// What it is for, as "PostgreSQL".
    pub of: String,
    pub path: PathBuf,
    /// It holds authorities: while they are exchanged, one that has expired may stay.
    pub is_authorities: bool,
}

/// Seconds until each file is of no use any more.
pub(super) fn left(files: &[CertificateFile], now: Timestamp) -> Vec<Sampled> {
    let value = |file: &CertificateFile| {
        let end = end(&file.path, file.is_authorities);
        Sampled {
            object: Some(file.of.clone()),
            number: end.clone().map(|end| end.duration_since(now).as_secs_f64()),
            detail: Some(match end {
                Ok(end) => format!(
                    "{} is valid until {}",
                    file.path.display(),
                    end.strftime("%F")
                ),
                Err(_) => file.path.display().to_string(),
            }),
        }
    };
    files.iter().map(value).collect()
}

/// When the first certificate ends, which is the server's own; of authorities, the last of all.
fn end(path: &Path, is_authorities: bool) -> Result<Timestamp, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut ends = Vec::new();
    for der in found {
        let der = der.map_err(|error| error.to_string())?;
        let parsed = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let end = parsed.tbs_certificate.validity.not_after.to_unix_duration();
        let secs = i64::try_from(end.as_secs()).unwrap_or(i64::MAX);
        // Beyond what a timestamp can hold is for ever.
        ends.push(Timestamp::from_second(secs).unwrap_or(Timestamp::MAX));
    }
    let end = match is_authorities {
        true => ends.iter().max(),
        false => ends.first(),
    };
    end.copied()
        .ok_or_else(|| "it holds no certificate".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_holds_no_certificate_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "no certificate\n").unwrap();
        let file = |path: PathBuf| CertificateFile {
            of: "PostgreSQL".to_owned(),
            path,
            is_authorities: false,
        };
        let files = [file(empty), file(directory.path().join("missing.pem"))];
        let values = left(&files, Timestamp::UNIX_EPOCH);
        assert_eq!(values[0].number, Err("it holds no certificate".to_owned()));
        assert!(values[1].number.is_err());
        assert!(values[1].detail.as_ref().unwrap().ends_with("missing.pem"));
    }
}
