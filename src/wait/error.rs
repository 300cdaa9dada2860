//! What can be wrong before anything is dialled; all of it is usage.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The URL itself is never shown: it may hold a password.
    #[error("--url is no PostgreSQL URL: {0}")]
    Url(String),
    #[error("--url holds a password, which every user of this machine can read")]
    PasswordInUrl,
    #[error("sslmode {0} needs sslrootcert")]
    NoRoots(&'static str),
    #[error("cannot read certificates from {}: {reason}", path.display())]
    Roots { path: PathBuf, reason: String },
}

impl WaitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Url(_) => "for example --url postgresql://app@management:5432/app?sslmode=prefer",
            Self::PasswordInUrl => {
                "leave it out of the URL and set PGPASSWORD, PGPASSFILE or wait.password_file"
            }
            Self::NoRoots(_) => "name the PEM file of the server's CA with --sslrootcert",
            Self::Roots { .. } => "sslrootcert is a PEM file with the server's CA",
        }
    }
}
