//! One object read as it arrives, so that any size fits into little memory, by requests that a slow reader does not wear out.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::upload::hexadecimal;
use super::{Bucket, Cause, Content, REQUEST_DEADLINE, StorageError};

/// Bytes of one request: what reads may stand still for minutes, and S3 ends connections that do.
const PIECE: u64 = 16 << 20;
/// What was cut is asked for again: hours of reading must not end with one connection.
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
    /// The answer that is being read.
    body: Option<ByteStream>,
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
            body: None,
        }
    }
}

impl Download {
    /// What has arrived since; `None` at the end.
    ///
    /// # Errors
    /// When it cannot be read, after some tries.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let mut tried = 1;
        while self.read < self.size {
            match self.arrived().await {
                Ok(Some(bytes)) => {
                    self.read += bytes.len() as u64;
                    self.hash.update(&bytes);
                    return Ok(Some(bytes));
                }
                // The end of this answer.
                Ok(None) => self.body = None,
                Err(error) if tried == TRIES || !may_pass(&error) => return Err(error),
                Err(_) => {
                    self.body = None;
                    tried += 1;
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(None)
    }

    async fn arrived(&mut self) -> Result<Option<Bytes>, StorageError> {
        let Self {
            bucket, key, body, ..
        } = self;
        let body = match body {
            Some(body) => body,
            None => {
                let last = self.size.min(self.read + PIECE) - 1;
                let request = bucket.client.get_object().bucket(&bucket.name).key(&*key);
                let request = request.range(format!("bytes={}-{last}", self.read));
                let answer = request.send().await;
                let answer = answer.map_err(|e| bucket.failed("read", key, e))?;
                body.insert(answer.body)
            }
        };
        // The client's own deadline ends where the body begins.
        let arrived = timeout(REQUEST_DEADLINE, body.next()).await;
        let arrived = arrived.map_err(|e| StorageError::cut(&bucket.name, key, e))?;
        let arrived = arrived.transpose();
        arrived.map_err(|e| StorageError::cut(&bucket.name, key, e))
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
