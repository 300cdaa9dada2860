//! Kinds of values: how each is written, parsed and described. No IO, no key by name.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

use super::AgeRecipient;
use super::receivers::Endpoint;
use crate::model::may_hold_password;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// One line without blanks at its ends.
    Text,
    /// Becomes a part of object names and Redis keys.
    Name,
    /// Absolute: the daemon, PostgreSQL's children and people run in different directories.
    Path,
    /// A path, or the word `system`.
    PathOrSystem,
    Port,
    Count,
    /// More than zero.
    Duration,
    DurationOrZero,
    Switch,
    Choice(&'static [&'static str]),
    /// Never shown, not even when it is wrong.
    Secret,
    Url,
    /// An HTTP URL, which is a secret as a whole, or the path of a file that holds one.
    Endpoint,
    /// `redis://`, or `rediss://` with TLS, without user and password.
    RedisUrl,
    Repository,
    /// An address and a port to listen on.
    Listen,
    /// Host names or addresses, each with a port or without, between commas.
    Hosts,
    /// Public keys of age, of the kind X25519, between commas.
    AgeRecipients,
    /// A cron pattern, or the time between two runs.
    Schedule,
}

/// How a kind is written in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Quoted,
    Integer,
    Boolean,
}

/// A parsed value.
pub(super) enum SettingValue {
    /// Also names, choices, URLs and repositories.
    Text(String),
    Path(PathBuf),
    Port(u16),
    Count(u32),
    Duration(Duration),
    Switch(bool),
    Secret(SecretString),
    Endpoint(Endpoint),
    AgeRecipients(Vec<AgeRecipient>),
}

impl ValueKind {
    /// Whether `text`, a value of this kind, must stay hidden.
    pub(super) fn hides(self, text: &str) -> bool {
        self == Self::Secret || self == Self::Endpoint && !text.starts_with('/')
    }

    pub(super) fn form(self) -> Form {
        match self {
            Self::Port | Self::Count => Form::Integer,
            Self::Switch => Form::Boolean,
            _ => Form::Quoted,
        }
    }

    /// `text` as it would stand in `xdb.toml`.
    pub(super) fn literal(self, text: &str) -> String {
        match self.form() {
            Form::Quoted => format!("{text:?}"),
            Form::Integer | Form::Boolean => text.to_owned(),
        }
    }

    /// Completes "expected …".
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text => "text on one line, without blanks at its ends".to_owned(),
            Self::Name => "a name of lowercase letters, digits and inner dashes".to_owned(),
            Self::Path => "an absolute path".to_owned(),
            Self::PathOrSystem => "an absolute path, or system".to_owned(),
            Self::Port => "a port from 1 to 65535".to_owned(),
            Self::Count => format!("a whole number from 0 to {}", u32::MAX),
            Self::Duration => "a duration above zero, such as 90s, 5m or 6h".to_owned(),
            Self::DurationOrZero => "a duration, such as 0s, 90s or 5m".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
            Self::Secret => "text on one line".to_owned(),
            Self::Url => {
                "a URL that begins with http:// or https://, without user and password".to_owned()
            }
            Self::Endpoint => {
                "a URL that begins with http:// or https://, or the absolute path of a file that holds one"
                    .to_owned()
            }
            Self::RedisUrl => {
                "a URL such as redis://host:6379, redis://host:6379/1 or, with TLS, rediss://host:6379, without user and password"
                    .to_owned()
            }
            Self::Listen => "an address and a port, such as 0.0.0.0:8009".to_owned(),
            Self::Hosts => "hosts between commas, such as 10.0.2.30, 10.0.2.31:8009".to_owned(),
            Self::AgeRecipients => {
                "X25519 recipients of age between commas, each 62 characters that begin with age1"
                    .to_owned()
            }
            Self::Schedule => {
                "a cron pattern (minute, hour, day, month, weekday; UTC) of a date that exists, such as 0 1 * * *, or a duration such as 5m"
                    .to_owned()
            }
            Self::Repository => {
                "s3://bucket/prefix, with {account}, {cluster} and {major} as the only placeholders, outside of xdb/"
                    .to_owned()
            }
        }
    }

    /// Whether a wrong `text` may be shown to the one who wrote it.
    pub(super) fn may_show(self, text: &str) -> bool {
        // A URL can hold a password, and may stand where none belongs.
        let hides = match self {
            Self::Secret | Self::Endpoint => true,
            Self::Url | Self::RedisUrl => text.contains('@'),
            Self::Repository => false,
            _ => text.contains("://"),
        };
        !hides && !may_hold_password(text)
    }

    /// Parses `text`; an integer or a boolean comes as its decimal digits or its word.
    ///
    /// `None` when it is not what [`ValueKind::expected`] says.
    pub(super) fn parse(self, text: &str) -> Option<SettingValue> {
        let one_line = !text.is_empty() && !text.contains(char::is_control);
        let plain = one_line && text.trim() == text;
        let as_text = |good: bool| good.then(|| SettingValue::Text(text.to_owned()));
        match self {
            Self::Text => as_text(plain),
            Self::Name => as_text(is_name(text)),
            Self::Path => {
                (one_line && text.starts_with('/')).then(|| SettingValue::Path(PathBuf::from(text)))
            }
            Self::PathOrSystem if text == "system" => Some(SettingValue::Path(PathBuf::from(text))),
            Self::PathOrSystem => Self::Path.parse(text),
            Self::Port => number(text)?
                .try_into()
                .ok()
                .filter(|port| *port > 0)
                .map(SettingValue::Port),
            Self::Count => number(text).map(SettingValue::Count),
            Self::Duration => parse_duration(text)
                .filter(|duration| !duration.is_zero())
                .map(SettingValue::Duration),
            Self::DurationOrZero => parse_duration(text).map(SettingValue::Duration),
            Self::Switch => parse_switch(text).map(SettingValue::Switch),
            Self::Choice(choices) => as_text(choices.contains(&text)),
            Self::Secret => one_line.then(|| SettingValue::Secret(SecretString::from(text))),
            Self::Url => as_text(plain && is_url(text)),
            Self::Endpoint => (Self::Path.parse(text).is_some() || plain && is_endpoint(text))
                .then(|| SettingValue::Endpoint(Endpoint::of(text))),
            Self::RedisUrl => as_text(is_redis_url(text)),
            Self::Repository => as_text(is_repository(text)),
            Self::Listen => as_text(text.parse::<std::net::SocketAddr>().is_ok()),
            Self::Hosts => as_text(plain && text.split(',').all(|host| is_host(host.trim()))),
            Self::AgeRecipients => parse_recipients(text).map(SettingValue::AgeRecipients),
            Self::Schedule => {
                as_text(plain && (Self::Duration.parse(text).is_some() || is_cron(text)))
            }
        }
    }
}

/// Whether `text` is a pattern that comes at some time: not the 30th of February.
fn is_cron(text: &str) -> bool {
    let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
    croner::Cron::from_str(text).is_ok_and(|cron| cron.find_next_occurrence(&epoch, false).is_ok())
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(allowed) && text.trim_matches('-') == text
}

fn parse_recipients(text: &str) -> Option<Vec<AgeRecipient>> {
    let recipients = text.split(',').map(|one| one.trim().parse().ok());
    recipients.collect()
}

/// Digits only: `u32::from_str` would take a plus sign too.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn parse_duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok()
}

/// The seed's names were written for other programs: Go's take `True` and `1` as well.
fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.starts_with(['/', ':']) && !rest.is_empty() && !rest.contains(['@', ' ', '?', '#'])
    })
}

/// A login in it would not be sent.
fn is_endpoint(text: &str) -> bool {
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let url = url::Url::parse(text)
        .ok()
        .filter(|_| is_http && text.is_ascii());
    url.is_some_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
}

fn is_redis_url(text: &str) -> bool {
    let rest = text.strip_prefix("redis://");
    let Some(rest) = rest.or_else(|| text.strip_prefix("rediss://")) else {
        return false;
    };
    let (server, database) = rest.split_once('/').unwrap_or((rest, "0"));
    is_host(server) && !database.is_empty() && number(database).is_some()
}

/// A host name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, "8009"),
    };
    let in_host = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(in_host),
    };
    good_host && ValueKind::Port.parse(port).is_some()
}

/// The prefix is never empty and never xdb's own: WAL-G's retention deletes what it finds below it.
fn is_repository(text: &str) -> bool {
    let filled = ["{account}", "{cluster}", "{major}"]
        .iter()
        .fold(text.to_owned(), |text, placeholder| {
            text.replace(placeholder, "0")
        });
    let Some((bucket, prefix)) = filled
        .strip_prefix("s3://")
        .and_then(|path| path.split_once('/'))
    else {
        return false;
    };
    let in_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let in_prefix = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut parts = prefix.strip_suffix('/').unwrap_or(prefix).split('/');
    !bucket.is_empty()
        && bucket.chars().all(in_bucket)
        && prefix.chars().all(in_prefix)
        && prefix.split('/').next() != Some("xdb")
        && parts.all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
#[path = "kind_tests.rs"]
mod tests;
