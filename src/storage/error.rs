//! What goes wrong with S3, told apart by what an operator does about it.

use std::fmt;
use std::path::PathBuf;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No answer: name not resolved, refused, timed out, cut.
    Unreachable(String),
    NoSuchBucket,
    NoSuchKey,
    /// A conditional write came too late: the object is not as it was expected.
    Unmet,
    /// S3 refused every one of many conditional writes.
    Unsettled(String),
    /// HTTP 501: the server does not know what was asked, or a header of it.
    NotImplemented(String),
    /// A listing that does not hold all that it should.
    CutShort(String),
    /// An object lock (retention or legal hold) refuses the deletion; with S3's own words.
    Locked(String),
    /// HTTP 401 or 403, with S3's own code, such as `SignatureDoesNotMatch`.
    Denied(String),
    /// Neither the configuration nor the AWS chain holds credentials.
    NoCredentials,
    /// Everything else, in the server's words.
    Other(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what) => write!(f, "S3 does not answer ({what})"),
            Self::NoSuchBucket => f.write_str("no such bucket"),
            Self::NoSuchKey => f.write_str("no such object"),
            Self::Unmet => f.write_str("it was changed meanwhile"),
            Self::Unsettled(why) => f.write_str(why),
            Self::NotImplemented(what) => write!(f, "not implemented by this S3 server ({what})"),
            Self::CutShort(why) => write!(f, "the listing is incomplete: {why}"),
            Self::Locked(words) => write!(f, "retained by the bucket's object lock ({words})"),
            Self::Denied(code) => write!(f, "access denied ({code})"),
            Self::NoCredentials => f.write_str("no credentials"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot {operation} s3://{bucket}/{key}: {cause}")]
    Request {
        operation: &'static str,
        bucket: String,
        key: String,
        cause: Cause,
    },
    #[error("no AWS region is known")]
    NoRegion,
    #[error("cannot use the CA certificate {}: {reason}", path.display())]
    CaCertificate { path: PathBuf, reason: String },
}

impl StorageError {
    pub(super) fn new<E>(
        operation: &'static str,
        bucket: &str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        Self::of(operation, bucket, key, cause_of(&error))
    }

    pub(super) fn of(operation: &'static str, bucket: &str, key: &str, cause: Cause) -> Self {
        Self::Request {
            operation,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            cause,
        }
    }

    /// A body that ended before its length.
    pub(super) fn cut(bucket: &str, key: &str, error: impl std::error::Error) -> Self {
        Self::of("read", bucket, key, Cause::Unreachable(innermost(&error)))
    }

    /// What was to be sent could not be read to its end.
    pub(super) fn unread(bucket: &str, key: &str, error: &dyn std::error::Error) -> Self {
        let cause = Cause::Other(format!("what is sent cannot be read: {error}"));
        Self::of("upload", bucket, key, cause)
    }

    /// Why the request failed; `None` when none was made.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Request { cause, .. } => Some(cause),
            Self::NoRegion | Self::CaCertificate { .. } => None,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::NoRegion => "set s3.region in xdb.toml, or AWS_REGION in /etc/environment".to_owned(),
            Self::CaCertificate { .. } => "s3.ca_cert_file names a readable PEM file".to_owned(),
            Self::Request { bucket, key, cause, .. } => match cause {
                Cause::Unreachable(_) => {
                    "check s3.endpoint, the VPC endpoint and its security group; `xdb config show` tells where it came from"
                        .to_owned()
                }
                Cause::NoSuchBucket => {
                    format!("create the bucket {bucket}, or correct cluster.account and archive.repository or dump.repository")
                }
                Cause::NoSuchKey => "list what is there with `xdb backup list` or `xdb dump list`".to_owned(),
                Cause::Unmet => "another node wrote it; try again".to_owned(),
                Cause::Unsettled(_) => format!(
                    "the S3 server, and any proxy before it, must honour If-None-Match and If-Match; \
                     a delete marker can be removed: aws s3api list-object-versions --bucket {bucket} --prefix {key}"
                ),
                Cause::NotImplemented(_) => {
                    "xdb needs an S3 server that knows multipart uploads and conditional writes".to_owned()
                }
                Cause::CutShort(_) => {
                    "the S3 server, or a proxy before it, answers with less than it has: try again, then check s3.endpoint"
                        .to_owned()
                }
                Cause::Locked(_) => {
                    "it can be deleted when its retention ends, or its legal hold is lifted".to_owned()
                }
                Cause::Denied(_) => {
                    format!("check s3.access_key_id and s3.secret_access_key, or the instance role's policy for {bucket}")
                }
                Cause::NoCredentials => {
                    "give the instance a role, or set s3.access_key_id and s3.secret_access_key".to_owned()
                }
                Cause::Other(_) => "the words after the colon are the S3 server's own".to_owned(),
            },
        }
    }
}

fn cause_of<E>(error: &SdkError<E, HttpResponse>) -> Cause
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("no code");
            let message = answer.err().message().unwrap_or("no message");
            match (code, answer.raw().status().as_u16()) {
                ("NoSuchBucket", _) => Cause::NoSuchBucket,
                ("NoSuchKey" | "NoSuchUpload" | "NotFound", _) => Cause::NoSuchKey,
                ("PreconditionFailed" | "ConditionalRequestConflict", _) => Cause::Unmet,
                (code, _) if is_locked(code, message) => Cause::Locked(message.to_owned()),
                (_, 401 | 403) => Cause::Denied(code.to_owned()),
                ("NotImplemented", _) | (_, 501) => Cause::NotImplemented(code.to_owned()),
                (_, status) => Cause::Other(format!("HTTP {status}, {code}: {message}")),
            }
        }
        SdkError::TimeoutError(_) => Cause::Unreachable("timed out".to_owned()),
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            let whole = DisplayErrorContext(error).to_string();
            // The SDK has no type of its own for "the chain found nothing".
            if whole.contains("credentials provider") || whole.contains("CredentialsNotLoaded") {
                Cause::NoCredentials
            } else {
                Cause::Unreachable(innermost(error))
            }
        }
        other => Cause::Unreachable(innermost(other)),
    }
}

/// AWS and versitygw say so in the message of an `AccessDenied`, MinIO in the code.
fn is_locked(code: &str, message: &str) -> bool {
    code == "ObjectLocked" || message.to_ascii_lowercase().contains("object lock")
}

/// The last cause of a chain: "connection refused" rather than "dispatch failure".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
