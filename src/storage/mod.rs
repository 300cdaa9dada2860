//! S3: list, get, put, stream, delete, look for, and clean up. It knows nothing of what buckets hold.

mod at_rest;
mod body;
mod client;
mod clock;
mod conditional;
mod counted;
mod download;
mod error;
mod listing;
mod location;
mod throttle;
mod upload;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use jiff::Timestamp;
use tokio::time::timeout;

use crate::config::S3;
use at_rest::AtRest;
#[cfg(test)]
pub(crate) use client::CLIENTS_MADE;
pub(crate) use conditional::{Change, Condition, Written};
pub(crate) use counted::{counted_for, request_counts};
pub(crate) use download::Download;
pub(crate) use error::{Cause, StorageError};
pub(crate) use location::{Location, UnknownPlaceholder};
pub(crate) use throttle::Throttle;
pub(crate) use upload::Content;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    /// Bytes as stored, compressed.
    pub size: u64,
    pub last_modified: Timestamp,
    /// Changes with the content (ETag); empty where the server knows none.
    pub tag: String,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    pub key: String,
    pub upload_id: String,
    pub initiated: Timestamp,
}

/// One bucket, seen through one client.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    name: String,
    at_rest: AtRest,
}

impl Bucket {
    /// Makes the client; nothing is sent until the first call.
    ///
    /// # Errors
    /// When no region is known, or `s3.ca_cert_file` cannot be read.
    pub async fn open(settings: &S3, name: &str) -> Result<Self, StorageError> {
        Ok(Self {
            client: client::make(settings).await?,
            name: name.to_owned(),
            at_rest: AtRest::of(settings),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another bucket of the same S3, through the same client.
    pub fn beside(&self, name: &str) -> Self {
        Self {
            client: self.client.clone(),
            name: name.to_owned(),
            at_rest: self.at_rest.clone(),
        }
    }

    /// The whole content of one object; for small objects only, it is held in memory.
    ///
    /// # Errors
    /// When the object is not there ([`Cause::NoSuchKey`]) or cannot be read.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, StorageError> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = request
            .send()
            .await
            .map_err(|e| self.failed("read", key, e))?;
        // The client's own deadline ends where the body begins.
        let body = timeout(REQUEST_DEADLINE, answer.body.collect()).await;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        let body = body.map_err(|e| StorageError::cut(&self.name, key, e))?;
        Ok(body.into_bytes().into())
    }

    /// Whether there is an object `key`.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer.
    pub async fn exists(&self, key: &str) -> Result<bool, StorageError> {
        let request = self.client.head_object().bucket(&self.name).key(key);
        match request
            .send()
            .await
            .map_err(|e| self.failed("read", key, e))
        {
            Ok(_) => Ok(true),
            Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a small object in one request.
    ///
    /// # Errors
    /// When the bucket is not there, refuses or does not answer.
    pub async fn put(&self, key: &str, content: Vec<u8>) -> Result<(), StorageError> {
        let request = self.at_rest.put(self.client.put_object());
        let request = request.bucket(&self.name).key(key);
        let stored = request.body(ByteStream::from(content)).send().await;
        stored.map_err(|e| self.failed("write", key, e))?;
        Ok(())
    }

    /// Deletes one object; one that is gone already counts as deleted.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer.
    pub async fn delete(&self, key: &str) -> Result<(), StorageError> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        match request
            .send()
            .await
            .map_err(|e| self.failed("delete", key, e))
        {
            Err(error) if error.cause() != Some(&Cause::NoSuchKey) => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives up an unfinished upload; one that is gone already counts as given up.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), StorageError> {
        let request = self.client.abort_multipart_upload().bucket(&self.name);
        let request = request.key(&upload.key).upload_id(&upload.upload_id);
        match request
            .send()
            .await
            .map_err(|e| self.failed("abort the upload of", &upload.key, e))
        {
            Err(error) if error.cause() != Some(&Cause::NoSuchKey) => Err(error),
            _ => Ok(()),
        }
    }

    fn failed<E>(
        &self,
        operation: &'static str,
        key: &str,
        error: aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
    ) -> StorageError
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        StorageError::new(operation, &self.name, key, error)
    }
}

/// How long one request may take, retries included; listings are many requests.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
