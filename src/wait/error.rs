//! What can be wrong before anything is dialled; all of it is usage.

use crate::postgres::TlsError;

#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The string itself is never shown: it may hold a password.
    #[error("--url is no connection string: {0}")]
    Url(String),
    #[error("--url holds a password, which every user of this machine can read")]
    PasswordInUrl,
    /// The setting, by the name of its flag.
    #[error("{0} is no name: it is not shown, because it may hold a password")]
    NoName(&'static str),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl WaitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Url(_) => "for example --url postgresql://app@management:5432/app?sslmode=prefer",
            Self::PasswordInUrl => {
                "leave it out of the URL and set PGPASSWORD, PGPASSFILE or wait.password_file"
            }
            Self::NoName(_) => {
                "give a connection string with --url, and the password with PGPASSWORD, PGPASSFILE or wait.password_file"
            }
            Self::Tls(error) => error.hint(),
        }
    }
}
