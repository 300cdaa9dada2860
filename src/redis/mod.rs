//! The management Redis: one connection with deadlines, the names of xdb's keys, live state.
//!
//! What Redis holds may be lost at any time, so nothing here is the only place of anything.

mod connection;
mod keys;
mod live;
mod resolver;

use std::path::PathBuf;

pub use connection::Redis;
pub use keys::Keys;

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("cannot read redis.url: {reason}")]
    Url { reason: String },
    #[error("cannot read redis.ca_cert_file {}", path.display())]
    Certificates {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot connect to Redis at {server}: {reason}")]
    Connect { server: String, reason: String },
    #[error("cannot {what} in Redis at {server}: {reason}")]
    Command {
        what: &'static str,
        server: String,
        reason: String,
    },
    #[error(
        "cannot {what} in Redis at {server}: another program has written to the key {key}, which is of the wrong type now"
    )]
    WrongType {
        what: &'static str,
        server: String,
        /// Of several, which one is not known.
        key: String,
    },
}

impl RedisError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        let login = ["NOAUTH", "WRONGPASS", "AuthenticationFailed"];
        match self {
            Self::Url { .. } => {
                "redis.url is written as redis://host:6379, or rediss://host:6379 with TLS"
            }
            Self::Certificates { .. } => "name a PEM file that the database's user may read",
            Self::Connect { reason, .. } | Self::Command { reason, .. }
                if login.iter().any(|word| reason.contains(word)) =>
            {
                "check redis.user and redis.password (or REDIS_PASSWORD)"
            }
            Self::Connect { reason, .. } | Self::Command { reason, .. }
                if reason.contains("NOPERM") =>
            {
                "the ACL of redis.user forbids that: docs/alerts.md has the one that xdb needs"
            }
            Self::Command { reason, .. } if reason.contains("READONLY") => {
                "redis.url leads to a replica: let it lead to the Redis that takes writes"
            }
            Self::Command { reason, .. } if reason.contains("MISCONF") => {
                "Redis cannot save to its disk and refuses writes: free space there, see its log"
            }
            Self::Command { reason, .. } if reason.contains("OOM") => {
                "Redis has reached maxmemory: raise it, or delete what other programs left there"
            }
            Self::Command { reason, .. } if reason.contains("LOADING") => {
                "Redis has just started and reads its data; xdb tries again"
            }
            Self::Connect { reason, .. } if reason.contains("certificate") => {
                "redis.ca_cert_file names the CA of Redis's certificate, which must hold the host name in redis.url"
            }
            Self::Connect { .. } => {
                "is Redis running there? check redis.url and its security group"
            }
            Self::WrongType { .. } => {
                "delete that key with `redis-cli DEL KEY`: xdb writes it again"
            }
            Self::Command { .. } => "the words after the colon are Redis's own",
        }
    }
}
