//! The socket that clients find: replaced in one step, open to PostgreSQL's group, gone with the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Where clients find it.
pub(super) fn path(state_directory: &Path) -> PathBuf {
    state_directory.join("archive.sock")
}

/// Removed when dropped; one that a killed daemon left is replaced by the next.
pub(super) struct Listening {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

/// Listens at `path`.
///
/// # Errors
/// When its directory is not there or not xdb's to write.
pub(super) fn listen(path: &Path) -> io::Result<Listening> {
    // Under another name until its mode is right.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
    fs::rename(&new, path)?;
    Ok(Listening {
        listener,
        path: path.to_owned(),
    })
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_the_group_may_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed daemon leaves its socket");
        let listening = listen(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(listening);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
