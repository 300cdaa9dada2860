//! One object streamed into S3 as a multipart upload, with a few parts in memory and no file.

use std::time::Duration;

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Bucket, StorageError, UnfinishedUpload};

/// Parts on their way while the next one fills.
const IN_FLIGHT: usize = 2;
/// S3 takes no more parts than these, and no object above 5 TiB.
const MOST_PARTS: u64 = 10_000;
/// The first part; all but the last must have 5 MiB.
const FIRST_PART: u64 = 8 << 20;
/// By how much each part is larger than the one before: 10,000 of them hold 5 TiB.
const GROWTH: u64 = 108 << 10;
/// A part that is sent more slowly than this, in bytes a second, is given up and sent again.
const SLOWEST: u64 = 256 << 10;
/// How long putting thousands of parts together may take.
const COMPLETION: Duration = Duration::from_secs(300);
/// How long parts in flight may take to arrive before an abort.
const SETTLE: Duration = Duration::from_secs(5);

/// What was streamed into an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub bytes: u64,
    /// In lower-case hexadecimal digits.
    pub sha256: String,
}

/// An upload that shows in no listing until it is completed.
///
/// Dropped without [`Upload::complete`] or [`Upload::abort`], it stays in [`Bucket::unfinished_uploads`].
#[derive(Debug)]
pub struct Upload {
    bucket: Bucket,
    key: String,
    id: String,
    sent: Vec<CompletedPart>,
    in_flight: JoinSet<Result<CompletedPart, StorageError>>,
}

impl Bucket {
    /// Begins the upload of `key`.
    ///
    /// # Errors
    /// When the bucket is not there or refuses.
    pub async fn begin_upload(&self, key: &str) -> Result<Upload, StorageError> {
        let request = self.client.create_multipart_upload();
        let answer = request.bucket(&self.name).key(key).send().await;
        let answer = answer.map_err(|e| self.failed("begin the upload of", key, e))?;
        Ok(Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            id: answer.upload_id().unwrap_or_default().to_owned(),
            sent: Vec::new(),
            in_flight: JoinSet::new(),
        })
    }
}

impl Upload {
    /// Sends all of `source`, and returns when every part has arrived.
    ///
    /// Memory: at most three parts, of 8 MiB at first and 110 MiB where 50 GiB were sent.
    ///
    /// # Errors
    /// When a part cannot be sent or `source` cannot be read; the caller aborts the upload.
    pub async fn fill(
        &mut self,
        mut source: impl AsyncRead + Unpin,
    ) -> Result<Content, StorageError> {
        let (mut bytes, mut hash) = (0, Sha256::new());
        for number in 1.. {
            let part = read_part(&mut source, part_size(number)).await;
            let part = part.map_err(|e| StorageError::unread(&self.bucket.name, &self.key, &e))?;
            // S3 wants one part at least, if an empty one.
            if part.is_empty() && number > 1 {
                break;
            }
            bytes += part.len() as u64;
            hash.update(&part);
            while self.in_flight.len() >= IN_FLIGHT {
                self.one_arrived().await?;
            }
            let sending = send(
                self.bucket.clone(),
                self.key.clone(),
                self.id.clone(),
                number,
                part,
            );
            self.in_flight.spawn(sending);
        }
        while !self.in_flight.is_empty() {
            self.one_arrived().await?;
        }
        let sha256 = hexadecimal(hash);
        Ok(Content { bytes, sha256 })
    }

    async fn one_arrived(&mut self) -> Result<(), StorageError> {
        if let Some(joined) = self.in_flight.join_next().await {
            let part =
                joined.map_err(|e| StorageError::unread(&self.bucket.name, &self.key, &e))?;
            self.sent.push(part?);
        }
        Ok(())
    }

    /// Makes the object appear, whole.
    ///
    /// # Errors
    /// When S3 refuses or does not answer; whether the object is there is unknown then.
    pub async fn complete(mut self) -> Result<(), StorageError> {
        self.sent.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.sent));
        let request = self.bucket.client.complete_multipart_upload();
        let request = request
            .bucket(&self.bucket.name)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(parts.build());
        let patient = request.customize().config_override(patience(COMPLETION));
        let completed = patient.send().await;
        completed.map_err(|e| self.bucket.failed("complete the upload of", &self.key, e))?;
        Ok(())
    }

    /// Gives the upload up.
    ///
    /// # Errors
    /// When S3 refuses or does not answer: the upload is left, and seen by [`Bucket::unfinished_uploads`].
    pub async fn abort(mut self) -> Result<(), StorageError> {
        let settled = async { while self.in_flight.join_next().await.is_some() {} };
        if timeout(SETTLE, settled).await.is_err() {
            self.in_flight.shutdown().await;
        }
        let upload = UnfinishedUpload {
            key: self.key,
            upload_id: self.id,
            initiated: jiff::Timestamp::now(),
        };
        self.bucket.abort_upload(&upload).await?;
        // A part that arrived meanwhile is kept, and paid for, unless the abort is repeated.
        self.bucket.abort_upload(&upload).await
    }
}

/// The bytes of part `number`, counted from 1.
fn part_size(number: u64) -> u64 {
    FIRST_PART + number.min(MOST_PARTS).saturating_sub(1) * GROWTH
}

pub(super) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// As much of `source` as a part takes; less only at its end.
async fn read_part(source: &mut (impl AsyncRead + Unpin), size: u64) -> std::io::Result<Bytes> {
    let mut part = BytesMut::new();
    let mut source = source.take(size);
    while source.read_buf(&mut part).await? > 0 {}
    Ok(part.freeze())
}

async fn send(
    bucket: Bucket,
    key: String,
    id: String,
    number: u64,
    part: Bytes,
) -> Result<CompletedPart, StorageError> {
    // Ten thousand is the most S3 takes; it refuses what is beyond.
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let attempt = Duration::from_secs(10 + part.len() as u64 / SLOWEST);
    let request = bucket.client.upload_part().bucket(&bucket.name).key(&key);
    let request = request
        .upload_id(&id)
        .part_number(number)
        .body(ByteStream::from(part))
        .customize()
        .config_override(patience(attempt));
    let answer = request.send().await;
    let answer = answer.map_err(|e| bucket.failed("upload a part of", &key, e))?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag().map(str::to_owned))
        .build())
}

/// Deadlines of a request that takes longer than most.
fn patience(attempt: Duration) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(super::client::CONNECT_DEADLINE)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * 3);
    Builder::new().timeout_config(timeouts.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_the_largest_object_and_none_is_refused() {
        let whole: u64 = (1..=MOST_PARTS).map(part_size).sum();
        assert!(whole >= 5 << 40, "{whole}");
        assert!(part_size(1) >= 5 << 20 && part_size(MOST_PARTS) <= 5 << 30);
        // What the documentation of fill() promises.
        let (mut sent, mut number) = (0, 0);
        while sent < 50 << 30 {
            number += 1;
            sent += part_size(number);
        }
        assert!(part_size(number) <= 110 << 20, "{}", part_size(number));
    }

    #[tokio::test]
    async fn a_part_is_full_until_the_source_ends() {
        // Given in small pieces, as a pipe gives it.
        let mut source = (&[1_u8; 70][..]).chain(&[2_u8; 50][..]);
        let mut sizes = Vec::new();
        loop {
            let part = read_part(&mut source, 50).await.unwrap();
            sizes.push(part.len());
            if part.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [50, 50, 20, 0]);
    }
}
