//! The clock of S3, as its answers tell it.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{Bucket, Cause, StorageError};

/// Notes the header `Date` of an answer.
#[derive(Debug, Clone, Default)]
struct DateHeader(Arc<Mutex<Option<String>>>);

impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(str::to_owned);
        Ok(())
    }
}

impl Bucket {
    /// The time by S3's clock, to the second.
    ///
    /// The client accepts any difference between the two clocks, so a request that succeeds says nothing of this node's.
    ///
    /// # Errors
    /// When the bucket cannot be listed, or an answer carries no time.
    pub async fn server_time(&self) -> Result<Timestamp, StorageError> {
        let seen = DateHeader::default();
        let request = self.client.list_objects_v2().bucket(&self.name).max_keys(1);
        let asked = request.customize().interceptor(seen.clone()).send().await;
        asked.map_err(|e| self.failed("list", "", e))?;
        let date = seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let time = date
            .as_deref()
            .and_then(|date| rfc2822::parse(date).ok())
            .map(|time| time.timestamp());
        time.ok_or_else(|| {
            let words = format!("an answer tells no time (Date: {date:?})");
            StorageError::of("list", &self.name, "", Cause::Other(words))
        })
    }
}
