//! The identity file of age: the private keys of this node, and whether one of them reads an object.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::x25519::Identity;
use secrecy::{ExposeSecret, SecretString};

use crate::config::{self, AgeRecipient};

/// What every user may do with a file.
const OTHERS: u32 = 0o007;
/// An identity takes 75 bytes; what is longer is another file.
const LIMIT: u64 = 64 << 10;

/// Why an encrypted object cannot be read on this node, which says nothing of the object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("this node has no key: dump.age_identity_file is not set")]
    NotSet,
    #[error("this node has no key: cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not used: every user may read or change it (mode {mode:04o})", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{}:{line} is not an X25519 identity of age", path.display())]
    Malformed { path: PathBuf, line: usize },
    #[error("{} holds no identity of age that can be read", path.display())]
    Empty { path: PathBuf },
    #[error("wrong key: encrypted to {}, while {} holds the identity of {}", list(encrypted_to), path.display(), list(held))]
    Wrong {
        path: PathBuf,
        encrypted_to: Vec<String>,
        /// The recipients of the identities there.
        held: Vec<String>,
    },
}

fn list(recipients: &[String]) -> String {
    recipients.join(", ")
}

impl KeyError {
    /// What the operator can do.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::NotSet | Self::Unreadable { .. } => {
                "set dump.age_identity_file to a file with the identity of one of the recipients (mode 0640, group postgres); `xdb dump verify` needs none".to_owned()
            }
            Self::Exposed { path, .. } => {
                let path = path.display();
                format!("chown root:postgres {path} && chmod 0640 {path}")
            }
            Self::Malformed { .. } | Self::Empty { .. } => {
                "it must be what age-keygen writes: a line that begins with AGE-SECRET-KEY-1 for each identity. A file that a passphrase protects, and identities of plugins, of SSH and of post-quantum recipients are not supported".to_owned()
            }
            Self::Wrong { .. } => {
                "nothing is known to be damaged: add the identity of one of the recipients to the file, on a line of its own".to_owned()
            }
        }
    }
}

/// The identities of one file. It has no `Debug`: nothing prints a private key.
pub(super) struct Identities {
    path: PathBuf,
    all: Vec<Identity>,
}

impl Identities {
    /// Reads `dump.age_identity_file`.
    ///
    /// # Errors
    /// When it is not set, cannot be read, may be read by every user, or holds something else.
    pub(super) fn of(settings: &config::Dump) -> Result<Self, KeyError> {
        let path = settings.age_identity_file.as_deref();
        Self::read(path.ok_or(KeyError::NotSet)?)
    }

    /// # Errors
    /// As [`Self::of`].
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut file = match config::open_regular(path, LIMIT) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let path = path.to_owned();
                return Err(KeyError::Empty { path });
            }
            Err(error) => return Err(unreadable(error)),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            let path = path.to_owned();
            return Err(KeyError::Exposed { path, mode });
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        let text = SecretString::from(text);
        match read {
            Ok(_) => Self::parse(path, text.expose_secret()),
            // Binary: a passphrase protects it, or it is another file.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::Empty {
                path: path.to_owned(),
            }),
            Err(error) => Err(unreadable(error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, KeyError> {
        let path = path.to_owned();
        let mut all = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(identity) => all.push(identity),
                Err(_) => return Err(KeyError::Malformed { path, line: at + 1 }),
            }
        }
        match all.is_empty() {
            true => Err(KeyError::Empty { path }),
            false => Ok(Self { path, all }),
        }
    }

    /// Whether one of them is for one of `recipients`.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] where none is.
    pub(super) fn judge(&self, recipients: &[String]) -> Result<(), KeyError> {
        let held = self.all.iter().map(|it| it.to_public().to_string());
        let held: Vec<String> = held.collect();
        if held.iter().any(|it| recipients.contains(it)) {
            return Ok(());
        }
        Err(KeyError::Wrong {
            path: self.path.clone(),
            encrypted_to: recipients.to_vec(),
            held,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.all.iter().map(|it| it as &dyn age::Identity)
    }
}

/// Whether this node can read dumps that are made with `settings`; always where they are not encrypted.
///
/// # Errors
/// Why it cannot.
pub(crate) fn judge_identity(settings: &config::Dump) -> Result<(), KeyError> {
    if settings.age_recipients.is_empty() {
        return Ok(());
    }
    Identities::of(settings)?.judge(&named(&settings.age_recipients))
}

/// The recipients as a manifest names them.
pub(super) fn named(recipients: &[AgeRecipient]) -> Vec<String> {
    recipients.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(identity: &Identity) -> String {
        identity.to_string().expose_secret().to_owned()
    }

    #[test]
    fn a_file_of_identities_is_read_and_anything_else_is_refused_without_being_shown() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let path = Path::new("/etc/xdb/age-identity.txt");
        let parse = |text: &str| Identities::parse(path, text);
        let text = format!("# created: today\n\n{}\r\n {}\n", key(&one), key(&other));
        let Ok(both) = parse(&text) else {
            panic!("not read");
        };
        for identity in [&one, &other] {
            assert!(both.judge(&[identity.to_public().to_string()]).is_ok());
        }
        let cut = &key(&one)[..60];
        for (text, words) in [
            (String::new(), "holds no identity"),
            ("# a comment\n".to_owned(), "holds no identity"),
            (format!("\n{cut}\n"), "age-identity.txt:2 is not an X25519"),
            (
                one.to_public().to_string(),
                "age-identity.txt:1 is not an X25519",
            ),
        ] {
            let error = parse(&text).err().expect("an error");
            let shown = format!("{error} {error:?} {}", error.hint());
            assert!(shown.contains(words), "{shown}");
            assert!(!shown.contains(&cut[20..]), "{shown}");
        }
    }

    #[test]
    fn a_key_of_none_of_the_recipients_is_called_wrong() {
        let (own, wanted) = (Identity::generate(), Identity::generate());
        let identities = Identities {
            path: "/k".into(),
            all: vec![own.clone()],
        };
        let wanted = wanted.to_public().to_string();
        let error = identities.judge(std::slice::from_ref(&wanted)).unwrap_err();
        let own = own.to_public();
        assert_eq!(
            error.to_string(),
            format!("wrong key: encrypted to {wanted}, while /k holds the identity of {own}")
        );
    }

    #[test]
    fn a_file_that_every_user_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), key(&Identity::generate())).unwrap();
        let set_mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), mode).unwrap();
        };
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            set_mode(mode);
            let read = Identities::read(file.path());
            assert_eq!(read.is_ok(), good, "{mode:o}");
        }
        std::fs::write(file.path(), b"\xff\xfe, behind a passphrase").unwrap();
        set_mode(0o600);
        let binary = Identities::read(file.path()).err();
        assert!(matches!(binary, Some(KeyError::Empty { .. })));
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        let pipe = Identities::read(&pipe).err();
        assert!(matches!(pipe, Some(KeyError::Empty { .. })));
        let missing = Identities::read(Path::new("/nowhere/key"));
        assert!(matches!(missing.err(), Some(KeyError::Unreadable { .. })));
    }
}
