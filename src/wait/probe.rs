//! One login and one query through a PgBouncer, and what it proves: that applications are served, that PgBouncer lives
//! and only this login failed, or that it is gone.

use std::io::ErrorKind;
use std::time::Duration;

use super::WaitOptions;
use super::classify::classify;
use super::dial::{LoginFailure, dial};
use super::progress::Stage;
use super::resolve::Resolver;

/// The result of one login. Each text is a sentence for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    /// PostgreSQL answered; `None` where it refused this query, by a setting of this role for example.
    PostgreSql { in_recovery: Option<bool> },
    /// A limit on connections is reached: PgBouncer's, the pool's, PostgreSQL's, a role's or a database's.
    Full(String),
    /// PgBouncer answers, and refuses this login, or cannot make one for it.
    Refused(String),
    /// PgBouncer answers, and cannot log in to PostgreSQL.
    ServerAway(String),
    /// Something greeted, and then the login or the query was held back.
    Held(String),
    /// Nothing answered within the deadline, or what answered closed the connection.
    Silent(String),
    /// Nothing listens, or PgBouncer says that it is shutting down.
    Gone(String),
}

/// Logs in and asks once, for at most `options.target.connect_timeout`.
pub(crate) async fn probe(options: &WaitOptions) -> Reached {
    let limit = options.target.connect_timeout;
    let mut resolver = Resolver::default();
    let attempt = dial(options, &mut resolver, limit).await;
    if !matches!(attempt.result, Err(LoginFailure::Closed(_))) {
        return judge(attempt.result, attempt.stage, options);
    }
    // PgBouncer may have ended during the login: the next attempt shows whether it is down.
    let again = limit.min(Duration::from_secs(1));
    let attempt = dial(options, &mut resolver, again).await;
    judge(attempt.result, attempt.stage, options)
}

/// PgBouncer's and PostgreSQL's words for a limit that is reached; PgBouncer passes PostgreSQL's on.
const FULL: &[&str] = &[
    "no more connections allowed",
    "client connections exceeded",
    "query_wait_timeout",
    "too many clients already",
    "too many connections for",
    "connection slots are reserved",
    "connection limit exceeded",
];
/// PgBouncer's words for "I cannot reach PostgreSQL".
const SERVER_AWAY: &[&str] = &[
    "server login has been failing",
    "server login failed",
    "client_login_timeout",
    "server_login_retry",
    "cannot connect to server",
    "connect failed",
    "the database system is",
];
/// PostgreSQL's words inside of those, where it is up and refuses this login. PgBouncer repeats a refusal from its cache
/// under its own SQLSTATE, so only words tell it apart; in another language than English, see [`is_foreign_refusal`].
const REFUSED: &[&str] = &[
    "password authentication failed",
    "SASL authentication failed",
    "no such",
    "does not exist",
    "pg_hba.conf",
    "is not permitted to log in",
    "permission denied",
    "wrong password type",
    "not currently accepting connections",
];

fn judge(outcome: Result<bool, LoginFailure>, stage: Stage, options: &WaitOptions) -> Reached {
    let failure = match outcome {
        Ok(in_recovery) => {
            return Reached::PostgreSql {
                in_recovery: Some(in_recovery),
            };
        }
        Err(failure) => failure,
    };
    let reason = classify(&failure, options).reason;
    match failure {
        LoginFailure::Connect(ErrorKind::ConnectionRefused | ErrorKind::NotFound, _) => {
            Reached::Gone(reason)
        }
        LoginFailure::Server { code, message } => judge_answer(&code, &message, stage, reason),
        LoginFailure::Silent(Stage::Login | Stage::Ask, _) => Reached::Held(reason),
        LoginFailure::Forbidden(_)
        | LoginFailure::NoPassword
        | LoginFailure::PasswordFile(_)
        | LoginFailure::Tls(_) => Reached::Refused(reason),
        // Only asked for where a role is wanted.
        LoginFailure::WrongRole { in_recovery } => Reached::PostgreSql {
            in_recovery: Some(in_recovery),
        },
        LoginFailure::ReadOnly => Reached::PostgreSql { in_recovery: None },
        LoginFailure::Name(_)
        | LoginFailure::Connect(..)
        | LoginFailure::Silent(..)
        | LoginFailure::Closed(_)
        | LoginFailure::Odd(_) => Reached::Silent(reason),
    }
}

/// An error that PgBouncer made or passed on.
fn judge_answer(code: &str, message: &str, stage: Stage, reason: String) -> Reached {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if code == "53300" || says(FULL) {
        Reached::Full(reason)
    } else if says(&["pooler is shutting down"]) {
        Reached::Gone(reason)
    } else if is_refusal(code) || says(REFUSED) || is_foreign_refusal(message) {
        Reached::Refused(reason)
    } else if says(SERVER_AWAY) || matches!(code, "57P01" | "57P02" | "57P03") {
        Reached::ServerAway(reason)
    } else if stage == Stage::Ask && code != "08P01" {
        // PostgreSQL itself answered the query, if only by an error.
        Reached::PostgreSql { in_recovery: None }
    } else {
        Reached::Refused(reason)
    }
}

/// PostgreSQL's states for what [`REFUSED`] has in English: role and password, database, privilege, a closed database.
fn is_refusal(code: &str) -> bool {
    code.starts_with("28") || matches!(code, "3D000" | "42501" | "55000")
}

/// Whether PgBouncer repeats from its cache an error of PostgreSQL's, which begins with its severity in the language of
/// `lc_messages` ("FATAL: …", "ВАЖНО: …"): PgBouncer's own reasons have none. PostgreSQL is up then. While it starts or stops,
/// it says so in English here, and in any language xdb's own session shows it.
fn is_foreign_refusal(message: &str) -> bool {
    let Some((_, cached)) = message.split_once("cached error: ") else {
        return false;
    };
    let severity = cached.split_once(": ").map(|(severity, _)| severity);
    let is_severity = |word: &str| !word.is_empty() && !word.chars().any(char::is_lowercase);
    severity.is_some_and(is_severity) && !cached.contains("the database system is")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Target, Tls};
    use crate::wait::{Hop, Parameters, WantedRole};

    fn options() -> WaitOptions {
        let limit = Duration::from_secs(3);
        WaitOptions {
            target: Target {
                host: "127.0.0.1".to_owned(),
                port: 6432,
                user: "postgres".to_owned(),
                password: None,
                database: "postgres".to_owned(),
                connect_timeout: limit,
                tls: Tls::none(),
            },
            parameters: Parameters::default(),
            password_file: None,
            tls: Tls::none(),
            wanted: WantedRole::Any,
            front: Hop::PgBouncer,
            timeout: limit,
            fail_fast_after: limit,
        }
    }

    fn word(reached: &Reached) -> &'static str {
        match reached {
            Reached::PostgreSql { .. } => "postgresql",
            Reached::Full(_) => "full",
            Reached::Refused(_) => "refused",
            Reached::ServerAway(_) => "server away",
            Reached::Held(_) => "held",
            Reached::Silent(_) => "silent",
            Reached::Gone(_) => "gone",
        }
    }

    #[test]
    fn errors_of_a_live_pgbouncer_differ_from_those_of_a_dead_one() {
        for (code, message, stage, expected) in [
            (
                "08P01",
                "no more connections allowed (max_client_conn)",
                Stage::Login,
                "full",
            ),
            (
                "08P01",
                "client connections exceeded (max_db_client_connections)",
                Stage::Login,
                "full",
            ),
            ("08P01", "query_wait_timeout", Stage::Ask, "full"),
            (
                "53300",
                "sorry, too many clients already",
                Stage::Login,
                "full",
            ),
            (
                "08P01",
                "server login has been failing, cached error: FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute (server_login_retry)",
                Stage::Login,
                "full",
            ),
            (
                "08P01",
                "server login has been failing, cached error: connect failed (server_login_retry)",
                Stage::Login,
                "server away",
            ),
            (
                "08P01",
                "server login has been failing, cached error: FATAL: the database system is shutting down (server_login_retry)",
                Stage::Login,
                "server away",
            ),
            (
                "08P01",
                "server login has been failing, cached error: server DNS lookup failed (server_login_retry)",
                Stage::Login,
                "server away",
            ),
            (
                "08P01",
                "server login has been failing, cached error: FATAL: Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen (server_login_retry)",
                Stage::Login,
                "refused",
            ),
            (
                "08P01",
                "server login has been failing, cached error: FATAL: Rolle »connect_app« darf sich nicht einloggen (server_login_retry)",
                Stage::Login,
                "refused",
            ),
            (
                "08P01",
                "server login has been failing, cached error: ВАЖНО: база данных \"shop\" не существует (server_login_retry)",
                Stage::Login,
                "refused",
            ),
            (
                "08P01",
                "server login has been failing, cached error: another reason of PgBouncer's (server_login_retry)",
                Stage::Login,
                "server away",
            ),
            (
                "57P03",
                "the database system is starting up",
                Stage::Login,
                "server away",
            ),
            (
                "57P01",
                "terminating connection due to administrator command",
                Stage::Ask,
                "server away",
            ),
            (
                "08P01",
                "password authentication failed",
                Stage::Login,
                "refused",
            ),
            ("08P01", "no such database: shop", Stage::Login, "refused"),
            // With lc_messages = de_DE.
            (
                "28P01",
                "Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen",
                Stage::Ask,
                "refused",
            ),
            (
                "3D000",
                "Datenbank »shop« existiert nicht",
                Stage::Ask,
                "refused",
            ),
            (
                "53300",
                "tut mir leid, schon zu viele Verbindungen",
                Stage::Login,
                "full",
            ),
            (
                "08P01",
                "database \"postgres\" is disabled",
                Stage::Login,
                "refused",
            ),
            ("08P01", "pooler is shutting down", Stage::Login, "gone"),
            // The server is there; its or the role's settings refuse this query.
            (
                "0A000",
                "cannot use serializable mode in a hot standby",
                Stage::Ask,
                "postgresql",
            ),
            (
                "57P05",
                "terminating connection due to idle-session timeout",
                Stage::Ask,
                "postgresql",
            ),
            (
                "57014",
                "canceling statement due to statement timeout",
                Stage::Ask,
                "postgresql",
            ),
        ] {
            let found = judge_answer(code, message, stage, message.to_owned());
            assert_eq!(word(&found), expected, "{code} {message}");
        }
    }

    #[test]
    fn silence_is_judged_by_the_stage_of_the_login() {
        let limit = Duration::from_secs(3);
        for (failure, expected) in [
            (
                LoginFailure::Connect(ErrorKind::ConnectionRefused, String::new()),
                "gone",
            ),
            (
                LoginFailure::Connect(ErrorKind::NotFound, String::new()),
                "gone",
            ),
            (
                LoginFailure::Connect(ErrorKind::TimedOut, String::new()),
                "silent",
            ),
            (LoginFailure::Silent(Stage::Connect, limit), "silent"),
            (LoginFailure::Silent(Stage::Greet, limit), "silent"),
            (LoginFailure::Silent(Stage::Login, limit), "held"),
            (LoginFailure::Silent(Stage::Ask, limit), "held"),
            (LoginFailure::Closed(Stage::Greet), "silent"),
            (LoginFailure::NoPassword, "refused"),
        ] {
            let found = judge(Err(failure.clone()), Stage::Greet, &options());
            assert_eq!(word(&found), expected, "{failure:?}");
        }
    }
}
