//! One table a source of signals: what is seen, the hop that it names, and what comes next.

use std::io::ErrorKind;
use std::time::Duration;

use super::classify::{RetryAfter, Signal, classify};
use super::dial::LoginFailure;
use super::progress::Stage;
use super::{Hop, Parameters, WaitOptions, WantedRole};
use crate::postgres::{Target, Tls};

fn options(front: Hop) -> WaitOptions {
    WaitOptions {
        target: Target {
            host: "management".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            password: Some("hush".into()),
            database: "app".to_owned(),
            connect_timeout: Duration::from_secs(5),
            tls: Tls::none(),
        },
        parameters: Parameters::default(),
        password_file: None,
        tls: Tls::none(),
        wanted: WantedRole::Primary,
        front,
        timeout: Duration::from_secs(150),
        fail_fast_after: Duration::from_secs(30),
    }
}

fn classified(failure: &LoginFailure) -> Signal {
    classify(failure, &options(Hop::HaProxy))
}

fn server(code: &str, message: &str) -> LoginFailure {
    LoginFailure::Server {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

fn silent(stage: Stage) -> LoginFailure {
    LoginFailure::Silent(stage, Duration::from_secs(5))
}

fn connect(kind: ErrorKind) -> LoginFailure {
    LoginFailure::Connect(kind, "os error".to_owned())
}

#[test]
fn each_failure_names_its_hop_and_what_comes_next() {
    use Hop::{HaProxy, Login, Name, PgBouncer, PostgreSql, Role};
    use RetryAfter::{Later, Refused, Soon};
    for (failure, hop, next) in [
        (LoginFailure::Name("no".to_owned()), Name, Soon),
        (silent(Stage::Name), Name, Soon),
        (connect(ErrorKind::ConnectionRefused), HaProxy, Soon),
        (connect(ErrorKind::HostUnreachable), HaProxy, Soon),
        (silent(Stage::Connect), HaProxy, Soon),
        (silent(Stage::Greet), HaProxy, Soon),
        // Without TLS before any byte, with it after the request for TLS.
        (LoginFailure::Closed(Stage::Greet), HaProxy, Soon),
        (LoginFailure::Closed(Stage::Login), PgBouncer, Soon),
        (LoginFailure::Closed(Stage::Ask), PgBouncer, Soon),
        (silent(Stage::Login), PostgreSql, Soon),
        (silent(Stage::Ask), PostgreSql, Soon),
        (
            LoginFailure::Tls("UnknownIssuer".to_owned()),
            Login,
            Refused,
        ),
        (LoginFailure::NoPassword, Login, Refused),
        (LoginFailure::Forbidden("no".to_owned()), Login, Refused),
        (LoginFailure::PasswordFile("no".to_owned()), Login, Refused),
        (LoginFailure::Odd("http".to_owned()), PgBouncer, Later),
        (LoginFailure::WrongRole { in_recovery: true }, Role, Later),
        (LoginFailure::WrongRole { in_recovery: false }, Role, Later),
        (LoginFailure::ReadOnly, Role, Later),
    ] {
        let signal = classified(&failure);
        assert_eq!((signal.hop, signal.next), (hop, next), "{failure:?}");
        assert!(!signal.to_string().contains("hush"), "{signal}");
    }
}

#[test]
fn what_a_server_says_is_read_by_state_and_where_that_is_not_enough_by_words() {
    use Hop::{Login, PgBouncer, PostgreSql};
    use RetryAfter::{Later, Refused, Soon};
    let cached = "server login has been failing, cached error:";
    for (code, message, hop, next) in [
        (
            "57P03",
            "the database system is starting up",
            PostgreSql,
            Soon,
        ),
        (
            "57P01",
            "terminating connection due to administrator command",
            PostgreSql,
            Soon,
        ),
        (
            "08P01",
            &format!("{cached} connect failed (server_login_retry)"),
            PostgreSql,
            Soon,
        ),
        (
            "08P01",
            &format!("{cached} the database system is starting up (server_login_retry)"),
            PostgreSql,
            Soon,
        ),
        (
            "08P01",
            "pgbouncer cannot connect to server",
            PostgreSql,
            Soon,
        ),
        // PgBouncer remembers the refusal that it passed on to the client before.
        (
            "08P01",
            &format!(
                "{cached} pg_hba.conf rejects connection for host \"10.0.2.30\", user \"app\", databas"
            ),
            Login,
            Refused,
        ),
        (
            "08P01",
            &format!("{cached} database \"app\" does not exist (server_login_retry)"),
            Login,
            Refused,
        ),
        (
            "08P01",
            &format!(
                "{cached} password authentication failed for user \"app\" (server_login_retry)"
            ),
            Login,
            Refused,
        ),
        ("08P01", "SASL authentication failed", Login, Refused),
        ("08P01", "password authentication failed", Login, Refused),
        ("08P01", "no such database: nodb", Login, Refused),
        ("08P01", "SSL required", Login, Refused),
        ("08P01", "query_wait_timeout", PgBouncer, Later),
        (
            "28P01",
            "password authentication failed for user \"app\"",
            Login,
            Refused,
        ),
        ("28000", "no pg_hba.conf entry", Login, Refused),
        ("3D000", "database \"nodb\" does not exist", Login, Refused),
        ("42501", "permission denied", Login, Later),
        ("53300", "too many clients already", PostgreSql, Later),
    ] {
        let signal = classified(&server(code, message));
        assert_eq!((signal.hop, signal.next), (hop, next), "{code} {message}");
        // As it is, also what PgBouncer remembers.
        assert_eq!(signal.reason, format!("{message} ({code})"));
    }
}

#[test]
fn without_a_proxy_in_front_the_one_that_takes_the_connection_is_named() {
    for (failure, at_pgbouncer, at_postgres) in [
        (
            connect(ErrorKind::ConnectionRefused),
            Hop::PgBouncer,
            Hop::PostgreSql,
        ),
        (
            LoginFailure::Closed(Stage::Greet),
            Hop::PgBouncer,
            Hop::PostgreSql,
        ),
        (
            LoginFailure::Closed(Stage::Ask),
            Hop::PgBouncer,
            Hop::PostgreSql,
        ),
        (silent(Stage::Greet), Hop::PgBouncer, Hop::PostgreSql),
        (silent(Stage::Login), Hop::PostgreSql, Hop::PostgreSql),
    ] {
        for (front, hop) in [
            (Hop::PgBouncer, at_pgbouncer),
            (Hop::PostgreSql, at_postgres),
        ] {
            assert_eq!(classify(&failure, &options(front)).hop, hop, "{failure:?}");
        }
    }
}

#[test]
fn a_refusal_from_pgbouncers_memory_is_the_one_that_was_heard_before() {
    let rejected = "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"app\", database \"postgres\", no encryption";
    let cut = "server login has been failing, cached error: pg_hba.conf rejects connection for host \"127.0.0.1\", user \"app\", database \"postgre";
    let nodb = "database \"nodb\" does not exist";
    let cached =
        format!("server login has been failing, cached error: {nodb} (server_login_retry)");
    for (one, other, same) in [
        (server("28000", rejected), server("08P01", cut), true),
        (server("3D000", nodb), server("08P01", &cached), true),
        (server("3D000", nodb), server("28000", rejected), false),
        (
            server("57P03", "starting up"),
            server("57P03", "shutting down"),
            false,
        ),
        (
            LoginFailure::NoPassword,
            LoginFailure::Tls("no".to_owned()),
            false,
        ),
    ] {
        let same_as = classified(&one).same_as(&classified(&other));
        assert_eq!(same_as, same, "{one:?} {other:?}");
    }
}
