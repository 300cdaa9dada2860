//! libpq's password file (PostgreSQL manual, "The Password File").

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::postgres::Target;

/// Where the password file is: `PGPASSFILE` (`named`), else `.pgpass` in the home directory.
pub fn passfile(named: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| home.map(|home| home.join(".pgpass")))
}

/// The password for `target` in the file at `path`; a file that is missing holds none.
///
/// # Errors
/// With a sentence when the file is there but not used: others may read it, or it cannot be read.
pub fn password_in(path: &Path, target: &Target) -> Result<Option<SecretString>, String> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(None);
    };
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        return Err(format!(
            "{path} is not used: others may read it (chmod 0600 {path})"
        ));
    }
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{} is not used: {error}", path.display()))?;
    Ok(find(&text, target).map(SecretString::from))
}

/// The password of the first line whose four fields match; `*` matches everything.
fn find(text: &str, target: &Target) -> Option<String> {
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

    use secrecy::ExposeSecret;

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

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        assert!(matches!(password_in(&path, &target("a")), Ok(None)));
        fs::write(&path, "*:*:*:*:hush").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let complaint = password_in(&path, &target("a")).unwrap_err();
        assert!(complaint.contains("chmod 0600") && !complaint.contains("hush"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let password = password_in(&path, &target("a")).unwrap().unwrap();
        assert_eq!(password.expose_secret(), "hush");
    }
}
