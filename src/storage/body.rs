//! One object's content as it arrives, for objects that are too large to hold.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::timeout;

use super::{Bucket, Cause, REQUEST_DEADLINE, StorageError};

/// What is left of an object's content.
pub struct Body {
    stream: ByteStream,
    bucket: String,
    key: String,
}

impl Bucket {
    /// Begins to read the object `key`.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub async fn read(&self, key: &str) -> Result<Body, StorageError> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = request
            .send()
            .await
            .map_err(|e| self.failed("read", key, e))?;
        Ok(Body {
            stream: answer.body,
            bucket: self.name.clone(),
            key: key.to_owned(),
        })
    }

    /// The whole content of an object of at most `most` bytes.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is larger.
    pub async fn get_at_most(&self, key: &str, most: u64) -> Result<Vec<u8>, StorageError> {
        let mut body = self.read(key).await?;
        let mut content = Vec::new();
        while let Some(bytes) = body.next().await? {
            content.extend_from_slice(&bytes);
            if content.len() as u64 > most {
                let cause = Cause::Other(format!("it has more than {most} bytes"));
                return Err(StorageError::of("read", &self.name, key, cause));
            }
        }
        Ok(content)
    }
}

impl Bucket {
    /// The last `most` bytes of an object of `size` bytes, or all of a shorter one.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub async fn get_end(&self, key: &str, size: u64, most: u64) -> Result<Vec<u8>, StorageError> {
        let Some(last) = size.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let first = size.saturating_sub(most);
        let request = self.client.get_object().bucket(&self.name).key(key);
        let request = request.range(format!("bytes={first}-{last}"));
        let answer = request
            .send()
            .await
            .map_err(|e| self.failed("read", key, e))?;
        let mut body = Body {
            stream: answer.body,
            bucket: self.name.clone(),
            key: key.to_owned(),
        };
        // A server that does not know ranges sends all of it.
        let mut end = Vec::new();
        while let Some(bytes) = body.next().await? {
            end.extend_from_slice(&bytes);
            let excess = end
                .len()
                .saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
            end.drain(..excess);
        }
        Ok(end)
    }
}

impl Body {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks off before.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        // The client's own deadlines end where a body begins.
        let next = timeout(REQUEST_DEADLINE, self.stream.try_next()).await;
        let next = next.map_err(|e| StorageError::cut(&self.bucket, &self.key, e))?;
        next.map_err(|e| StorageError::cut(&self.bucket, &self.key, e))
    }
}
