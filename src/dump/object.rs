//! The content of one object of a set. Everything that reads a dump reads it here.

use bytes::Bytes;

use super::encryption::Decrypting;
use super::identity::{Identities, KeyError};
use super::{DumpSet, Dumps, StoredObject};
use crate::config;
use crate::storage::{Cause, Content, Download, StorageError};

/// Why an object cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// It is missing, or it is not what was stored: damage of the set.
    #[error("{0}")]
    Damaged(String),
    /// It is encrypted, and this node has no key for it, which says nothing of the set.
    #[error("{key} cannot be read here")]
    Key {
        key: String,
        #[source]
        source: Box<KeyError>,
    },
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

/// An object that is read from its beginning, decrypted, with bounded memory.
pub(crate) struct ObjectReader {
    download: Download,
    stored: StoredObject,
    decryption: Decryption,
}

enum Decryption {
    /// Of an object that is not encrypted, or is read as it is stored.
    None,
    /// The key is read when the first bytes are wanted.
    Wanted(config::Dump),
    Begun(Box<Decrypting>),
}

impl Dumps {
    /// Prepares to read what was dumped into `stored`; nothing is sent until the first read.
    pub(crate) fn open_object(&self, stored: &StoredObject) -> ObjectReader {
        let mut reader = self.open_stored(stored);
        if stored.encryption.is_some() {
            reader.decryption = Decryption::Wanted(self.settings.clone());
        }
        reader
    }

    /// Prepares to read `stored` as it lies in the bucket: encrypted, where it is.
    pub(super) fn open_stored(&self, stored: &StoredObject) -> ObjectReader {
        ObjectReader {
            download: self.bucket.download(&stored.key, stored.bytes),
            stored: stored.clone(),
            decryption: Decryption::None,
        }
    }

    /// All of `stored`, a small object such as the globals, once it is proven.
    ///
    /// # Errors
    /// When it is damaged, this node has no key for it, or S3 fails.
    pub(crate) async fn read_object(&self, stored: &StoredObject) -> Result<Vec<u8>, ObjectError> {
        let mut object = self.open_object(stored);
        let mut content = Vec::new();
        while let Some(bytes) = object.next().await? {
            content.extend_from_slice(&bytes);
        }
        object.finish().await?;
        Ok(content)
    }

    /// Whether this node has a key for each object of `set`.
    ///
    /// # Errors
    /// [`ObjectError::Key`] for the first one that it cannot decrypt.
    pub(crate) fn judge_readable(&self, set: &DumpSet) -> Result<(), ObjectError> {
        let mut encrypted = set.objects().filter(|stored| stored.encryption.is_some());
        encrypted.try_for_each(|stored| right_key(&self.settings, stored).map(drop))
    }
}

impl ObjectReader {
    /// The next bytes; `None` at the end. They are proven only once [`Self::finish`] has returned.
    ///
    /// # Errors
    /// When the object is missing or cannot be decrypted, this node has no key for it, or S3 fails after some tries.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        if let Decryption::Wanted(settings) = &self.decryption {
            let decrypting = Decrypting::new(right_key(settings, &self.stored)?);
            self.decryption = Decryption::Begun(Box::new(decrypting));
        }
        let Decryption::Begun(decrypting) = &mut self.decryption else {
            return Ok(self.download.next().await?);
        };
        while !decrypting.has_ended() {
            let piece = self.download.next().await?;
            let plain = decrypting.take(piece.as_deref());
            let plain = plain.map_err(|reason| damaged(&self.stored, &reason))?;
            if !plain.is_empty() {
                return Ok(Some(plain.into()));
            }
        }
        Ok(None)
    }

    /// Reads what is left, and compares length and SHA-256 of the whole object with the manifest; of a decrypted one, those of
    /// what was dumped, too.
    ///
    /// # Errors
    /// [`ObjectError::Damaged`] where they differ; as [`Self::next`].
    pub(crate) async fn finish(mut self) -> Result<(), ObjectError> {
        while self.next().await?.is_some() {}
        if let Some(reason) = content_difference(&self.stored, &self.download.content()) {
            return Err(ObjectError::Damaged(reason));
        }
        match (&self.decryption, &self.stored.encryption) {
            (Decryption::Begun(decrypting), Some(encryption)) => {
                let same = decrypting.judge(encryption);
                same.map_err(|reason| damaged(&self.stored, &reason))
            }
            _ => Ok(()),
        }
    }
}

/// The identities of this node, one of which decrypts `stored`.
fn right_key(settings: &config::Dump, stored: &StoredObject) -> Result<Identities, ObjectError> {
    let judged = Identities::of(settings).and_then(|identities| {
        if let Some(encryption) = &stored.encryption {
            identities.judge(&encryption.age_recipients)?;
        }
        Ok(identities)
    });
    judged.map_err(|source| ObjectError::Key {
        key: stored.key.clone(),
        source: Box::new(source),
    })
}

fn damaged(stored: &StoredObject, reason: &str) -> ObjectError {
    ObjectError::Damaged(format!("{} is damaged: {reason}", stored.key))
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
            encryption: None,
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
