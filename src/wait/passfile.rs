//! libpq's password file (PostgreSQL manual, "The Password File"; `passwordFromFile`). Bytes, as for libpq. Pure.

use super::host::SOCKET_DIRECTORY;
use crate::postgres::Target;

/// The password of the first line whose four fields match; one that is empty is none, and ends the search.
pub(super) fn find(text: &[u8], target: &Target) -> Option<Vec<u8>> {
    if target.database.is_empty() || target.user.is_empty() {
        return None;
    }
    // libpq looks its default directory up under this name, and any other directory under its own.
    let host = match target.host.as_str() {
        "" | SOCKET_DIRECTORY => "localhost",
        host => host,
    };
    let port = target.port.to_string();
    let wanted = [host, &port, &target.database, &target.user];
    let lines = text.split(|byte| *byte == b'\n');
    let mut passwords = lines
        .filter(|line| !line.starts_with(b"#"))
        .filter_map(|line| {
            let mut rest = without_carriage_returns(line);
            for field in wanted {
                rest = after_match(rest, field.as_bytes())?;
            }
            Some(unescaped(rest))
        });
    passwords.next().filter(|password| !password.is_empty())
}

fn without_carriage_returns(mut line: &[u8]) -> &[u8] {
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

/// What follows the first field of `line`, where that is `wanted` or a star.
fn after_match<'a>(line: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut rest, mut wanted) = (line, wanted);
    loop {
        match rest {
            [b':', after @ ..] if wanted.is_empty() => return Some(after),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                wanted = wanted.strip_prefix(&[*byte])?;
                rest = after;
            }
            [] => return None,
        }
    }
}

/// Up to the next colon: what stands behind it is ignored.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next().filter(|byte| *byte != b':') {
        match (byte, bytes.peek()) {
            (b'\\', Some(_)) => password.extend(bytes.next()),
            _ => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn target(host: &str) -> Target {
        Target {
            host: host.to_owned(),
            port: 5432,
            user: "app".to_owned(),
            password: None,
            database: "shop".to_owned(),
            connect_timeout: Duration::from_secs(5),
            tls: crate::postgres::Tls::none(),
        }
    }

    #[test]
    fn the_first_matching_line_gives_the_password() {
        const SOCKET: &str = "/var/run/postgresql";
        for (text, host, password) in [
            ("management:5432:shop:app:pw", "management", Some("pw")),
            (
                "# no\nother:*:*:*:a\n*:*:*:app:b\n*:*:*:*:c",
                "management",
                Some("b"),
            ),
            ("*:5433:*:*:a\n*:*:shop:other:b", "management", None),
            (r"*:*:*:*:a\:b\\c", "management", Some(r"a:b\c")),
            ("*:*:*:*:pw\r\n", "management", Some("pw")),
            ("*:*:*:*:pw\r\r\n", "management", Some("pw")),
            ("*:*:*:*: p w ", "management", Some(" p w ")),
            ("*:*:*:*:pw:more", "management", Some("pw")),
            ("*:*:*:*:p#w", "management", Some("p#w")),
            (" #*\n*:*:*:*:pw", "management", Some("pw")),
            (" *:*:*:*:pw", "management", None),
            ("*:*:*:*:\n*:*:*:*:later", "management", None),
            ("*:*:*:*:pw\\", "management", Some("pw\\")),
            (r"m\anagement:*:*:*:pw", "management", Some("pw")),
            (r"\*:*:*:*:a", "management", None),
            ("Management:*:*:*:a", "management", None),
            ("management:05432:*:*:a", "management", None),
            ("*a:*:*:*:a", "management", None),
            ("*:*:*:app", "management", None),
            ("*:*:*:app:", "management", None),
            ("", "management", None),
            ("::1:*:*:*:pw", "::1", Some("pw")),
            (r"\:\:1:*:*:*:pw", "::1", Some("pw")),
            ("localhost:5432:*:*:pw", SOCKET, Some("pw")),
            ("/var/run/postgresql:*:*:*:pw", SOCKET, None),
            ("localhost:*:*:*:pw", "/run/postgresql", None),
            ("/run/postgresql:*:*:*:pw", "/run/postgresql", Some("pw")),
            ("localhost:*:*:*:pw", "/tmp", None),
            ("127.0.0.1:*:*:*:pw", "localhost", None),
        ] {
            let found = find(text.as_bytes(), &target(host));
            assert_eq!(found.as_deref(), password.map(str::as_bytes), "{text:?}");
        }
        // One line that is no UTF-8 does not spoil the others.
        let found = find(b"\xff:*:*:*:a\n*:*:*:*:pw", &target("management"));
        assert_eq!(found.as_deref(), Some(&b"pw"[..]));
    }
}
