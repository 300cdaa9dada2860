//! Waits until a restored cluster is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::restore::RestoreError;

/// Writes all cached data of the volume of `path` to the disk, which may take minutes.
///
/// # Errors
/// When a write failed: restored files may be incomplete.
pub(crate) async fn sync_volume(path: &Path) -> Result<(), RestoreError> {
    let volume = path.to_owned();
    let synced = tokio::task::spawn_blocking(move || -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(volume)?)?)
    });
    let synced = synced.await;
    let synced = synced.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    synced.map_err(|source| RestoreError::File {
        operation: "sync",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_synced_is_said() {
        let directory = tempfile::tempdir().unwrap();
        sync_volume(directory.path()).await.unwrap();
        let gone = sync_volume(&directory.path().join("gone")).await;
        let error = gone.unwrap_err().to_string();
        assert!(error.starts_with("cannot sync "), "{error}");
    }
}
