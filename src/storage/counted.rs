//! Counts the requests that this process sends to S3, for the metrics.
//!
//! The programs that xdb runs (`wal-g`, `walrus`) send their own, which nothing here sees.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

/// What the requests of one kind, made for one job, add up to since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestCount {
    /// `get`, `head`, `list`, `put` or `delete`.
    pub operation: &'static str,
    /// The job's name; [`OTHER`] for the daemon's own loops.
    pub job: &'static str,
    /// Retries included.
    pub requests: u64,
    /// Of the bodies alone; what an answer without a length brought is not known and not counted.
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// What no job asked for.
pub(crate) const OTHER: &str = "other";

tokio::task_local! {
    static JOB: &'static str;
}

type Sums = BTreeMap<(&'static str, &'static str), [u64; 3]>;

static SUMS: Mutex<Sums> = Mutex::new(BTreeMap::new());

/// Counts the requests of `work` for `job`; those of tasks that it spawns count for [`OTHER`].
pub(crate) async fn counted_for<T>(job: &'static str, work: impl Future<Output = T>) -> T {
    JOB.scope(job, work).await
}

/// The requests of this process so far.
pub(crate) fn request_counts() -> Vec<RequestCount> {
    let sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = |(&(operation, job), &[requests, sent_bytes, received_bytes]): (_, &[u64; 3])| {
        RequestCount {
            operation,
            job,
            requests,
            sent_bytes,
            received_bytes,
        }
    };
    sums.iter().map(count).collect()
}

fn add(kind: Kind, added: [u64; 3]) {
    let mut sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
    let sum = sums.entry((kind.operation, kind.job)).or_default();
    for (sum, added) in sum.iter_mut().zip(added) {
        *sum += added;
    }
}

/// Sees each attempt of each request of a client.
#[derive(Debug)]
pub(super) struct Counter;

/// What an attempt counts as; kept until its answer is there, for the request is gone by then.
#[derive(Debug, Clone, Copy)]
struct Kind {
    operation: &'static str,
    job: &'static str,
}

impl Storable for Kind {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "request counter"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let kind = Kind {
            operation: operation(request.method(), request.uri()),
            job: JOB.try_with(|job| *job).unwrap_or(OTHER),
        };
        let sent = request.body().content_length().unwrap_or_default();
        add(kind, [1, sent, 0]);
        state.interceptor_state().store_put(kind);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The length in the answer to HEAD is the object's, which is not sent.
        let kind = state.load::<Kind>().filter(|kind| kind.operation != "head");
        let length = context.response().headers().get("content-length");
        let received = length.and_then(|length| length.parse().ok());
        if let (Some(kind), Some(received)) = (kind, received) {
            add(*kind, [0, 0, received]);
        }
        Ok(())
    }
}

/// The kind of a request by its method and query, as the S3 API defines them.
fn operation(method: &str, uri: &str) -> &'static str {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let names = |name: &str| {
        let mut parts = query.split('&');
        parts.any(|part| part.split('=').next() == Some(name))
    };
    match method {
        "GET" if ["list-type", "uploads", "versions"].into_iter().any(names) => "list",
        "GET" => "get",
        "HEAD" => "head",
        "DELETE" => "delete",
        "POST" if names("delete") => "delete",
        // PUT, and the requests around a multipart upload.
        _ => "put",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_by_what_it_does() {
        for (method, uri, expected) in [
            ("GET", "https://s3/b/wal_005/x?x-id=GetObject", "get"),
            ("GET", "https://s3/b?list-type=2&prefix=wal_005%2F", "list"),
            ("GET", "https://s3/b?uploads&prefix=uploads", "list"),
            ("GET", "https://s3/b/uploads", "get"),
            ("HEAD", "https://s3/b/x", "head"),
            ("PUT", "https://s3/b/x?partNumber=1&uploadId=2", "put"),
            ("POST", "https://s3/b/x?uploads", "put"),
            ("POST", "https://s3/b?delete", "delete"),
            ("DELETE", "https://s3/b/x?uploadId=2", "delete"),
        ] {
            assert_eq!(operation(method, uri), expected, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn what_a_job_asks_counts_for_it() {
        let job = || JOB.try_with(|job| *job).unwrap_or(OTHER);
        assert_eq!(job(), OTHER);
        assert_eq!(counted_for("dump", async { job() }).await, "dump");
    }
}
