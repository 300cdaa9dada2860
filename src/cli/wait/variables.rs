//! libpq's environment variables, for what no flag, connection string or configuration sets.

use std::env::VarError;

use crate::config::{Flag, Loaded, SettingSource};
use crate::wait::{ConnectionString, WaitError};

/// Those of parameters that are no settings of xdb.
const OTHERS: &[(&str, &str)] = &[
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGOPTIONS", "options"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    // Refused as the keyword is: the application would connect to what the service names, and the probe elsewhere.
    ("PGSERVICE", "service"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLSNI", "sslsni"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The flags that libpq's variables stand for, for settings that nothing else sets.
///
/// No seeds of the configuration: one that is malformed would stop every verb, archiving too.
pub(super) fn config_flags(port_key: &'static str, loaded: &Loaded) -> Vec<Flag> {
    let from = |(key, name): (&'static str, &'static str)| {
        let value = variable(name)?;
        // Several ports belong to their hosts.
        let set = is_preset(loaded, key) && !(key == port_key && value.contains(','));
        set.then_some(Flag {
            key,
            value,
            flag: name,
        })
    };
    let named = [
        (port_key, "PGPORT"),
        ("wait.sslmode", "PGSSLMODE"),
        ("wait.sslrootcert", "PGSSLROOTCERT"),
    ];
    let mut flags: Vec<Flag> = named.into_iter().filter_map(from).collect();
    flags.extend(require_ssl(&flags, loaded));
    flags
}

/// The name that PGSSLMODE had in old releases, which libpq still reads.
fn require_ssl(flags: &[Flag], loaded: &Loaded) -> Option<Flag> {
    let key = "wait.sslmode";
    let is_set = !is_preset(loaded, key) || flags.iter().any(|flag| flag.key == key);
    let requires = variable("PGREQUIRESSL").is_some_and(|value| value.starts_with('1'));
    (requires && !is_set).then(|| Flag {
        key,
        value: "require".to_owned(),
        flag: "PGREQUIRESSL",
    })
}

/// Adds libpq's other variables to `connection`.
///
/// # Errors
/// When libpq would refuse a value, or xdb cannot do what it asks for.
pub(super) fn set_defaults(connection: &mut ConnectionString) -> Result<(), WaitError> {
    // A host that the string names has an address of its own.
    let names_host = connection.get("host").is_some();
    for (name, keyword) in OTHERS {
        if *keyword == "hostaddr" && names_host {
            continue;
        }
        if std::env::var(name).is_err_and(|error| error != VarError::NotPresent) {
            return Err(WaitError::Variable(name, "it is not UTF-8".to_owned()));
        }
        if let Some(value) = variable(name) {
            set_default(connection, name, keyword, value)?;
        }
    }
    match variable("PGPORT").filter(|ports| ports.contains(',')) {
        Some(ports) => set_default(connection, "PGPORT", "port", ports),
        None => Ok(()),
    }
}

/// An error names the variable, and never shows its value.
fn set_default(
    connection: &mut ConnectionString,
    name: &'static str,
    keyword: &'static str,
    value: String,
) -> Result<(), WaitError> {
    let set = connection.set_default(keyword, value);
    set.map_err(|error| match error {
        WaitError::Url(why) => WaitError::Variable(name, why),
        WaitError::PasswordInUrl => WaitError::Variable(name, "it holds a password".to_owned()),
        error => error,
    })
}

/// Whether nothing sets `key`.
pub(super) fn is_preset(loaded: &Loaded, key: &str) -> bool {
    let is_preset = |effective: &crate::config::Effective| {
        effective.key == key && effective.source == SettingSource::Default
    };
    loaded.effective().iter().any(is_preset)
}
