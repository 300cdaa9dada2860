//! What a failed attempt means: which hop failed, and what to do next. Pure.

use std::fmt;
use std::io::ErrorKind;

use super::dial::{Failure, Stage};
use crate::postgres::Target;

/// A part of the way from an application to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    Name,
    HaProxy,
    PgBouncer,
    PostgreSql,
    Role,
    Login,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::HaProxy => "HAProxy",
            Self::PgBouncer => "PgBouncer",
            Self::PostgreSql => "PostgreSQL",
            Self::Role => "role",
            Self::Login => "login",
        })
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something is not up yet: again after 250 ms.
    Soon,
    /// Again after a second.
    Later,
    /// As [`Next::Later`], and final when the same refusal lasts.
    Refused,
}

/// What a failed attempt means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    pub hop: Hop,
    /// In words; never a password.
    pub reason: String,
    pub next: Next,
}

/// As "HAProxy: nothing listens at management:5432".
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.hop, self.reason)
    }
}

/// PgBouncer's words for "I cannot log in to PostgreSQL"; the rest is PostgreSQL's own error.
const SERVER_AWAY: &[&str] = &["server login", "cached error", "server_login_retry"];
/// PgBouncer's words for "I refuse this client".
const REFUSALS: &[&str] = &[
    "password authentication failed",
    "SASL authentication failed",
    "no such database",
    "no such user",
];

/// Says what `failure` at `target` means.
pub(super) fn classify(failure: &Failure, target: &Target) -> Signal {
    let place = format!("{}:{}", target.host, target.port);
    let signal = |hop, next, reason: String| Signal { hop, reason, next };
    match failure {
        Failure::Name(error) => {
            let reason = format!("{} does not resolve ({error})", target.host);
            signal(Hop::Name, Next::Soon, reason)
        }
        Failure::Connect(ErrorKind::ConnectionRefused | ErrorKind::NotFound, _) => {
            let reason = format!("nothing listens at {place}");
            signal(Hop::HaProxy, Next::Soon, reason)
        }
        Failure::Connect(_, error) => {
            let reason = format!("{place} cannot be reached ({error})");
            signal(Hop::HaProxy, Next::Soon, reason)
        }
        Failure::Silent(stage, limit) => {
            let secs = limit.as_secs_f64().ceil();
            let (hop, what) = match stage {
                Stage::Name => (Hop::Name, format!("{} was being looked up", target.host)),
                Stage::Connect => (Hop::HaProxy, format!("{place} was silent")),
                // PgBouncer without a cached welcome does so while it cannot reach PostgreSQL.
                Stage::Login => (
                    Hop::PgBouncer,
                    "the login was held back (PostgreSQL may be away)".to_owned(),
                ),
                Stage::Ask => (
                    Hop::PostgreSql,
                    "logged in, but the query was held back".to_owned(),
                ),
            };
            signal(hop, Next::Soon, format!("{what} for {secs} s"))
        }
        Failure::Closed(Stage::Ask) => {
            let reason = "logged in, but the connection was cut at the first query".to_owned();
            signal(Hop::PgBouncer, Next::Soon, reason)
        }
        Failure::Closed(_) => {
            let reason = format!("{place} closed the connection at once: no live backend");
            signal(Hop::HaProxy, Next::Soon, reason)
        }
        Failure::Server { code, message } => {
            let (hop, next) = judge_server(code, message);
            signal(hop, next, format!("{message} ({code})"))
        }
        Failure::NoPassword => {
            let reason = format!("{place} asks for a password, and none is configured");
            signal(Hop::Login, Next::Refused, reason)
        }
        Failure::Odd(error) => {
            let reason = format!("{place} does not speak as PostgreSQL does ({error})");
            signal(Hop::PgBouncer, Next::Later, reason)
        }
        Failure::WrongRole { in_recovery } => {
            let found = if *in_recovery { "replica" } else { "primary" };
            let reason = format!("{place} leads to a {found}");
            signal(Hop::Role, Next::Later, reason)
        }
    }
}

/// Reads a server's SQLSTATE, and its words where PgBouncer has one state for everything.
fn judge_server(code: &str, message: &str) -> (Hop, Next) {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        // Starting, stopping, crashed.
        "57P01" | "57P02" | "57P03" => (Hop::PostgreSql, Next::Soon),
        // First, because the cached error may be a refusal: of PgBouncer, not of this client.
        _ if says(SERVER_AWAY) => (Hop::PostgreSql, Next::Later),
        "08P01" if says(REFUSALS) => (Hop::Login, Next::Refused),
        "08P01" => (Hop::PgBouncer, Next::Later),
        "3D000" => (Hop::Login, Next::Refused),
        _ if code.starts_with("28") => (Hop::Login, Next::Refused),
        // No CONNECT privilege; at boot a GRANT may still come.
        "42501" => (Hop::Login, Next::Later),
        _ => (Hop::PostgreSql, Next::Later),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn classified(failure: &Failure) -> Signal {
        let target = Target {
            host: "management".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            password: Some("hush".into()),
            database: "app".to_owned(),
            connect_timeout: Duration::from_secs(5),
        };
        classify(failure, &target)
    }

    #[test]
    fn each_failure_names_its_hop_and_what_comes_next() {
        let silent = |stage| Failure::Silent(stage, Duration::from_secs(5));
        let connect = |kind| Failure::Connect(kind, "os error".to_owned());
        for (failure, hop, next) in [
            (Failure::Name("no".to_owned()), Hop::Name, Next::Soon),
            (
                connect(ErrorKind::ConnectionRefused),
                Hop::HaProxy,
                Next::Soon,
            ),
            (
                connect(ErrorKind::HostUnreachable),
                Hop::HaProxy,
                Next::Soon,
            ),
            (Failure::Closed(Stage::Login), Hop::HaProxy, Next::Soon),
            (Failure::Closed(Stage::Ask), Hop::PgBouncer, Next::Soon),
            (silent(Stage::Name), Hop::Name, Next::Soon),
            (silent(Stage::Connect), Hop::HaProxy, Next::Soon),
            (silent(Stage::Login), Hop::PgBouncer, Next::Soon),
            (silent(Stage::Ask), Hop::PostgreSql, Next::Soon),
            (Failure::NoPassword, Hop::Login, Next::Refused),
            (Failure::Odd("http".to_owned()), Hop::PgBouncer, Next::Later),
            (
                Failure::WrongRole { in_recovery: true },
                Hop::Role,
                Next::Later,
            ),
        ] {
            let signal = classified(&failure);
            assert_eq!((signal.hop, signal.next), (hop, next), "{failure:?}");
            assert!(!signal.to_string().contains("hush"), "{signal}");
        }
    }

    #[test]
    fn what_a_server_says_is_read_by_state_and_where_that_is_not_enough_by_words() {
        for (code, message, hop, next) in [
            (
                "57P03",
                "the database system is starting up",
                Hop::PostgreSql,
                Next::Soon,
            ),
            (
                "08P01",
                "server login has been failing, cached error: connect failed (server_login_retry)",
                Hop::PostgreSql,
                Next::Later,
            ),
            // PgBouncer's own password for PostgreSQL is wrong: no fault of this client.
            (
                "08P01",
                "server login failed: FATAL password authentication failed for user \"app\"",
                Hop::PostgreSql,
                Next::Later,
            ),
            (
                "08P01",
                "SASL authentication failed",
                Hop::Login,
                Next::Refused,
            ),
            (
                "08P01",
                "password authentication failed",
                Hop::Login,
                Next::Refused,
            ),
            ("08P01", "no such database: nodb", Hop::Login, Next::Refused),
            ("08P01", "query_wait_timeout", Hop::PgBouncer, Next::Later),
            (
                "28P01",
                "password authentication failed for user \"app\"",
                Hop::Login,
                Next::Refused,
            ),
            ("28000", "no pg_hba.conf entry", Hop::Login, Next::Refused),
            (
                "3D000",
                "database \"nodb\" does not exist",
                Hop::Login,
                Next::Refused,
            ),
            ("42501", "permission denied", Hop::Login, Next::Later),
            (
                "53300",
                "too many clients already",
                Hop::PostgreSql,
                Next::Later,
            ),
        ] {
            let failure = Failure::Server {
                code: code.to_owned(),
                message: message.to_owned(),
            };
            let signal = classified(&failure);
            assert_eq!((signal.hop, signal.next), (hop, next), "{code} {message}");
            assert_eq!(signal.reason, format!("{message} ({code})"));
        }
    }
}
