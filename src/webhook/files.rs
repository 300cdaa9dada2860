//! Files of secrets and certificates: they are read for each request, because they are replaced while xdb runs.
//!
//! On a thread of its own and for a few seconds at most: a pipe, a device or a network file system that hangs holds up no alert.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::WebhookError;
use crate::config::open_regular;

/// For one file.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes: no URL and no token is longer.
const LARGEST_SECRET: u64 = 8 * 1024;
/// Bytes.
const LARGEST_CERTIFICATES: u64 = 1024 * 1024;

/// One thread for each file. One that hangs keeps its place: it holds up the readers of its own file, and is never joined by a second.
static READERS: LazyLock<Mutex<HashMap<PathBuf, Arc<Semaphore>>>> = LazyLock::new(Mutex::default);

/// The one line of a file that holds a secret.
///
/// # Errors
/// When it cannot be read, every user may read it, or it holds no line.
pub(crate) async fn secret_in(path: &Path) -> Result<SecretString, WebhookError> {
    let of = path.to_owned();
    let text = read(path, move || read_secret(&of)).await?;
    let line = text.trim();
    if line.is_empty() || !line.is_ascii() || line.contains(char::is_control) {
        return Err(WebhookError::Content {
            path: path.to_owned(),
            expected: "secret on one line",
        });
    }
    Ok(line.into())
}

/// The bytes of a PEM file.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn certificates_in(path: &Path) -> Result<Vec<u8>, WebhookError> {
    let of = path.to_owned();
    read(path, move || {
        let mut bytes = Vec::new();
        let mut file = open_regular(&of, LARGEST_CERTIFICATES).map_err(failed(&of))?;
        file.read_to_end(&mut bytes).map_err(failed(&of))?;
        Ok(bytes)
    })
    .await
}

async fn read<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, WebhookError> + Send + 'static,
) -> Result<T, WebhookError> {
    let reader = {
        let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = readers.entry(path.to_owned());
        reader
            .or_insert_with(|| Arc::new(Semaphore::new(1)))
            .clone()
    };
    let reading = async {
        let place = reader.acquire_owned().await.map_err(io::Error::other)?;
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        work.await.map_err(io::Error::other)
    };
    let read = timeout(LIMIT, reading).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", LIMIT.as_secs());
        Err(io::Error::new(ErrorKind::TimedOut, reason))
    });
    read.map_err(failed(path))?
}

fn read_secret(path: &Path) -> Result<String, WebhookError> {
    let mut file = open_regular(path, LARGEST_SECRET).map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.permissions().mode();
    if mode & 0o007 != 0 {
        let path = path.to_owned();
        return Err(WebhookError::Exposed { path });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed(path))?;
    Ok(text)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> WebhookError {
    let path: PathBuf = path.to_owned();
    move |source| WebhookError::File { path, source }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn a_secret_is_one_line_of_a_file_that_not_everybody_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let write = async |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            secret_in(&path).await
        };
        let read = write(" hush\n", 0o640).await.unwrap();
        assert_eq!(read.expose_secret(), "hush");
        assert!(matches!(
            write("hush", 0o644).await,
            Err(WebhookError::Exposed { .. })
        ));
        for text in ["", "\n", "hush\nhush"] {
            let error = write(text, 0o600).await.unwrap_err();
            assert!(matches!(error, WebhookError::Content { .. }), "{text:?}");
            assert!(!error.to_string().contains("hush"));
        }
        std::fs::remove_file(&path).unwrap();
        let missing = secret_in(&path).await;
        assert!(matches!(missing, Err(WebhookError::File { .. })));
    }

    #[tokio::test]
    async fn a_pipe_and_a_device_hold_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
            for error in [
                secret_in(path).await.map(drop).unwrap_err(),
                certificates_in(path).await.map(drop).unwrap_err(),
            ] {
                let reason = crate::log::chain(&error);
                assert!(reason.contains("not a regular file"), "{reason}");
            }
        }
    }
}
