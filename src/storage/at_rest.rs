//! How S3 is asked to encrypt what is written to it. Its parts need no header of their own: an upload has it from its beginning.

use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::ServerSideEncryption;

use crate::config::S3;

/// `s3.server_side_encryption` and `s3.kms_key_id`; without them the bucket's default applies.
#[derive(Debug, Clone)]
pub(super) struct AtRest {
    method: Option<ServerSideEncryption>,
    key: Option<String>,
}

impl AtRest {
    pub(super) fn of(settings: &S3) -> Self {
        let method = settings.server_side_encryption.as_deref();
        Self {
            method: method.map(ServerSideEncryption::from),
            key: settings.kms_key_id.clone(),
        }
    }

    pub(super) fn put(&self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        request
            .set_server_side_encryption(self.method.clone())
            .set_ssekms_key_id(self.key.clone())
    }

    pub(super) fn upload(
        &self,
        request: CreateMultipartUploadFluentBuilder,
    ) -> CreateMultipartUploadFluentBuilder {
        request
            .set_server_side_encryption(self.method.clone())
            .set_ssekms_key_id(self.key.clone())
    }
}
