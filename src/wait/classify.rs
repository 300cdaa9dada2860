//! What a failed attempt means: which hop failed, and what to do next. Pure.

use std::fmt;
use std::io::ErrorKind;

use super::dial::LoginFailure;
use super::progress::Stage;
use super::{Hop, WaitOptions};

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryAfter {
    /// Something is not up yet: again soon.
    Soon,
    /// Again after a second.
    Later,
    /// As [`RetryAfter::Later`], and final when the same refusal lasts.
    Refused,
}

/// What a failed attempt means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    pub hop: Hop,
    /// In words; never a password.
    pub reason: String,
    pub next: RetryAfter,
}

/// As "haproxy: nothing listens at management:5432".
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.hop, self.reason)
    }
}

/// What PgBouncer puts around the error that PostgreSQL gave it, which it may cut short.
const CACHED: &str = "server login has been failing, cached error: ";
const CACHED_END: &str = " (server_login_retry)";
/// How much of a cached error is surely whole.
const WHOLE: usize = 60;

impl Signal {
    /// The same failure as `other`, whether PostgreSQL reports it or PgBouncer repeats it from its cache.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        (self.hop, self.next) == (other.hop, other.next)
            && core(&self.reason) == core(&other.reason)
    }
}

/// The error itself, without what stands around it.
fn core(reason: &str) -> &str {
    let reason = reason.strip_prefix(CACHED).unwrap_or(reason);
    let reason = reason.split(CACHED_END).next().unwrap_or(reason);
    let message = match reason.rsplit_once(" (") {
        Some((message, code)) if code.len() == "08P01)".len() => message,
        _ => reason,
    };
    let end = message
        .char_indices()
        .nth(WHOLE)
        .map_or(message.len(), |(at, _)| at);
    &message[..end]
}

/// PgBouncer's words for "I cannot log in to PostgreSQL".
const SERVER_AWAY: &[&str] = &[
    "server login",
    "cached error",
    "server_login_retry",
    "cannot connect to server",
];
/// Words for "I refuse this client", of PgBouncer itself and of PostgreSQL as PgBouncer remembers them.
const REFUSALS: &[&str] = &[
    "password authentication failed",
    "SASL authentication failed",
    "no such database",
    "no such user",
    "SSL required",
];
const CACHED_REFUSALS: &[&str] = &[
    "does not exist",
    "pg_hba.conf",
    "is not permitted to log in",
];

/// Says what `failure` of an attempt with `options` means.
pub(super) fn classify(failure: &LoginFailure, options: &WaitOptions) -> Signal {
    let (host, place) = (&options.target.host, options.place());
    let (front, speaker) = (options.front, options.front.speaker());
    let signal = |hop, next, reason: String| Signal { hop, reason, next };
    match failure {
        LoginFailure::Name(error) => {
            let reason = format!("{host} does not resolve ({error})");
            signal(Hop::Name, RetryAfter::Soon, reason)
        }
        LoginFailure::Connect(ErrorKind::ConnectionRefused | ErrorKind::NotFound, _) => signal(
            front,
            RetryAfter::Soon,
            format!("nothing listens at {place}"),
        ),
        LoginFailure::Connect(_, error) => {
            let reason = format!("{place} cannot be reached ({error})");
            signal(front, RetryAfter::Soon, reason)
        }
        LoginFailure::Silent(stage, limit) => {
            let (hop, what) = judge_silence(*stage, options);
            let secs = limit.as_secs_f64().ceil();
            signal(hop, RetryAfter::Soon, format!("{what} for {secs} s"))
        }
        LoginFailure::Closed(Stage::Login) => {
            let reason = format!("{place} closed the connection in the middle of the login");
            signal(speaker, RetryAfter::Soon, reason)
        }
        LoginFailure::Closed(Stage::Ask) => {
            let reason = "logged in, but the connection was cut at the first query".to_owned();
            signal(speaker, RetryAfter::Soon, reason)
        }
        LoginFailure::Closed(_) => {
            let reason = match front {
                Hop::HaProxy => format!("{place} closed the connection at once: no live backend"),
                _ => format!("{place} closed the connection at once"),
            };
            signal(front, RetryAfter::Soon, reason)
        }
        LoginFailure::Server { code, message } => {
            let (hop, next) = judge_server(code, message);
            signal(hop, next, format!("{message} ({code})"))
        }
        LoginFailure::Tls(error) => {
            let reason = format!("TLS with {place} failed (see sslmode): {error}");
            signal(Hop::Login, RetryAfter::Refused, reason)
        }
        LoginFailure::NoPassword => {
            let reason = format!("{place} asks for a password, and none is configured");
            signal(Hop::Login, RetryAfter::Refused, reason)
        }
        LoginFailure::Forbidden(why) | LoginFailure::PasswordFile(why) => {
            signal(Hop::Login, RetryAfter::Refused, why.clone())
        }
        LoginFailure::Odd(error) => {
            let reason = format!("{place} does not speak the PostgreSQL protocol ({error})");
            signal(speaker, RetryAfter::Later, reason)
        }
        LoginFailure::WrongRole { in_recovery } => {
            let found = if *in_recovery { "replica" } else { "primary" };
            let reason = format!("{place} leads to a {found}");
            signal(Hop::Role, RetryAfter::Later, reason)
        }
        LoginFailure::ReadOnly => {
            let reason = format!("{place} leads to a primary whose transactions are read-only");
            signal(Hop::Role, RetryAfter::Later, reason)
        }
    }
}

/// Who was silent, and what was waited for.
fn judge_silence(stage: Stage, options: &WaitOptions) -> (Hop, String) {
    let place = options.place();
    match stage {
        Stage::Name => {
            let host = &options.target.host;
            (Hop::Name, format!("{host} was being looked up"))
        }
        Stage::Connect => (options.front, format!("{place} did not answer")),
        // PostgreSQL and PgBouncer answer the first byte at once, whatever is behind them.
        Stage::Greet => (
            options.front,
            format!("{place} took the connection and said nothing"),
        ),
        // PgBouncer without a cached welcome does so while PostgreSQL does not answer it.
        Stage::Login => (Hop::PostgreSql, "the login was held back".to_owned()),
        Stage::Ask => (
            Hop::PostgreSql,
            "logged in, but the query was held back".to_owned(),
        ),
    }
}

/// Reads a server's SQLSTATE, and its words where PgBouncer has one state for everything.
fn judge_server(code: &str, message: &str) -> (Hop, RetryAfter) {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        // Starting, stopping, crashed.
        "57P01" | "57P02" | "57P03" => (Hop::PostgreSql, RetryAfter::Soon),
        // PgBouncer logs in to PostgreSQL as the client's role: what it remembers may be a refusal of that.
        _ if says(SERVER_AWAY) => {
            if says(REFUSALS) || says(CACHED_REFUSALS) {
                (Hop::Login, RetryAfter::Refused)
            } else {
                (Hop::PostgreSql, RetryAfter::Soon)
            }
        }
        "08P01" if says(REFUSALS) => (Hop::Login, RetryAfter::Refused),
        "08P01" => (Hop::PgBouncer, RetryAfter::Later),
        "3D000" => (Hop::Login, RetryAfter::Refused),
        _ if code.starts_with("28") => (Hop::Login, RetryAfter::Refused),
        // No CONNECT privilege; at boot a GRANT may still come.
        "42501" => (Hop::Login, RetryAfter::Later),
        _ => (Hop::PostgreSql, RetryAfter::Later),
    }
}
