//! The probe behind `xdb wait`: is the database ready for an application, through HAProxy and PgBouncer?
//!
//! It connects, reports which hop failed, and retries until a deadline. It changes nothing.

mod all;
mod auth_methods;
mod classify;
#[cfg(test)]
mod classify_tests;
mod connect;
mod connection_string;
#[cfg(test)]
mod connection_string_tests;
mod connection_uri;
mod dial;
mod error;
mod hop;
mod host;
mod keyword_values;
mod passfile;
mod password;
mod peer;
mod probe;
mod progress;
mod resolve;
mod session_attributes;
mod until_ready;
mod watched;

pub(crate) use all::{WaitEnd, all_ready};
pub(crate) use auth_methods::AuthMethods;
pub(crate) use classify::{RetryAfter, Signal};
pub(crate) use connection_string::{
    ConnectionString, is_connection_string, parse_connection_string, parse_with_password,
};
pub(crate) use error::WaitError;
pub(crate) use hop::Hop;
pub(crate) use host::{Host, parse_hosts};
pub(crate) use password::PasswordFile;
pub(crate) use probe::{Reached, probe};
pub(crate) use session_attributes::SessionAttributes;
pub(crate) use until_ready::{WaitOutcome, until_ready};

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

use crate::postgres::{Target, Tls};

/// One target of a wait, and the limits.
#[derive(Debug, Clone)]
pub(crate) struct WaitOptions {
    /// Its `connect_timeout` is the deadline of one attempt, the query included.
    pub target: Target,
    pub parameters: Parameters,
    /// Read at each attempt when the target is without a password.
    pub password_file: Option<PasswordFile>,
    pub tls: Tls,
    pub wanted: WantedRole,
    /// The program that takes connections at the target's address.
    pub front: Hop,
    /// For all attempts together, in wall-clock time; zero makes one attempt.
    pub timeout: Duration,
    /// How long the same refusal must last to be final; zero is at once.
    pub fail_fast_after: Duration,
}

/// Parameters of a connection string beyond one host, one login and TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters {
    /// In the order to try them; empty where it is the target's own alone.
    pub hosts: Vec<Host>,
    pub attributes: SessionAttributes,
    pub application_name: Option<String>,
    /// The `options` of the session.
    pub options: Option<String>,
    /// libpq's `require_auth`: the authentication methods that the server may use.
    pub methods: Option<AuthMethods>,
    /// libpq's `requirepeer`: the account that the server at a Unix socket runs as.
    pub peer: Option<String>,
    /// `None` is libpq's default, `prefer`.
    pub channel_binding: Option<ChannelBinding>,
}

impl WaitOptions {
    /// As "management:5432", with commas between several.
    pub(crate) fn place(&self) -> String {
        let hosts = self.hosts();
        let places = hosts
            .iter()
            .map(|host| format!("{}:{}", host.shown(), host.port));
        places.collect::<Vec<_>>().join(",")
    }

    /// The hosts in the order to try them.
    fn hosts(&self) -> Vec<Host> {
        match self.parameters.hosts.as_slice() {
            [] => vec![Host::of(&self.target)],
            hosts => hosts.to_vec(),
        }
    }

    /// The same, for `host` alone.
    fn at(&self, host: &Host) -> Self {
        let mut options = self.clone();
        host.shown().clone_into(&mut options.target.host);
        options.target.port = host.port;
        options.parameters.hosts = vec![host.clone()];
        options
    }
}

/// The role that the server must report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WantedRole {
    /// Not in recovery, and a transaction may write.
    Primary,
    Replica,
    Any,
}

/// As it is asked for on the command line.
impl fmt::Display for WantedRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
        })
    }
}
