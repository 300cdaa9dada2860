//! Receivers of alerts beside Redis, and where requests go.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::model::Severity;

/// Begins the name of a heartbeat URL among the receivers: the job's name follows.
pub const HEARTBEAT: &str = "heartbeat-";

/// The name of Redis among the receivers.
pub const REDIS: &str = "redis";

/// One receiver.
#[derive(Debug, Clone)]
pub struct Notify {
    /// Names the receiver in alerts; its queue follows the name.
    pub name: String,
    pub format: NotifyFormat,
    pub url: Endpoint,
    /// A file that holds the bearer token, or PagerDuty's routing key.
    pub token_file: Option<PathBuf>,
    pub minimum_severity: Severity,
    /// PEM certificates of a server with TLS; `None`, the system's.
    pub ca_cert_file: Option<PathBuf>,
}

/// How a receiver wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyFormat {
    /// The event as Redis has it.
    Json,
    Slack,
    PagerDuty,
    Alertmanager,
}

/// Where a request goes. The whole URL is a secret: that of a chat's webhook is its password.
#[derive(Debug, Clone)]
pub enum Endpoint {
    Url(SecretString),
    /// Holds the URL; read for each request.
    File(PathBuf),
}

impl NotifyFormat {
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "json" => Self::Json,
            "slack" => Self::Slack,
            "pagerduty" => Self::PagerDuty,
            "alertmanager" => Self::Alertmanager,
            _ => return None,
        })
    }
}

impl Endpoint {
    /// Of a URL, or of an absolute path.
    pub(super) fn of(text: &str) -> Self {
        if text.starts_with('/') {
            Self::File(PathBuf::from(text))
        } else {
            Self::Url(text.into())
        }
    }
}
