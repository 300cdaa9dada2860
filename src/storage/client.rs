//! The AWS client: where it finds S3, its credentials and its certificates.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use secrecy::ExposeSecret;

use super::counted::Counter;
use super::{REQUEST_DEADLINE, StorageError};
use crate::config::S3;

/// For each connection of each request.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

#[cfg(test)]
thread_local! {
    /// How many clients this test has made.
    pub(crate) static CLIENTS_MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Makes a client from `settings`; without keys there, the usual AWS chain (environment, instance role) is asked.
pub(super) async fn make(settings: &S3) -> Result<Client, StorageError> {
    #[cfg(test)]
    CLIENTS_MADE.set(CLIENTS_MADE.get() + 1);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_DEADLINE)
        .operation_attempt_timeout(REQUEST_DEADLINE / 3)
        .operation_timeout(REQUEST_DEADLINE)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(settings)?)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    // Without a region the SDK asks the instance metadata service for it, a second an attempt.
    let region = settings.region.clone().ok_or(StorageError::NoRegion)?;
    loader = loader.region(Region::new(region));
    if let (Some(id), Some(secret)) = (&settings.access_key_id, &settings.secret_access_key) {
        let token = settings
            .session_token
            .as_ref()
            .map(|token| token.expose_secret().to_owned());
        loader = loader.credentials_provider(Credentials::new(
            id,
            secret.expose_secret(),
            token,
            None,
            "xdb configuration",
        ));
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(settings.force_path_style)
        .interceptor(Counter);
    if let Some(endpoint) = &settings.endpoint {
        // The SDK's default checksums break S3 servers other than AWS's own.
        config = config
            .endpoint_url(endpoint)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    Ok(Client::from_conf(config.build()))
}

fn http_client(settings: &S3) -> Result<SharedHttpClient, StorageError> {
    let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(path) = &settings.ca_cert_file else {
        return Ok(builder.build_https());
    };
    let unusable = |reason: String| StorageError::CaCertificate {
        path: path.clone(),
        reason,
    };
    let pem = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
    // The SDK panics on a file without certificates when the first connection is made.
    if !pem
        .windows(27)
        .any(|window| window == b"-----BEGIN CERTIFICATE-----")
    {
        return Err(unusable("it holds no PEM certificate".to_owned()));
    }
    let store = TrustStore::empty().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(store).build();
    let context = context.map_err(|e| unusable(e.to_string()))?;
    Ok(builder.tls_context(context).build_https())
}
