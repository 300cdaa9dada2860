//! Passwords from files, read at each attempt: at boot the file may come after the probe.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::passfile;
use crate::postgres::Target;

/// A file that holds the password when nothing else gives one.
#[derive(Debug, Clone)]
pub(crate) enum PasswordFile {
    /// Nothing but the password, a line break at its end aside; it must be there.
    Plain(PathBuf),
    /// libpq's format; one that is missing holds none.
    Passfile(PathBuf),
}

impl PasswordFile {
    /// libpq's own: `PGPASSFILE` (`named`), else `.pgpass` in the home directory.
    pub(crate) fn passfile(named: Option<PathBuf>, home: Option<PathBuf>) -> Option<Self> {
        let file = named.or_else(|| home.map(|home| home.join(".pgpass")));
        file.map(Self::Passfile)
    }

    /// The password for `target`; `None` where the file holds none for it.
    ///
    /// # Errors
    /// With a sentence when the file is there but not used: others may read it, or it cannot be read.
    pub(crate) fn read(&self, target: &Target) -> Result<Option<SecretString>, String> {
        match self {
            Self::Plain(path) => {
                // systemd gives a unit its credentials as 0440.
                let text = private(path, 0o037)?;
                let password = text.strip_suffix(b"\n").unwrap_or(&text);
                secret(path, (!password.is_empty()).then(|| password.to_vec()))
            }
            // libpq looks at no directory, pipe or device.
            Self::Passfile(path) if !path.is_file() => Ok(None),
            Self::Passfile(path) => secret(path, passfile::find(&private(path, 0o077)?, target)),
        }
    }
}

fn secret(path: &Path, password: Option<Vec<u8>>) -> Result<Option<SecretString>, String> {
    let text = password.map(String::from_utf8).transpose();
    let text = text.map_err(|_| format!("the password in {} is no UTF-8", path.display()))?;
    Ok(text.map(SecretString::from))
}

/// Reads a regular file only when no bit of `open` is set in its mode.
fn private(path: &Path, open: u32) -> Result<Vec<u8>, String> {
    let unused = |error: std::io::Error| format!("{} is not used: {error}", path.display());
    let metadata = fs::metadata(path).map_err(unused)?;
    if metadata.is_file() && metadata.permissions().mode() & open != 0 {
        let path = path.display();
        return Err(format!(
            "{path} is not used: others may read it (chmod 0600 {path})"
        ));
    }
    fs::read(path).map_err(unused)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;

    fn target() -> Target {
        Target {
            host: "management".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            password: None,
            database: "shop".to_owned(),
            connect_timeout: Duration::from_secs(5),
            tls: crate::postgres::Tls::none(),
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let plain = PasswordFile::Plain(path("plain"));
        let passfile = PasswordFile::Passfile(path("passfile"));
        assert!(matches!(passfile.read(&target()), Ok(None)));
        assert!(plain.read(&target()).is_err());
        for (file, name, text, bad, good) in [
            (plain, "plain", "hush\n", 0o644, 0o440),
            (passfile, "passfile", "*:*:*:*:hush", 0o640, 0o600),
        ] {
            fs::write(path(name), text).unwrap();
            let mode = |mode| {
                fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
            };
            mode(bad);
            let complaint = file.read(&target()).unwrap_err();
            assert!(complaint.contains("chmod 0600") && !complaint.contains("hush"));
            mode(good);
            let password = file.read(&target()).unwrap().unwrap();
            assert_eq!(password.expose_secret(), "hush");
        }
    }
}
