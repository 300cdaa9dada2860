//! libpq's environment variables, where nothing else says it.

use super::options::is_preset;
use crate::config::{Flag, Loaded};
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

/// What libpq's variables give to settings that nothing else sets.
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

/// Adds what libpq's other variables say to `connection`.
///
/// # Errors
/// When libpq would refuse a value.
pub(super) fn set_defaults(connection: &mut ConnectionString) -> Result<(), WaitError> {
    // A host that the string names has an address of its own.
    let names_host = connection.get("host").is_some();
    for (name, keyword) in OTHERS {
        if let Some(value) = variable(name).filter(|_| *keyword != "hostaddr" || !names_host) {
            connection.set_default(keyword, value)?;
        }
    }
    if let Some(ports) = variable("PGPORT").filter(|ports| ports.contains(',')) {
        connection.set_default("port", ports)?;
    }
    Ok(())
}
