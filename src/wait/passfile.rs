//! libpq's password file (PostgreSQL manual, "The Password File"). Pure.

use crate::postgres::Target;

/// The password of the first line whose four fields match; `*` matches everything.
pub(super) fn find(text: &str, target: &Target) -> Option<String> {
    // libpq looks a socket up under this name.
    let host = if target.host.starts_with('/') {
        "localhost"
    } else {
        &target.host
    };
    let port = target.port.to_string();
    let wanted = [host, &port, &target.database, &target.user];
    let mut entries = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(fields);
    let entry = entries.find(|fields| {
        let matches = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
        fields.len() == 5 && fields.iter().zip(&wanted).all(matches)
    });
    entry.and_then(|mut fields| fields.pop())
}

/// Splits at colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(characters.next()),
            (other, Some(field)) => field.push(other),
            (_, None) => {}
        }
    }
    fields
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
        }
    }

    #[test]
    fn the_first_matching_line_gives_the_password() {
        for (text, host, password) in [
            ("management:5432:shop:app:pw", "management", Some("pw")),
            (
                "# no\nother:*:*:*:a\n*:*:*:app:b\n*:*:*:*:c",
                "management",
                Some("b"),
            ),
            ("*:5433:*:*:a\n*:*:shop:other:b", "management", None),
            (r"*:*:*:*:a\:b\\c", "management", Some(r"a:b\c")),
            (
                "localhost:5432:*:*:socket",
                "/var/run/postgresql",
                Some("socket"),
            ),
            ("*:*:*:app", "management", None),
            ("", "management", None),
        ] {
            assert_eq!(find(text, &target(host)).as_deref(), password, "{text:?}");
        }
    }
}
