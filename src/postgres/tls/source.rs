//! The content of the TLS files, read again when one of them changes: a CA is rotated while the daemon runs.

use std::sync::{Arc, Mutex, PoisonError};

use super::files::{ReadTlsFiles, Stamp, TlsError, TlsFiles};

/// The files, and what was read from them last.
#[derive(Debug)]
pub(super) struct TlsSource {
    files: TlsFiles,
    /// The mode verifies certificates, so roots must exist.
    needs_roots: bool,
    last: Mutex<Option<(Vec<Stamp>, Arc<ReadTlsFiles>)>>,
}

impl TlsSource {
    pub(super) fn new(files: &TlsFiles, needs_roots: bool) -> Self {
        Self {
            files: files.clone(),
            needs_roots,
            last: Mutex::default(),
        }
    }

    /// Reads the files where one changed since they were read. An error is not kept: the next call reads again.
    ///
    /// # Errors
    /// When a file that is there, or that is needed, cannot be used.
    pub(super) fn load(&self) -> Result<Arc<ReadTlsFiles>, TlsError> {
        // Before they are read: what changes meanwhile is read again by the next call.
        let stamps = self.files.stamps();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, loaded)) = &*last
            && *of == stamps
        {
            return Ok(Arc::clone(loaded));
        }
        *last = None;
        let loaded = Arc::new(self.files.load(self.needs_roots)?);
        *last = Some((stamps, Arc::clone(&loaded)));
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::postgres::RootCert;

    /// Self-signed certificates of two authorities.
    const ONE: &str = include_str!("../../../tests/fixtures/tls/ca-one.pem");
    const TWO: &str = include_str!("../../../tests/fixtures/tls/ca-two.pem");

    #[test]
    fn a_file_that_changed_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let files = TlsFiles {
            root: RootCert::File(path("ca.pem")),
            ..TlsFiles::default()
        };
        let source = TlsSource::new(&files, true);
        assert!(matches!(source.load(), Err(TlsError::NoRoots(_))));
        fs::write(path("ca.pem"), ONE).unwrap();
        let first = source.load().unwrap();
        assert!(Arc::ptr_eq(&first, &source.load().unwrap()));
        // Another file under the same name, as a rotation makes it.
        fs::write(path("new"), TWO).unwrap();
        fs::rename(path("new"), path("ca.pem")).unwrap();
        let second = source.load().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // In the middle of a rewrite: an error, and none that stays.
        fs::write(path("ca.pem"), "").unwrap();
        assert!(source.load().is_err());
        fs::write(path("ca.pem"), TWO).unwrap();
        assert!(!Arc::ptr_eq(&second, &source.load().unwrap()));
    }
}
