//! What was restored counts only once it is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;

use super::RestoreError;

/// Has the kernel write all that it holds of the volume of `path`, which may take minutes.
///
/// # Errors
/// When it could not write it: what was restored there may have holes.
pub async fn sync_volume(path: &Path) -> Result<(), RestoreError> {
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
        let said = gone.unwrap_err().to_string();
        assert!(said.starts_with("cannot sync "), "{said}");
    }
}
