//! A connection URI without its scheme (PostgreSQL manual, "Connection URIs"), read as libpq does. Pure.

use super::WaitError;

/// Takes a keyword with its value, and refuses what it does not know.
type Set<'a> = &'a mut dyn FnMut(&str, String) -> Result<(), WaitError>;

fn wrong(what: &str) -> WaitError {
    WaitError::Url(what.to_owned())
}

/// As `conninfo_uri_parse_options`.
pub(super) fn parse_uri(body: &str, driver: bool, set: Set<'_>) -> Result<(), WaitError> {
    let (mut rest, has_user) = parse_login(body, set)?;
    let (mut hosts, mut ports) = (String::new(), String::new());
    loop {
        let (host, after) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner
                    .split_once(']')
                    .ok_or_else(|| wrong("the bracket of an IPv6 address is not closed"))?;
                if host.is_empty() || !(after.is_empty() || after.starts_with([':', '/', '?', ',']))
                {
                    return Err(wrong("an IPv6 address in brackets is malformed"));
                }
                (host, after)
            }
            None => rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len())),
        };
        hosts.push_str(host);
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            let (port, after) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
            ports.push_str(port);
            rest = after;
        }
        let Some(after) = rest.strip_prefix(',') else {
            break;
        };
        rest = after;
        hosts.push(',');
        ports.push(',');
    }
    set_decoded(set, "host", &hosts)?;
    set_decoded(set, "port", &ports)?;
    if let Some(path) = rest.strip_prefix('/') {
        let (database, after) = path.split_at(path.find('?').unwrap_or(path.len()));
        // A password with a slash in it: libpq takes what follows the slash for the database. In a name, @ is %40.
        if !has_user && !ports.is_empty() && database.contains('@') {
            return Err(WaitError::PasswordInUrl);
        }
        set_decoded(set, "dbname", database)?;
        rest = after;
    }
    match rest.strip_prefix('?') {
        Some(parameters) => parse_parameters(parameters, driver, set),
        None => Ok(()),
    }
}

/// User and password; returns what follows them, and whether they are there.
fn parse_login<'a>(body: &'a str, set: Set<'_>) -> Result<(&'a str, bool), WaitError> {
    let end = body.find(['@', '/']).unwrap_or(body.len());
    let Some(rest) = body[end..].strip_prefix('@') else {
        return Ok((body, false));
    };
    let (user, password) = body[..end].split_once(':').unwrap_or((&body[..end], ""));
    if !password.is_empty() {
        // Whether it may be there at all comes before how it is written.
        let password = decode(password).map_err(|_| WaitError::PasswordInUrl)?;
        set("password", password)?;
    }
    let user = match user {
        "" => String::new(),
        user => decode(user)?,
    };
    // The colon before a password, as %3A.
    if user.contains(':') {
        return Err(WaitError::PasswordInUrl);
    }
    if !user.is_empty() {
        set("user", user)?;
    }
    Ok((rest, true))
}

/// An empty part of a URI sets nothing.
fn set_decoded(set: Set<'_>, keyword: &str, text: &str) -> Result<(), WaitError> {
    if text.is_empty() {
        return Ok(());
    }
    set(keyword, decode(text)?)
}

/// As `conninfo_uri_parse_params`.
fn parse_parameters(text: &str, driver: bool, set: Set<'_>) -> Result<(), WaitError> {
    let mut parameters: Vec<&str> = text.split('&').collect();
    // The string may end in a separator, or have no parameters at all.
    if parameters.last().is_some_and(|last| last.is_empty()) {
        parameters.pop();
    }
    for parameter in parameters {
        let (keyword, value) = parameter
            .split_once('=')
            .ok_or_else(|| wrong("a parameter is without \"=\""))?;
        if value.contains('=') {
            return Err(wrong("a parameter has a second \"=\""));
        }
        let (keyword, value) = (decode(keyword)?, decode(value)?);
        match (keyword.as_str(), value.as_str()) {
            // JDBC's.
            ("ssl", "true") => set("sslmode", "require".to_owned())?,
            // SQLAlchemy's and asyncpg's.
            ("ssl", _) => set("sslmode", value)?,
            ("prepared_statement_cache_size" | "async_fallback", _) if driver => {}
            _ => set(&keyword, value)?,
        }
    }
    Ok(())
}

/// Percent-encoding; a plus is a plus.
fn decode(text: &str) -> Result<String, WaitError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(0) => return Err(wrong("it contains %00")),
            Some(value) => bytes.push(value),
            None => return Err(wrong("a percent-encoding is malformed")),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}
