//! Writing only what is as expected: what two nodes may write at once.
//!
//! Every loop on a conditional write is [`Bucket::update`]: it has a bound, pauses, and ends with a reason.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use tokio::time::{sleep, timeout};

use super::{Bucket, Cause, REQUEST_DEADLINE, StorageError};

/// Writes of one object before an update gives up.
const ATTEMPTS: u32 = 6;
/// Before the second write; doubled for each one after it.
const PAUSE: Duration = Duration::from_millis(100);

/// What must hold for an object to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// It is not there (`If-None-Match: *`).
    Absent,
    /// It is the one with this ETag (`If-Match`).
    Unchanged(&'a str),
}

/// An object that a conditional write stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    pub tag: String,
    /// The bucket keeps versions, so deleting the object would leave a delete marker.
    pub is_versioned: bool,
}

/// What to do with an object that was read.
pub enum Change<T> {
    Keep(T),
    /// Store this content, unless the object changes meanwhile.
    Write(Vec<u8>, T),
}

/// Why S3 refused the last conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It would not create the object, and says that the object does not exist.
    NotCreated,
    /// The object had another ETag by then.
    Changed,
    /// S3 gave no ETag to compare with.
    NoTag,
}

impl Refusal {
    fn reason(self) -> String {
        match self {
            Self::NotCreated => format!(
                "S3 refused to create it {ATTEMPTS} times and says that it does not exist: the bucket keeps a delete marker of it"
            ),
            Self::Changed => format!(
                "S3 refused {ATTEMPTS} writes because its ETag was another one than S3 had just given"
            ),
            Self::NoTag => "S3 gives no ETag for it".to_owned(),
        }
    }
}

impl Bucket {
    /// One small object with its ETag; `None` when it is not there.
    pub async fn get_tagged(&self, key: &str) -> Result<Option<(Vec<u8>, String)>, StorageError> {
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

    /// Writes a small object where `condition` holds; `None` where it does not hold.
    ///
    /// A request that is sent again after a lost answer finds its own first: `None` does not say that it was not written.
    pub async fn put_if(
        &self,
        key: &str,
        content: &[u8],
        condition: Condition<'_>,
    ) -> Result<Option<Written>, StorageError> {
        let request = self.at_rest.put(self.client.put_object());
        let request = request.bucket(&self.name).key(key);
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Unchanged(tag) => request.if_match(tag),
        };
        let body = ByteStream::from(content.to_vec());
        let stored = request.body(body).send().await;
        match stored.map_err(|e| self.failed("write", key, e)) {
            Ok(stored) => Ok(Some(Written {
                tag: stored.e_tag().unwrap_or_default().to_owned(),
                is_versioned: stored.version_id().is_some(),
            })),
            // Gone already is changed, too.
            Err(error) if error.is_unmet() || error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object that is still the one with the ETag `tag`; `false` where it is another one or not there.
    pub async fn delete_if(&self, key: &str, tag: &str) -> Result<bool, StorageError> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        let deleted = request.if_match(tag).send().await;
        match deleted.map_err(|e| self.failed("delete", key, e)) {
            Err(error) if error.is_unmet() || error.cause() == Some(&Cause::NoSuchKey) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }

    /// Reads the object `key` and does what `decide` says about it; again, where it changed between the two.
    ///
    /// Returns what `decide` gave, and how the object was stored, if it was.
    ///
    /// # Errors
    /// As `decide`; when S3 does not answer; [`Cause::Unsettled`] when it refuses every write.
    pub async fn update<T, E: From<StorageError>>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&[u8]>) -> Result<Change<T>, E>,
    ) -> Result<(T, Option<Written>), E> {
        let mut sent: Option<(Vec<u8>, T)> = None;
        let mut refusal = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(pause(attempt, std::process::id())).await;
            }
            let there = self.get_tagged(key).await?;
            // A write whose answer was lost is sent again by the client, and is refused because the first one succeeded.
            if let (Some((content, tag)), Some((own, _))) = (&there, &sent)
                && content == own
                && let Some((_, value)) = sent.take()
            {
                let (tag, is_versioned) = (tag.clone(), false);
                return Ok((value, Some(Written { tag, is_versioned })));
            }
            let (content, value) = match decide(there.as_ref().map(|(content, _)| &content[..]))? {
                Change::Keep(value) => return Ok((value, None)),
                Change::Write(content, value) => (content, value),
            };
            let tag = match &there {
                Some((_, tag)) if tag.is_empty() => {
                    return Err(self.unsettled(key, Refusal::NoTag).into());
                }
                Some((_, tag)) => Some(tag.clone()),
                None if refusal == Some(Refusal::NotCreated) => self.deleted_tag(key).await?,
                None => None,
            };
            let condition = tag
                .as_deref()
                .map_or(Condition::Absent, Condition::Unchanged);
            if let Some(written) = self.put_if(key, &content, condition).await? {
                return Ok((value, Some(written)));
            }
            refusal = Some(match there {
                None => Refusal::NotCreated,
                Some(_) => Refusal::Changed,
            });
            sent = Some((content, value));
        }
        let refusal = refusal.unwrap_or(Refusal::Changed);
        Err(self.unsettled(key, refusal).into())
    }

    /// The ETag of the newest version below the delete marker of `key`; `None` where no version is known.
    ///
    /// AWS creates an object over its delete marker with `If-None-Match: *`. versitygw 1.8 refuses that, and compares
    /// `If-Match` with the version that was deleted; a server that does neither refuses both, which loses nothing.
    async fn deleted_tag(&self, key: &str) -> Result<Option<String>, StorageError> {
        let request = self.client.list_object_versions().bucket(&self.name);
        let listed = request.prefix(key).send().await;
        let listed = listed.map_err(|e| self.failed("list the versions of", key, e))?;
        // Newest first.
        let newest = listed
            .versions()
            .iter()
            .find(|version| version.key() == Some(key));
        Ok(newest
            .and_then(|version| version.e_tag())
            .map(str::to_owned))
    }

    fn unsettled(&self, key: &str, refusal: Refusal) -> StorageError {
        let cause = Cause::Unsettled(refusal.reason());
        StorageError::of("write", &self.name, key, cause)
    }
}

/// Two nodes that were refused at the same time wait for different times.
fn pause(attempt: u32, process: u32) -> Duration {
    let spread = Duration::from_millis(u64::from(process % 100));
    PAUSE * (1 << attempt.saturating_sub(1).min(ATTEMPTS)) + spread
}

impl StorageError {
    fn is_unmet(&self) -> bool {
        self.cause() == Some(&Cause::Unmet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_together_take_some_seconds() {
        let whole: Duration = (1..ATTEMPTS).map(|attempt| pause(attempt, 99)).sum();
        assert!(whole > Duration::from_secs(2) && whole < Duration::from_secs(6));
        assert_ne!(pause(1, 7), pause(1, 8));
    }
}
