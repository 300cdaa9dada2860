//! What a failed login or query proves of the server: that it is down, that it lives, or nothing. Pure.

use std::error::Error as _;
use std::io;

use super::PostgresError;

/// What an error proves about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Known to take no logins: nothing listens, or it says that it starts, stops or recovers.
    Down,
    /// It answered, with an error about this login or this query.
    Up,
    /// It did not answer, or this error is not about the server.
    Unknown,
}

impl PostgresError {
    /// What this error proves about the server.
    ///
    /// A session that was ended after its login proves that the server took a login: an administrator may end each.
    pub fn life(&self) -> Life {
        match self {
            Self::Query { error, .. } if is_ended(error) => Life::Up,
            Self::Connect { error, .. } | Self::Query { error, .. } => judge(error),
            Self::Answer { .. } => Life::Up,
            _ => Life::Unknown,
        }
    }

    /// The session ended, or never began: only a new login shows the server's state.
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Query { error, .. } => error.is_closed() || judge(error) != Life::Up,
            _ => true,
        }
    }
}

fn judge(error: &tokio_postgres::Error) -> Life {
    if let Some(answer) = error.as_db_error() {
        return judge_code(answer.code().code());
    }
    let kind = io_kind(error);
    // It answered, and its certificate or its lack of TLS is the failure. A handshake that was cut proves nothing.
    if super::tls::is_tls_failure(error) && !kind.is_some_and(is_cut) {
        return Life::Up;
    }
    kind.map_or(Life::Unknown, judge_io)
}

fn io_kind(error: &tokio_postgres::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return Some(cause.kind());
        }
        source = cause.source();
    }
    None
}

/// Whether the other side ended the connection without an answer.
pub(crate) fn is_cut(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// Ended by an administrator (`pg_terminate_backend`, a shutdown), or because another process of the server crashed.
const ENDED: [&str; 2] = ["57P01", "57P02"];

fn is_ended(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    code.is_some_and(|code| ENDED.contains(&code))
}

/// 57P03: it takes no connections yet, or none any more.
fn judge_code(code: &str) -> Life {
    match code {
        "57P03" => Life::Down,
        // The next login shows which of its causes it was.
        code if ENDED.contains(&code) => Life::Unknown,
        _ => Life::Up,
    }
}

/// No socket, or one without a listener.
fn judge_io(kind: io::ErrorKind) -> Life {
    match kind {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Life::Down,
        _ => Life::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_differs_from_one_that_refuses_and_from_silence() {
        for (code, life) in [
            ("57P01", Life::Unknown),
            ("57P02", Life::Unknown),
            ("57P03", Life::Down),
            ("53300", Life::Up),
            ("28P01", Life::Up),
            ("57014", Life::Up),
            ("0A000", Life::Up),
        ] {
            assert_eq!(judge_code(code), life, "{code}");
        }
        for (kind, life) in [
            (io::ErrorKind::ConnectionRefused, Life::Down),
            (io::ErrorKind::NotFound, Life::Down),
            (io::ErrorKind::TimedOut, Life::Unknown),
            (io::ErrorKind::UnexpectedEof, Life::Unknown),
            (io::ErrorKind::PermissionDenied, Life::Unknown),
        ] {
            assert_eq!(judge_io(kind), life, "{kind:?}");
        }
    }
}
