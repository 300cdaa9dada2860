//! One object read piece by piece, so that any size fits into memory and a slow reader keeps no connection waiting.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::upload::hexadecimal;
use super::{Bucket, Cause, Content, REQUEST_DEADLINE, StorageError};

/// Bytes of one request.
const PIECE: u64 = 4 << 20;
/// A piece that was cut is asked for again: hours of reading must not end with one connection.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// An object of a known size, read from its beginning to its end.
#[derive(Debug)]
pub struct Download {
    bucket: Bucket,
    key: String,
    size: u64,
    read: u64,
    hash: Sha256,
}

impl Bucket {
    /// Prepares to read `key`, which has `size` bytes; nothing is sent yet.
    pub fn download(&self, key: &str, size: u64) -> Download {
        Download {
            bucket: self.clone(),
            key: key.to_owned(),
            size,
            read: 0,
            hash: Sha256::new(),
        }
    }

    /// Up to `length` bytes of `key`, from the byte `from` on.
    async fn piece(&self, key: &str, from: u64, length: u64) -> Result<Bytes, StorageError> {
        let range = format!("bytes={from}-{}", from + length - 1);
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = request.range(range).send().await;
        let answer = answer.map_err(|e| self.failed("read", key, e))?;
        // The client's own deadline ends where the body begins.
        let body = timeout(REQUEST_DEADLINE, answer.body.collect()).await;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        Ok(body.into_bytes())
    }
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When it cannot be read, after some tries.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let left = self.size.saturating_sub(self.read);
        if left == 0 {
            return Ok(None);
        }
        let mut tried = 1;
        let piece = loop {
            let asked = self.bucket.piece(&self.key, self.read, left.min(PIECE));
            match asked.await {
                Err(error) if tried < TRIES && may_pass(&error) => {
                    tried += 1;
                    sleep(PAUSE).await;
                }
                answer => break answer?,
            }
        };
        if piece.is_empty() {
            return Ok(None);
        }
        self.read += piece.len() as u64;
        self.hash.update(&piece);
        Ok(Some(piece))
    }

    /// What was read so far.
    pub fn content(&self) -> Content {
        Content {
            bytes: self.read,
            sha256: hexadecimal(self.hash.clone()),
        }
    }
}

fn may_pass(error: &StorageError) -> bool {
    matches!(error.cause(), Some(Cause::Unreachable(_) | Cause::Other(_)))
}
