//! Reads a connection URL as libpq does (PostgreSQL manual, "Connection URIs"), for one host. Pure.

use percent_encoding::percent_decode_str;
use url::Url;

use super::WaitError;

/// A part that a URL can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlPart {
    Host,
    Port,
    User,
    Database,
    SslMode,
    SslRootCert,
}

/// What the probe has no use for, and applications write.
const PASSED_OVER: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "options",
    "target_session_attrs",
];

/// The parts of `text`, each as it would be configured.
///
/// # Errors
/// When it is none, names something that is unknown, or holds a password.
pub fn parse_url(text: &str) -> Result<Vec<(UrlPart, String)>, WaitError> {
    let wrong = |what: &str| WaitError::Url(what.to_owned());
    let url = Url::parse(text).map_err(|error| WaitError::Url(error.to_string()))?;
    // Before any other complaint, which might lead to trying it again with the password.
    let asks = |name: &str| url.query_pairs().any(|(key, _)| key == name);
    if url.password().is_some() || asks("password") {
        return Err(WaitError::PasswordInUrl);
    }
    // SQLAlchemy's URLs name their driver: postgresql+asyncpg.
    let scheme = url.scheme().split('+').next();
    if !matches!(scheme, Some("postgres" | "postgresql")) {
        return Err(wrong("it does not begin with postgresql://"));
    }
    let decoded = |part: &str| -> Result<String, WaitError> {
        let decoded = percent_decode_str(part).decode_utf8();
        decoded
            .map(String::from)
            .map_err(|_| wrong("it is no UTF-8"))
    };
    let mut parts = Vec::new();
    if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.contains(',') {
            return Err(wrong("it names several hosts"));
        }
        parts.push((UrlPart::Host, decoded(host)?));
    }
    if let Some(port) = url.port() {
        parts.push((UrlPart::Port, port.to_string()));
    }
    if !url.username().is_empty() {
        parts.push((UrlPart::User, decoded(url.username())?));
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() {
        parts.push((UrlPart::Database, decoded(database)?));
    }
    for (key, value) in url.query_pairs() {
        let part = match key.as_ref() {
            "host" => UrlPart::Host,
            "port" => UrlPart::Port,
            "user" => UrlPart::User,
            "dbname" => UrlPart::Database,
            // asyncpg and SQLAlchemy say ssl.
            "sslmode" | "ssl" => UrlPart::SslMode,
            "sslrootcert" => UrlPart::SslRootCert,
            key if PASSED_OVER.contains(&key) => continue,
            _ => return Err(wrong("it has a parameter that is unknown here")),
        };
        parts.push((part, value.into_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_its_parts() {
        use UrlPart::{Database, Host, Port, SslMode, SslRootCert, User};
        for (text, parts) in [
            ("postgresql://", &[][..]),
            ("postgres://management", &[(Host, "management")]),
            (
                "postgresql+asyncpg://app@management:5433/shop?ssl=require&application_name=x",
                &[
                    (Host, "management"),
                    (Port, "5433"),
                    (User, "app"),
                    (Database, "shop"),
                    (SslMode, "require"),
                ],
            ),
            (
                "postgresql://a%40b@[::1]/d%20b",
                &[(Host, "::1"), (User, "a@b"), (Database, "d b")],
            ),
            (
                "postgresql:///shop?host=/run/postgresql&port=6432&sslrootcert=/ca.pem",
                &[
                    (Database, "shop"),
                    (Host, "/run/postgresql"),
                    (Port, "6432"),
                    (SslRootCert, "/ca.pem"),
                ],
            ),
            (
                "postgresql://%2Frun%2Fpostgresql/shop",
                &[(Host, "/run/postgresql"), (Database, "shop")],
            ),
        ] {
            let parsed = parse_url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let parsed: Vec<_> = parsed
                .iter()
                .map(|(part, value)| (*part, value.as_str()))
                .collect();
            assert_eq!(parsed, parts, "{text}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_and_a_password_never_shown() {
        for text in [
            "",
            "management:5432",
            "mysql://management",
            "postgresql://app:hush@management/shop",
            "postgresql://app@management/shop?password=hush",
            "http://app:hush@management",
            "postgresql://one:1,two:2/shop",
            "postgresql://one,two/shop",
            "postgresql://one:99999/hush",
            "postgresql://one/?sslmod=hush",
        ] {
            let error = parse_url(text).expect_err(text);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
