//! Reads a connection string as libpq of PostgreSQL 17 does (manual, "Connection Strings"): a URI, or `keyword=value`. Pure.
//!
//! Beyond libpq it takes SQLAlchemy's URIs, which name their driver (`postgresql+asyncpg://`) and say `ssl` for `sslmode`.

use secrecy::SecretString;

use super::connection_uri::parse_uri;
use super::keyword_values::parse_keywords;
use super::{AuthMethods, WaitError};
use crate::model::may_hold_password;

/// What a connection string sets, by libpq's keywords, the password apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionString {
    given: Vec<(&'static str, String)>,
    /// Whether it may hold a password.
    takes_password: bool,
    password: Option<SecretString>,
}

/// Every keyword of `PQconninfoOptions` in PostgreSQL 17, the password aside.
const KEYWORDS: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "passfile",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
const PASSWORDS: &[&str] = &["password", "sslpassword"];

/// Keywords with a few values each; libpq refuses any other value.
const CHOICES: &[(&str, &[&str])] = &[
    ("channel_binding", &["disable", "prefer", "require"]),
    ("gssencmode", &["disable", "prefer", "require"]),
    ("load_balance_hosts", &["disable", "random"]),
    ("sslcertmode", &["disable", "allow", "require"]),
    (
        "sslmode",
        &[
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ],
    ),
    ("sslnegotiation", &["postgres", "direct"]),
    ("ssl_max_protocol_version", TLS_VERSIONS),
    ("ssl_min_protocol_version", TLS_VERSIONS),
    (
        "target_session_attrs",
        &[
            "any",
            "read-write",
            "read-only",
            "primary",
            "standby",
            "prefer-standby",
        ],
    ),
];
const TLS_VERSIONS: &[&str] = &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
const INTEGERS: &[&str] = &[
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
];

/// Whether `text` is a connection string where a database's name may stand: what libpq takes for one, and any other URI,
/// which is refused without being shown.
pub(crate) fn is_connection_string(text: &str) -> bool {
    text.contains("://") || text.contains('=')
}

/// Reads `text`.
///
/// # Errors
/// When libpq would refuse it, or when it holds a password.
pub(crate) fn parse_connection_string(text: &str) -> Result<ConnectionString, WaitError> {
    parse(text, ConnectionString::default())
}

/// The same where `text` may hold a password, too: [`ConnectionString::password`].
///
/// # Errors
/// When libpq would refuse it.
pub(crate) fn parse_with_password(text: &str) -> Result<ConnectionString, WaitError> {
    let parsed = ConnectionString {
        takes_password: true,
        ..ConnectionString::default()
    };
    parse(text, parsed)
}

fn parse(text: &str, mut parsed: ConnectionString) -> Result<ConnectionString, WaitError> {
    match uri_body(text) {
        Some((body, driver)) => parse_uri(body, driver, &mut |keyword, value| {
            parsed.set(keyword, value)
        })?,
        None if is_other_uri(text) || !text.contains('=') => {
            // A password in there must not be tried again.
            return Err(match may_hold_password(text) {
                true => WaitError::PasswordInUrl,
                false => wrong("it begins neither with postgresql:// nor with keyword=value"),
            });
        }
        None => parse_keywords(text, |keyword, value| parsed.set(keyword, value))?,
    }
    parsed.judge()?;
    Ok(parsed)
}

/// A URI of another scheme; in `keyword=value`, a value may be one.
fn is_other_uri(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.contains('='))
}

fn wrong(what: &str) -> WaitError {
    WaitError::Url(what.to_owned())
}

/// What follows the scheme, and whether the scheme names a driver.
fn uri_body(text: &str) -> Option<(&str, bool)> {
    let (scheme, body) = text.split_once("://")?;
    match scheme.split_once('+') {
        None if matches!(scheme, "postgres" | "postgresql") => Some((body, false)),
        Some(("postgres" | "postgresql", _)) => Some((body, true)),
        _ => None,
    }
}

impl ConnectionString {
    /// The value of `keyword`; an empty one is as none, as for libpq.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.last(keyword).filter(|value| !value.is_empty())
    }

    /// The password that [`parse_with_password`] found.
    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The keywords that it sets.
    pub(crate) fn keywords(&self) -> impl Iterator<Item = &'static str> {
        self.given.iter().map(|(keyword, _)| *keyword)
    }

    fn last(&self, keyword: &str) -> Option<&str> {
        let last = self.given.iter().rev().find(|(name, _)| *name == keyword);
        last.map(|(_, value)| value.as_str())
    }

    /// Sets `keyword` where nothing else did.
    ///
    /// # Errors
    /// When libpq would refuse the value.
    pub(crate) fn set_default(
        &mut self,
        keyword: &'static str,
        value: String,
    ) -> Result<(), WaitError> {
        if self.get(keyword).is_none() {
            self.given.push((keyword, value));
            self.judge()?;
        }
        Ok(())
    }

    pub(super) fn set(&mut self, keyword: &str, value: String) -> Result<(), WaitError> {
        if keyword == "password" && self.takes_password {
            self.password = (!value.is_empty()).then(|| value.into());
            return Ok(());
        }
        if PASSWORDS.contains(&keyword) {
            return Err(WaitError::PasswordInUrl);
        }
        let (keyword, value) = match (keyword, value.as_str()) {
            // Kept by libpq for old programs.
            ("requiressl", value) if value.starts_with('1') => ("sslmode", "require".to_owned()),
            ("requiressl", _) => ("sslmode", "prefer".to_owned()),
            _ => (keyword, value),
        };
        let known = KEYWORDS.iter().find(|known| **known == keyword);
        let known = known.ok_or_else(|| wrong("it has a parameter that libpq does not know"))?;
        self.given.push((known, value));
        Ok(())
    }

    /// Refuses the values that libpq refuses before it connects.
    fn judge(&self) -> Result<(), WaitError> {
        for (keyword, choices) in CHOICES {
            // An empty value is refused, except for versions.
            let may_be_empty = keyword.ends_with("_protocol_version");
            let given = self.last(keyword);
            let given = given.filter(|value| !(may_be_empty && value.is_empty()));
            if given.is_some_and(|value| !choices.contains(&value)) {
                return Err(wrong(&format!(
                    "{keyword} must be one of {}",
                    choices.join(", ")
                )));
            }
        }
        for keyword in INTEGERS {
            // As strtol: blanks around it are allowed.
            let is_number = |value: &str| value.trim().parse::<i32>().is_ok();
            if self.last(keyword).is_some_and(|value| !is_number(value)) {
                return Err(wrong(&format!("{keyword} must be a whole number")));
            }
        }
        if let Some(methods) = self.last("require_auth") {
            AuthMethods::parse(methods).map_err(|why| wrong(&why))?;
        }
        self.judge_shown()?;
        self.judge_supported()
    }

    /// Refuses what a message must not show.
    fn judge_shown(&self) -> Result<(), WaitError> {
        // Messages name what is connected to.
        let is_shown = |keyword: &str| {
            !matches!(
                keyword,
                "application_name" | "fallback_application_name" | "options"
            )
        };
        let mut given = self.given.iter();
        if given.any(|(keyword, value)| is_shown(keyword) && may_hold_password(value)) {
            return Err(WaitError::PasswordInUrl);
        }
        // So do the configuration's, which has the port: it may be a piece of a password with a slash in it.
        let ports = self
            .last("port")
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        for port in ports.filter(|port| !port.is_empty()) {
            if port.parse::<u16>().is_ok_and(|port| port > 0) {
                continue;
            }
            return Err(wrong("a port must be a number from 1 to 65535"));
        }
        Ok(())
    }

    /// Refuses options of libpq that xdb does not support.
    fn judge_supported(&self) -> Result<(), WaitError> {
        for (keyword, value, why) in [
            (
                "gssencmode",
                "require",
                "xdb cannot encrypt with GSSAPI, as gssencmode=require asks for",
            ),
            (
                "sslcertmode",
                "require",
                "xdb cannot see whether the server took the certificate, as sslcertmode=require asks for",
            ),
        ] {
            if self.get(keyword) == Some(value) {
                return Err(wrong(why));
            }
        }
        if self.get("service").is_some() {
            return Err(wrong(
                "xdb does not read pg_service.conf: name the host, port, user and database of the service",
            ));
        }
        Ok(())
    }
}
