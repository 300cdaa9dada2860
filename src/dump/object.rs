//! The content of one object of a set. Everything that reads a dump reads it here.

use bytes::Bytes;

use super::{Dumps, StoredObject};
use crate::storage::{Cause, Content, Download, StorageError};

/// Why an object cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// It is missing, or it is not what was stored: damage of the set.
    #[error("{0}")]
    Damaged(String),
    /// S3 failed, which says nothing of the set.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<StorageError> for ObjectError {
    fn from(error: StorageError) -> Self {
        match error.cause() {
            Some(Cause::NoSuchKey) => Self::Damaged(error.to_string()),
            _ => Self::Storage(error),
        }
    }
}

/// An object that is read from its beginning, with bounded memory.
#[derive(Debug)]
pub(crate) struct ObjectReader {
    download: Download,
    stored: StoredObject,
}

impl Dumps {
    /// Prepares to read `stored`; nothing is sent until the first read.
    pub(crate) fn open_object(&self, stored: &StoredObject) -> ObjectReader {
        ObjectReader {
            download: self.bucket.download(&stored.key, stored.bytes),
            stored: stored.clone(),
        }
    }

    /// All of `stored`, a small object such as the globals, once it is proven.
    ///
    /// # Errors
    /// When it is damaged, or S3 fails.
    pub(crate) async fn read_object(&self, stored: &StoredObject) -> Result<Vec<u8>, ObjectError> {
        let mut object = self.open_object(stored);
        let mut content = Vec::new();
        while let Some(bytes) = object.next().await? {
            content.extend_from_slice(&bytes);
        }
        object.finish().await?;
        Ok(content)
    }
}

impl ObjectReader {
    /// The next bytes; `None` at the end. They are proven only once [`Self::finish`] has returned.
    ///
    /// # Errors
    /// When the object is missing, or S3 fails after some tries.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.download.next().await?)
    }

    /// Reads what is left, and compares length and SHA-256 of the whole object with the manifest.
    ///
    /// # Errors
    /// [`ObjectError::Damaged`] where they differ; as [`Self::next`].
    pub(crate) async fn finish(mut self) -> Result<(), ObjectError> {
        while self.next().await?.is_some() {}
        match content_difference(&self.stored, &self.download.content()) {
            Some(reason) => Err(ObjectError::Damaged(reason)),
            None => Ok(()),
        }
    }
}

fn content_difference(stored: &StoredObject, read: &Content) -> Option<String> {
    let key = &stored.key;
    if read.bytes != stored.bytes {
        let (read, stored) = (read.bytes, stored.bytes);
        return Some(format!(
            "{key} has {read} bytes, its manifest says {stored}"
        ));
    }
    (read.sha256 != stored.sha256)
        .then(|| format!("{key} is not what was stored: its SHA-256 differs from its manifest's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_digest_are_compared_with_the_manifest() {
        let stored = StoredObject {
            key: "s/app.dump".to_owned(),
            bytes: 5,
            sha256: "ab".to_owned(),
        };
        for (bytes, sha256, reason) in [
            (5, "ab", None),
            (4, "ab", Some("s/app.dump has 4 bytes, its manifest says 5")),
            (
                5,
                "ac",
                Some("s/app.dump is not what was stored: its SHA-256 differs from its manifest's"),
            ),
        ] {
            let read = Content {
                bytes,
                sha256: sha256.to_owned(),
            };
            assert_eq!(content_difference(&stored, &read).as_deref(), reason);
        }
    }
}
