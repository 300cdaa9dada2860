//! Whether this S3 server honours conditional writes: asked once a process, before the first lock is taken.
//!
//! The object that is asked with stays: where it is, a server that honours the headers refuses every write of the probe.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Shared, SharedError};
use crate::storage::{Bucket, Cause, Condition, StorageError};

const KEY: &str = "probe/conditional-writes";
const CONTENT: &[u8] = b"xdb asks with this object whether conditional writes are honoured\n";
/// No object's: an MD5 sum that no content is known for.
const OTHER_TAG: &str = "\"00000000000000000000000000000000\"";

/// Where conditional writes are honoured, by bucket and key, and whether conditional deletions are.
static HONOURED: Mutex<BTreeMap<(String, String), bool>> = Mutex::new(BTreeMap::new());

impl Shared {
    /// Whether conditional deletions are honoured, too; the inner error says why conditional writes are not.
    ///
    /// Only a good answer is remembered, so a server that was mended is used at once.
    pub(super) async fn conditional_writes(&self) -> Result<Result<bool, String>, SharedError> {
        let probe = (self.bucket.name().to_owned(), self.key(KEY));
        let known = || HONOURED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(deletes) = known().get(&probe) {
            return Ok(Ok(*deletes));
        }
        let asked = ask(&self.bucket, &probe.1).await?;
        if let Ok(deletes) = asked {
            known().insert(probe, deletes);
        }
        Ok(asked)
    }
}

async fn ask(bucket: &Bucket, key: &str) -> Result<Result<bool, String>, StorageError> {
    let put = async |condition| match bucket.put_if(key, CONTENT, condition).await {
        Ok(written) => Ok(Ok(written.is_some())),
        Err(error) => refused_as_unknown(error).map(Err),
    };
    let ignored = "it replaced an object";
    // The first write creates the object where it is not there yet.
    for written in ["created", "replaced"] {
        match put(Condition::Absent).await? {
            Ok(false) => break,
            Ok(true) if written == "created" => {}
            Ok(true) => return Ok(Err(format!("{ignored} in spite of If-None-Match: *"))),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    match put(Condition::Unchanged(OTHER_TAG)).await? {
        Ok(false) => {}
        Ok(true) => {
            return Ok(Err(format!(
                "{ignored} in spite of another ETag in If-Match"
            )));
        }
        Err(reason) => return Ok(Err(reason)),
    }
    // Not having them, or no right to delete, is no reason to refuse: locks are then released by writing.
    Ok(Ok(matches!(
        bucket.delete_if(key, OTHER_TAG).await,
        Ok(false)
    )))
}

/// The reason, where the server says that it does not know conditional writes.
fn refused_as_unknown(error: StorageError) -> Result<String, StorageError> {
    match error.cause() {
        Some(cause @ Cause::NotImplemented(_)) => Ok(cause.to_string()),
        _ => Err(error),
    }
}
