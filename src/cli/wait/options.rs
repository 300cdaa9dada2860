//! From flags, configuration and libpq's variables to what is waited for.

use std::path::PathBuf;

use super::Arguments;
use crate::config::{Config, Flag, Loaded, Source};
use crate::postgres::Target;
use crate::wait::{Hop, Options, PasswordFile, SslMode, Tls, UrlPart, WaitError, Wanted};

/// What `arguments` ask to wait for, one by one.
///
/// # Errors
/// When the configuration, the URL or the certificates are wrong.
pub(super) fn targets(
    arguments: &Arguments,
    load: impl Fn(Vec<Flag>) -> anyhow::Result<Loaded>,
) -> anyhow::Result<Vec<Options>> {
    let given = flags(arguments)?;
    let mut loaded = load(given.clone())?;
    let libpq = from_libpq(arguments.role, &loaded);
    if !libpq.is_empty() {
        loaded = load([given, libpq].concat())?;
    }
    let settings = &loaded.config.wait;
    let mode = SslMode::named(&settings.sslmode);
    let tls = Tls::new(mode, settings.sslrootcert.as_deref())?;
    let wanted = match arguments.targets.as_slice() {
        [] => std::slice::from_ref(&arguments.role),
        several => several,
    };
    let each = |wanted: &Wanted| options(&loaded.config, &tls, *wanted);
    Ok(wanted.iter().map(each).collect())
}

/// Flags that are configuration.
fn flags(arguments: &Arguments) -> Result<Vec<Flag>, WaitError> {
    let time = |text: &Option<String>| text.as_deref().map(seconds);
    let port = port_key(arguments.role);
    let given = [
        ("wait.timeout", time(&arguments.timeout), "--timeout"),
        (
            "wait.attempt_timeout",
            time(&arguments.attempt_timeout),
            "--attempt-timeout",
        ),
        (
            "wait.fail_fast_after",
            time(&arguments.fail_fast_after),
            "--fail-fast-after",
        ),
        ("wait.host", arguments.host.clone(), "--host"),
        (port, arguments.port.clone(), "--port"),
        ("wait.database", arguments.dbname.clone(), "--dbname"),
        ("wait.user", arguments.user.clone(), "--user"),
        ("wait.sslmode", arguments.sslmode.clone(), "--sslmode"),
        (
            "wait.sslrootcert",
            arguments.sslrootcert.clone(),
            "--sslrootcert",
        ),
        (
            "wait.password_file",
            arguments.password_file.clone(),
            "--password-file",
        ),
    ];
    let flag =
        |(key, value, flag): (_, Option<String>, _)| value.map(|value| Flag { key, value, flag });
    let mut flags: Vec<Flag> = given.into_iter().filter_map(flag).collect();
    if let Some(url) = &arguments.url {
        for (part, value) in crate::wait::parse_url(url)? {
            let key = match part {
                UrlPart::Host => "wait.host",
                UrlPart::Port => port,
                UrlPart::User => "wait.user",
                UrlPart::Database => "wait.database",
                UrlPart::SslMode => "wait.sslmode",
                UrlPart::SslRootCert => "wait.sslrootcert",
            };
            let flag = "--url";
            flags.push(Flag { key, value, flag });
        }
    }
    Ok(flags)
}

/// What libpq's variables give to keys that nothing else sets.
///
/// No seeds of the configuration: one that is malformed would stop every verb, archiving too.
fn from_libpq(role: Wanted, loaded: &Loaded) -> Vec<Flag> {
    let free = |key: &str| {
        let is_free = |effective: &crate::config::Effective| {
            effective.key == key && effective.source == Source::Default
        };
        loaded.effective().iter().any(is_free)
    };
    let from = |(key, name): (&'static str, &'static str)| {
        let value = std::env::var(name).ok()?;
        let set = !value.is_empty() && free(key);
        set.then_some(Flag {
            key,
            value,
            flag: name,
        })
    };
    [
        (port_key(role), "PGPORT"),
        ("wait.sslmode", "PGSSLMODE"),
        ("wait.sslrootcert", "PGSSLROOTCERT"),
    ]
    .into_iter()
    .filter_map(from)
    .collect()
}

fn port_key(role: Wanted) -> &'static str {
    match role {
        Wanted::Replica => "wait.replica_port",
        Wanted::Primary | Wanted::Any => "wait.port",
    }
}

/// A bare number counts seconds.
fn seconds(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if bare {
        format!("{text}s")
    } else {
        text.to_owned()
    }
}

fn options(config: &Config, tls: &Tls, wanted: Wanted) -> Options {
    let settings = &config.wait;
    let own_file = settings.password_file.clone().map(PasswordFile::Plain);
    let target = Target {
        host: settings.host.clone(),
        port: match wanted {
            Wanted::Replica => settings.replica_port,
            Wanted::Primary | Wanted::Any => settings.port,
        },
        user: settings.user.clone(),
        password: match own_file {
            Some(_) => None,
            None => config.postgres.password.clone(),
        },
        database: settings.database.clone(),
        connect_timeout: settings.attempt_timeout,
    };
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let passfile = || PasswordFile::passfile(variable("PGPASSFILE"), variable("HOME"));
    Options {
        front: front(&target, config),
        password_file: own_file.or_else(passfile),
        target,
        tls: tls.clone(),
        wanted,
        timeout: settings.timeout,
        fail_fast_after: settings.fail_fast_after,
    }
}

/// Who takes connections there: HAProxy, unless it is an address of this node's own servers.
fn front(target: &Target, config: &Config) -> Hop {
    let local = target.host.starts_with('/') || target.host == config.postgres.host;
    if target.port == config.pgbouncer.port {
        Hop::PgBouncer
    } else if local && target.port == config.postgres.port {
        Hop::PostgreSql
    } else {
        Hop::HaProxy
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_bare_number_counts_seconds() {
        for (text, read) in [
            ("0", "0s"),
            ("150", "150s"),
            ("150s", "150s"),
            ("2m", "2m"),
            ("", ""),
            ("-1", "-1"),
        ] {
            assert_eq!(seconds(text), read);
        }
    }
}
