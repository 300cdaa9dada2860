//! One object streamed into S3 as a multipart upload, with a few parts in memory and no file.

use std::time::Duration;

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::{Bucket, StorageError, Throttle, UnfinishedUpload};

/// Parts on their way while the next one fills.
const IN_FLIGHT: usize = 2;
/// S3 takes no more parts than these, and no object above 5 TiB.
const MOST_PARTS: u64 = 10_000;
/// The smallest part; all but the last must have 5 MiB.
const SMALLEST_PART: u64 = 8 << 20;
/// So many parts hold what an object is expected to have; those that follow grow.
const EVEN_PARTS: u64 = 7_000;
/// By how much each of them is larger than the one before: with them 10,000 parts hold 5 TiB.
const GROWTH: u64 = 1200 << 10;
/// A part that is sent more slowly than this, in bytes a second, is given up and sent again.
const SLOWEST: u64 = 256 << 10;
/// How long putting thousands of parts together may take.
const COMPLETION: Duration = Duration::from_secs(300);
/// How often a buffer is asked for again before another one is allocated.
const SETTLES: u32 = 8;
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
    in_flight: JoinSet<Result<(CompletedPart, Bytes), StorageError>>,
    /// Buffers of parts that have arrived: to free and allocate so much each time leaves holes, which stay resident.
    spare: Vec<BytesMut>,
}

impl Bucket {
    /// Begins the upload of `key`.
    ///
    /// # Errors
    /// When the bucket is not there or refuses.
    pub async fn begin_upload(&self, key: &str) -> Result<Upload, StorageError> {
        let request = self.at_rest.upload(self.client.create_multipart_upload());
        let answer = request.bucket(&self.name).key(key).send().await;
        let answer = answer.map_err(|e| self.failed("begin the upload of", key, e))?;
        Ok(Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            id: answer.upload_id().unwrap_or_default().to_owned(),
            sent: Vec::new(),
            in_flight: JoinSet::new(),
            spare: Vec::new(),
        })
    }
}

impl Upload {
    /// Sends all of `source`, of about `expected` bytes at most, and returns when every part has arrived.
    ///
    /// `expected` sizes the parts: 0 where it is unknown. `throttle` limits how fast `source` is read.
    ///
    /// Memory: at most three parts, of 8 MiB up to 54 GiB, and of a 7,000th of `expected` where that is more.
    ///
    /// # Errors
    /// When a part cannot be sent or `source` cannot be read; the caller aborts the upload.
    pub async fn fill(
        &mut self,
        mut source: impl AsyncRead + Unpin,
        expected: u64,
        throttle: Option<&Throttle>,
    ) -> Result<Content, StorageError> {
        let (mut bytes, mut hashing) = (0, Hashing::default());
        for number in 1.. {
            let size = part_size(number, expected);
            let buffer = self.spare.pop().unwrap_or_default();
            let part = read_part(&mut source, (size, buffer), throttle).await;
            let part = part.map_err(|e| StorageError::unread(&self.bucket.name, &self.key, &e))?;
            // S3 wants one part at least, if an empty one.
            if part.is_empty() && number > 1 {
                break;
            }
            bytes += part.len() as u64;
            hashing.add(part.clone()).await;
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
        let sha256 = hexadecimal(hashing.finish().await);
        Ok(Content { bytes, sha256 })
    }

    async fn one_arrived(&mut self) -> Result<(), StorageError> {
        if let Some(joined) = self.in_flight.join_next().await {
            let part =
                joined.map_err(|e| StorageError::unread(&self.bucket.name, &self.key, &e))?;
            let (part, mut buffer) = part?;
            self.sent.push(part);
            // The client may keep a reference for a moment longer.
            for _ in 0..SETTLES {
                match buffer.try_into_mut() {
                    Ok(mut buffer) => {
                        buffer.clear();
                        self.spare.push(buffer);
                        break;
                    }
                    Err(shared) => buffer = shared,
                }
                tokio::task::yield_now().await;
            }
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

/// The bytes of part `number`, counted from 1, of an object that is expected to have `expected` bytes.
fn part_size(number: u64, expected: u64) -> u64 {
    // Whole mebibytes, and not so large that the last parts could not grow.
    let even = expected.div_ceil(EVEN_PARTS).next_multiple_of(1 << 20);
    let even = even.clamp(SMALLEST_PART, 1 << 30);
    even + number.min(MOST_PARTS).saturating_sub(EVEN_PARTS) * GROWTH
}

/// A hash of parts in order, each made on a thread of its own while the next part is read.
#[derive(Default)]
struct Hashing(Option<JoinHandle<Sha256>>);

impl Hashing {
    async fn add(&mut self, part: Bytes) {
        let mut hash = self.take().await;
        self.0 = Some(spawn_blocking(move || {
            hash.update(&part);
            hash
        }));
    }

    async fn finish(mut self) -> Sha256 {
        self.take().await
    }

    async fn take(&mut self) -> Sha256 {
        match self.0.take() {
            Some(hashing) => hashing
                .await
                .expect("hashing neither panics nor is aborted"),
            None => Sha256::new(),
        }
    }
}

pub(super) fn hexadecimal(hash: Sha256) -> String {
    hex::encode(hash.finalize())
}

/// As much of `source` as a part takes; less only at its end.
async fn read_part(
    source: &mut (impl AsyncRead + Unpin),
    (size, buffer): (u64, BytesMut),
    throttle: Option<&Throttle>,
) -> std::io::Result<Bytes> {
    let mut part = buffer;
    // All at once: a buffer that grows would take twice the memory, and be copied.
    part.reserve(usize::try_from(size).unwrap_or_default());
    let mut source = source.take(size);
    while (part.len() as u64) < size {
        let read = source.read_buf(&mut part).await?;
        if read == 0 {
            break;
        }
        if let Some(throttle) = throttle {
            throttle.take(read as u64).await;
        }
    }
    Ok(part.freeze())
}

async fn send(
    bucket: Bucket,
    key: String,
    id: String,
    number: u64,
    part: Bytes,
) -> Result<(CompletedPart, Bytes), StorageError> {
    // Ten thousand is the most S3 takes; it refuses what is beyond.
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let attempt = Duration::from_secs(10 + part.len() as u64 / SLOWEST);
    let request = bucket.client.upload_part().bucket(&bucket.name).key(&key);
    let request = request
        .upload_id(&id)
        .part_number(number)
        .body(ByteStream::from(part.clone()))
        .customize()
        .config_override(patience(attempt));
    let answer = request.send().await;
    let answer = answer.map_err(|e| bucket.failed("upload a part of", &key, e))?;
    let arrived = CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag().map(str::to_owned))
        .build();
    Ok((arrived, part))
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
        for expected in [0, 1, 20 << 30, 5 << 40, u64::MAX] {
            let size = |number| part_size(number, expected);
            let whole: u64 = (1..=MOST_PARTS).map(size).sum();
            assert!(whole >= 5 << 40, "{expected}: {whole}");
            assert!(size(1) >= 5 << 20 && size(MOST_PARTS) <= 5 << 30);
        }
        // What the documentation of fill() promises.
        let sent: u64 = (1..=EVEN_PARTS).map(|number| part_size(number, 0)).sum();
        assert!(sent > 54 << 30, "{sent}");
        assert_eq!(part_size(EVEN_PARTS, 0), 8 << 20);
        assert_eq!(part_size(1, 500 << 30), 74 << 20);
    }

    #[tokio::test]
    async fn a_part_is_full_until_the_source_ends() {
        // Given in small pieces, as a pipe gives it.
        let mut source = (&[1_u8; 70][..]).chain(&[2_u8; 50][..]);
        let mut sizes = Vec::new();
        loop {
            let part = read_part(&mut source, (50, BytesMut::new()), None)
                .await
                .unwrap();
            sizes.push(part.len());
            if part.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [50, 50, 20, 0]);
    }
}
