//! The probe behind `xdb wait`: is the database ready for an application, by the whole way there?
//!
//! It dials, says which hop failed, and tries again until a deadline; it changes nothing.

mod all;
mod classify;
#[cfg(test)]
mod classify_tests;
mod connection_url;
mod dial;
mod error;
mod heard;
mod hop;
mod passfile;
mod password;
mod probe;
mod resolve;
mod tls;
mod until_ready;

pub use all::{Ended, all_ready};
pub use classify::{Next, Signal};
pub use connection_url::{UrlPart, parse_url};
pub use error::WaitError;
pub use hop::Hop;
pub use password::PasswordFile;
pub use probe::{Reached, probe};
pub use tls::{SslMode, Tls};
pub use until_ready::{Outcome, until_ready};

use std::fmt;
use std::time::Duration;

use crate::postgres::Target;

/// What is waited for, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its `connect_timeout` is the deadline of one attempt, the query included.
    pub target: Target,
    /// Read at each attempt when the target is without a password.
    pub password_file: Option<PasswordFile>,
    pub tls: Tls,
    pub wanted: Wanted,
    /// Who takes connections at the target's address.
    pub front: Hop,
    /// For all attempts together, in wall-clock time; zero makes one attempt.
    pub timeout: Duration,
    /// How long the same refusal must last to be final; zero is at once.
    pub fail_fast_after: Duration,
}

impl Options {
    /// As "management:5432".
    pub fn place(&self) -> String {
        format!("{}:{}", self.target.host, self.target.port)
    }
}

/// The role that the server must report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// Not in recovery, and a transaction may write.
    Primary,
    Replica,
    Any,
}

/// As it is asked for on the command line.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
        })
    }
}
