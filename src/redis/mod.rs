//! The management Redis: one connection with deadlines, the names of xdb's keys, live state.
//!
//! What Redis holds may be lost at any time, so nothing here is the only place of anything.

mod connection;
mod keys;
mod live;

pub use connection::Redis;
pub use keys::Keys;

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("cannot read redis.url: {reason}")]
    Url { reason: String },
    #[error("cannot connect to Redis at {server}: {reason}")]
    Connect { server: String, reason: String },
    #[error("cannot {what} in Redis at {server}: {reason}")]
    Command {
        what: &'static str,
        server: String,
        reason: String,
    },
}

impl RedisError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        let login = ["NOAUTH", "WRONGPASS", "NOPERM", "AuthenticationFailed"];
        match self {
            Self::Url { .. } => "redis.url is written as redis://host:6379",
            Self::Connect { reason, .. } | Self::Command { reason, .. }
                if login.iter().any(|word| reason.contains(word)) =>
            {
                "check redis.user and redis.password (or REDIS_PASSWORD)"
            }
            Self::Connect { .. } => {
                "is Redis running there? check redis.url and its security group"
            }
            Self::Command { .. } => "the words after the colon are Redis's own",
        }
    }
}
