//! One object's content as it arrives, for objects that are too large to hold.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::timeout;

use super::{Bucket, REQUEST_DEADLINE, StorageError};

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
