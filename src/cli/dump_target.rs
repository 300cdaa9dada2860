//! `--target`: the server that a dump is restored into, as libpq names it.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::config::Postgres;
use crate::model::account_name;
use crate::postgres::Target;
use crate::wait::{ConnectionString, PasswordFile, WaitError, parse_with_password};

/// The text itself is never shown: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("--target cannot be used: {0}")]
pub(crate) struct TargetError(String);

impl TargetError {
    pub(crate) const HINT: &'static str = "for example --target postgresql://postgres@10.0.2.40:5432/postgres, with the password in PGPASSWORD or ~/.pgpass";
}

/// What both xdb's sessions and those of `pg_restore` take.
const SUPPORTED: &[&str] = &[
    "application_name",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "user",
];

/// The settings `own` with the server of `url` in place of this node's.
///
/// # Errors
/// When `url` is no connection string, or sets what is not supported here.
pub(super) fn target_settings(url: &str, own: &Postgres) -> Result<Postgres, TargetError> {
    let parsed = parse_with_password(url).map_err(|error| match error {
        WaitError::Url(why) => TargetError(why),
        _ => TargetError("a part of it may hold a password in the wrong place".to_owned()),
    })?;
    if let Some(other) = parsed.keywords().find(|it| !SUPPORTED.contains(it)) {
        return Err(TargetError(format!("{other} is not supported here")));
    }
    let mut settings = settings_of(&parsed, own)?;
    if settings.password.is_none() {
        settings.password = found_password(&settings)?;
    }
    Ok(settings)
}

/// As libpq: what is not given has libpq's default, and nothing is taken from this node's server.
fn settings_of(parsed: &ConnectionString, own: &Postgres) -> Result<Postgres, TargetError> {
    let text = |keyword: &str| parsed.get(keyword).map(str::to_owned);
    let host = text("host").unwrap_or_else(|| "/var/run/postgresql".to_owned());
    if host.contains(',') {
        return Err(TargetError("it names several hosts".to_owned()));
    }
    let port = parsed
        .get("port")
        .map_or(Ok(5432), |port| port.trim().parse());
    let account = || {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        account_name(rustix::process::geteuid().as_raw(), &passwd)
    };
    let timeout = parsed.get("connect_timeout");
    let timeout = timeout.and_then(|secs| secs.trim().parse::<u64>().ok());
    let timeout = timeout
        .filter(|secs| *secs > 0)
        .map(std::time::Duration::from_secs);
    Ok(Postgres {
        host,
        port: port.map_err(|_| TargetError("a port must be a number".to_owned()))?,
        user: text("user")
            .or_else(account)
            .unwrap_or_else(|| own.user.clone()),
        password: parsed.password().cloned(),
        database: text("dbname").unwrap_or_else(|| "postgres".to_owned()),
        connect_timeout: timeout.unwrap_or(own.connect_timeout),
        sslmode: text("sslmode").unwrap_or_else(|| "prefer".to_owned()),
        sslrootcert: text("sslrootcert").map(PathBuf::from),
        ..own.clone()
    })
}

/// From `PGPASSWORD`, or from libpq's password file.
fn found_password(settings: &Postgres) -> Result<Option<SecretString>, TargetError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(password) = variable("PGPASSWORD") {
        return Ok(password.into_string().ok().map(SecretString::from));
    }
    let (named, home) = (variable("PGPASSFILE"), variable("HOME"));
    let file = PasswordFile::passfile(named.map(PathBuf::from), home.map(PathBuf::from));
    let target = Target::from(settings);
    file.map_or(Ok(None), |file| file.read(&target).map_err(TargetError))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn own() -> Postgres {
        Postgres {
            host: "/run/postgresql".to_owned(),
            port: 5433,
            user: "postgres".to_owned(),
            password: Some("own".into()),
            database: "postgres".to_owned(),
            data_directory: "/data".into(),
            bin_directory: "/bin".into(),
            connect_timeout: std::time::Duration::from_secs(5),
            sslmode: "verify-full".to_owned(),
            sslrootcert: Some("/ca.pem".into()),
        }
    }

    #[test]
    fn a_url_names_the_server_and_its_password_is_never_shown() {
        let own = own();
        for (url, host, port, user, database, password) in [
            (
                "postgresql://ann:p%40ss@far:5433/x?sslmode=require",
                "far",
                5433,
                "ann",
                "x",
                "p@ss",
            ),
            (
                "host=far user=ann password='p w' dbname=x port=1",
                "far",
                1,
                "ann",
                "x",
                "p w",
            ),
            (
                "postgres://ann@far?password=pw",
                "far",
                5432,
                "ann",
                "postgres",
                "pw",
            ),
        ] {
            let settings = target_settings(url, &own).unwrap();
            assert_eq!((settings.host.as_str(), settings.port), (host, port));
            assert_eq!(
                (settings.user.as_str(), settings.database.as_str()),
                (user, database)
            );
            let found = settings.password.as_ref().unwrap();
            assert_eq!(found.expose_secret(), password);
            assert!(!format!("{settings:?}").contains(password));
        }
        for (url, why) in [
            ("mysql://ann:secret@far", "begins neither"),
            ("postgresql://ann:secret@a,b/x", "several hosts"),
            (
                "postgresql://ann:secret@far/x?options=-c%20a%3Db",
                "options is not supported",
            ),
            ("postgresql://ann:secret@far:secret/x", "a port must be"),
            ("ann:secret", "begins neither"),
        ] {
            let error = target_settings(url, &own).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(
                error.contains(why) || error.contains("may hold a password"),
                "{url}: {error}"
            );
        }
    }
}
