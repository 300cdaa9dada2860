//! From flags, configuration and libpq's variables to the options of the probe.

use std::path::PathBuf;

use tokio_postgres::config::ChannelBinding;

use super::Arguments;
use super::variables::{config_flags, is_preset, set_defaults};
use crate::config::{Config, Flag, Loaded};
use crate::model::may_hold_password;
use crate::postgres::{RootCert, SslMode, Target, Tls, TlsFiles, TlsVersions};
use crate::wait::{
    AuthMethods, ConnectionString, Hop, Host, Parameters, PasswordFile, SessionAttributes,
    WaitError, WaitOptions, WantedRole, is_connection_string, parse_connection_string, parse_hosts,
};

/// The targets that `arguments` name.
///
/// # Errors
/// When the configuration, the connection string or the certificates are wrong.
pub(super) fn targets(
    arguments: &Arguments,
    load: impl Fn(Vec<Flag>) -> anyhow::Result<Loaded>,
) -> anyhow::Result<Vec<WaitOptions>> {
    let mut connection = connection(arguments)?;
    let given = flags(arguments, &connection)?;
    let mut loaded = load(given.clone())?;
    let mut libpq = config_flags(port_key(arguments.role), &loaded);
    // As for libpq: the database is the user's where nothing names one.
    if let (Some(user), true) = (connection.get("user"), is_preset(&loaded, "wait.database")) {
        libpq.push(flag("wait.database", user.to_owned(), "--url"));
    }
    if !libpq.is_empty() {
        loaded = load([given, libpq].concat())?;
    }
    set_defaults(&mut connection)?;
    let tls = tls(&loaded, &connection)?;
    let attributes = connection.get("target_session_attrs");
    let attributes = SessionAttributes::named(attributes.unwrap_or_default());
    let one = [arguments.role.unwrap_or_else(|| attributes.role())];
    let wanted = match arguments.targets.as_slice() {
        [] => &one[..],
        several => several,
    };
    let each = |wanted: &WantedRole| {
        let port = match arguments.targets.as_slice() {
            [] => port_of(arguments.role, &loaded.config),
            _ => port_of(Some(*wanted), &loaded.config),
        };
        options(&loaded, &connection, &tls, *wanted, port)
    };
    Ok(wanted.iter().map(each).collect::<Result<_, _>>()?)
}

/// `--url`, or `--dbname` where it is a connection string, as for psql.
fn connection(arguments: &Arguments) -> Result<ConnectionString, WaitError> {
    let database = arguments.dbname.as_deref();
    let text = arguments
        .url
        .as_deref()
        .or(database.filter(|name| is_connection_string(name)));
    text.map_or_else(|| Ok(ConnectionString::default()), parse_connection_string)
}

fn flag(key: &'static str, value: String, flag: &'static str) -> Flag {
    Flag { key, value, flag }
}

/// Flags that are configuration.
fn flags(arguments: &Arguments, connection: &ConnectionString) -> Result<Vec<Flag>, WaitError> {
    let time = |text: &Option<String>| text.as_deref().map(seconds);
    let path = |text: Option<&str>| text.map(absolute);
    let port = port_key(arguments.role);
    let database = arguments.dbname.clone();
    // Several ports are no setting: they belong to their hosts.
    let own_port = connection.get("port").filter(|ports| !ports.contains(','));
    let of_url = [
        ("wait.host", connection.get("host").map(str::to_owned)),
        (port, own_port.map(|port| port.trim().to_owned())),
        ("wait.user", connection.get("user").map(str::to_owned)),
        ("wait.database", connection.get("dbname").map(str::to_owned)),
        ("wait.sslmode", connection.get("sslmode").map(str::to_owned)),
        ("wait.sslrootcert", path(connection.get("sslrootcert"))),
    ];
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
        (
            "wait.database",
            database.filter(|name| !is_connection_string(name)),
            "--dbname",
        ),
        ("wait.user", arguments.user.clone(), "--user"),
        ("wait.sslmode", arguments.sslmode.clone(), "--sslmode"),
        (
            "wait.sslrootcert",
            path(arguments.sslrootcert.as_deref()),
            "--sslrootcert",
        ),
        (
            "wait.password_file",
            arguments.password_file.clone(),
            "--password-file",
        ),
    ];
    let in_url = |key: &str| {
        of_url
            .iter()
            .any(|(own, value)| *own == key && value.is_some())
    };
    let given = given.into_iter().filter(|(key, ..)| !in_url(key));
    let given: Vec<_> = given
        .filter_map(|(key, value, name)| Some(flag(key, value?, name)))
        .collect();
    let of_url = of_url.into_iter();
    let of_url = of_url.filter_map(|(key, value)| Some(flag(key, value?, "--url")));
    Ok(of_url.chain(given).collect())
}

/// libpq takes a path from the working directory on.
fn absolute(path: &str) -> String {
    if path == SYSTEM || path.is_empty() {
        return path.to_owned();
    }
    let absolute = std::path::absolute(path).ok();
    let text = absolute.and_then(|path| path.into_os_string().into_string().ok());
    text.unwrap_or_else(|| path.to_owned())
}

/// Stands for the roots that the system trusts.
const SYSTEM: &str = "system";

fn tls(loaded: &Loaded, connection: &ConnectionString) -> Result<Tls, WaitError> {
    let settings = &loaded.config.wait;
    let path = |keyword| connection.get(keyword).map(PathBuf::from);
    let root = RootCert::of(settings.sslrootcert.as_deref());
    // As for libpq: the system's roots are for servers that prove their name.
    let mode = match &root {
        RootCert::System if is_preset(loaded, "wait.sslmode") => SslMode::VerifyFull,
        _ => SslMode::named(&settings.sslmode),
    };
    let files = TlsFiles {
        home: std::env::var_os("HOME").map(PathBuf::from),
        root,
        revoked: path("sslcrl"),
        revoked_directory: path("sslcrldir"),
        certificate: path("sslcert"),
        key: path("sslkey"),
        without_certificate: connection.get("sslcertmode") == Some("disable"),
    };
    let mut tls = Tls::new(mode, &files)?;
    tls.versions = versions(
        connection.get("ssl_min_protocol_version"),
        connection.get("ssl_max_protocol_version"),
    )?;
    // As libpq: 1, and nothing else, is yes.
    tls.names_host = connection
        .get("sslsni")
        .is_none_or(|sni| sni.starts_with('1'));
    if connection.get("sslnegotiation") == Some("direct") {
        tls = tls.negotiate_directly()?;
    }
    Ok(tls)
}

/// libpq's least is TLSv1.2 where none is given; older ones are not safe, and xdb has none.
pub(super) fn versions(least: Option<&str>, most: Option<&str>) -> Result<TlsVersions, WaitError> {
    let least = least.unwrap_or("TLSv1.2");
    match most {
        // The names sort as the versions do.
        Some(most) if most < least => Err(WaitError::Url(
            "invalid SSL protocol version range".to_owned(),
        )),
        Some("TLSv1" | "TLSv1.1") => Ok(TlsVersions::Old),
        Some("TLSv1.2") => Ok(TlsVersions::Only12),
        _ if least == "TLSv1.3" => Ok(TlsVersions::Only13),
        _ => Ok(TlsVersions::Any),
    }
}

fn port_key(role: Option<WantedRole>) -> &'static str {
    match role {
        Some(WantedRole::Replica) => "wait.replica_port",
        _ => "wait.port",
    }
}

fn port_of(role: Option<WantedRole>, config: &Config) -> u16 {
    match role {
        Some(WantedRole::Replica) => config.wait.replica_port,
        _ => config.wait.port,
    }
}

/// A bare number counts seconds.
pub(super) fn seconds(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if bare {
        format!("{text}s")
    } else {
        text.to_owned()
    }
}

fn options(
    loaded: &Loaded,
    connection: &ConnectionString,
    tls: &Tls,
    wanted: WantedRole,
    port: u16,
) -> Result<WaitOptions, WaitError> {
    let config = &loaded.config;
    let settings = &config.wait;
    for (name, value) in [
        ("--host", &settings.host),
        ("--user", &settings.user),
        ("--dbname", &settings.database),
    ] {
        if value.contains("://") || may_hold_password(value) {
            return Err(WaitError::NoName(name));
        }
    }
    let own_file = settings.password_file.clone().map(PasswordFile::Plain);
    let address = connection.get("hostaddr");
    // An address needs no name.
    let nameless = address.is_some() && is_preset(loaded, "wait.host");
    let name = (!nameless).then_some(settings.host.as_str());
    let port = port.to_string();
    let ports = connection.get("port").filter(|ports| ports.contains(','));
    let hosts = parse_hosts(name, address, Some(ports.unwrap_or(&port)))?;
    let first = hosts.first();
    let target = Target {
        host: first.map_or("", |host| host.shown()).to_owned(),
        port: first.map_or(settings.port, |host| host.port),
        user: settings.user.clone(),
        password: match own_file {
            Some(_) => None,
            None => config.postgres.password.clone(),
        },
        database: settings.database.clone(),
        connect_timeout: settings.attempt_timeout,
        tls: Tls::none(),
    };
    // As for libpq, an empty variable is as none.
    let variable = |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let named = connection.get("passfile").map(PathBuf::from);
    let named = named.or_else(|| variable("PGPASSFILE"));
    let passfile = || PasswordFile::passfile(named, variable("HOME"));
    Ok(WaitOptions {
        front: front(&target, config),
        password_file: own_file.or_else(passfile),
        target,
        parameters: parameters(connection, hosts),
        tls: tls.clone(),
        wanted,
        timeout: settings.timeout,
        fail_fast_after: settings.fail_fast_after,
    })
}

/// The parameters of `connection` beyond its hosts, login and TLS.
fn parameters(connection: &ConnectionString, hosts: Vec<Host>) -> Parameters {
    let text = |keyword| connection.get(keyword).map(str::to_owned);
    Parameters {
        hosts,
        attributes: SessionAttributes::named(
            connection.get("target_session_attrs").unwrap_or_default(),
        ),
        application_name: text("application_name").or_else(|| text("fallback_application_name")),
        options: text("options"),
        methods: connection
            .get("require_auth")
            .and_then(|methods| AuthMethods::parse(methods).ok()),
        peer: text("requirepeer"),
        channel_binding: connection
            .get("channel_binding")
            .map(|binding| match binding {
                "disable" => ChannelBinding::Disable,
                "require" => ChannelBinding::Require,
                _ => ChannelBinding::Prefer,
            }),
    }
}

/// Who takes connections there: HAProxy, unless it is an address of this node's own servers.
fn front(target: &Target, config: &Config) -> Hop {
    let local = target.host.starts_with(['/', '@']) || target.host == config.postgres.host;
    if target.port == config.pgbouncer.port {
        Hop::PgBouncer
    } else if local && target.port == config.postgres.port {
        Hop::PostgreSql
    } else {
        Hop::HaProxy
    }
}
