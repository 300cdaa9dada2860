//! Writing only what is as expected: what two nodes may write at once.

use aws_sdk_s3::primitives::ByteStream;
use tokio::time::timeout;

use super::{Bucket, Cause, REQUEST_DEADLINE, StorageError};

/// What must hold for an object to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// It is not there (`If-None-Match: *`).
    Absent,
    /// It is the one with this ETag (`If-Match`).
    Unchanged(&'a str),
}

impl Bucket {
    /// One small object with its ETag; `None` when it is not there.
    pub(super) async fn get_tagged(
        &self,
        key: &str,
    ) -> Result<Option<(Vec<u8>, String)>, StorageError> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = match request
            .send()
            .await
            .map_err(|e| self.failed("read", key, e))
        {
            Err(error) if error.cause() == Some(&Cause::NoSuchKey) => return Ok(None),
            answer => answer?,
        };
        let tag = answer.e_tag().unwrap_or_default().to_owned();
        // The client's own deadline ends where the body begins, and a lock must not wait for one that never comes.
        let body = timeout(REQUEST_DEADLINE, answer.body.collect()).await;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        Ok(Some((body.into_bytes().into(), tag)))
    }

    /// Writes a small object where `condition` holds, and gives its ETag; `None` where it does not hold.
    ///
    /// A request that is sent again after a lost answer finds its own first: `None` does not say that it was not written.
    pub(super) async fn put_if(
        &self,
        key: &str,
        content: &[u8],
        condition: Condition<'_>,
    ) -> Result<Option<String>, StorageError> {
        let request = self.client.put_object().bucket(&self.name).key(key);
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Unchanged(tag) => request.if_match(tag),
        };
        let body = ByteStream::from(content.to_vec());
        let stored = request.body(body).send().await;
        match stored.map_err(|e| self.failed("write", key, e)) {
            Ok(stored) => Ok(Some(stored.e_tag().unwrap_or_default().to_owned())),
            // Gone already is changed, too.
            Err(error) if error.is_unmet() || error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object that is still the one with the ETag `tag`; any other is left alone.
    pub(super) async fn delete_if(&self, key: &str, tag: &str) -> Result<(), StorageError> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        let deleted = request.if_match(tag).send().await;
        match deleted.map_err(|e| self.failed("delete", key, e)) {
            Err(error) if error.is_unmet() || error.cause() == Some(&Cause::NoSuchKey) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

impl StorageError {
    fn is_unmet(&self) -> bool {
        self.cause() == Some(&Cause::Unmet)
    }
}
