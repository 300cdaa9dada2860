//! Errors of usage, found before the first attempt.

use crate::postgres::TlsError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// The string itself is never shown: it may hold a password.
    #[error("--url cannot be used as a connection string: {0}")]
    Url(String),
    #[error("--url holds a password, which every user of this machine can read")]
    PasswordInUrl,
    /// One of libpq's environment variables, by its name. Its value is never shown.
    #[error("{0} cannot be used: {1}")]
    Variable(&'static str, String),
    /// The setting, by the name of its flag.
    #[error("{0} is not a name: it is not shown, because it may hold a password")]
    NoName(&'static str),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl WaitError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Url(_) => "for example --url postgresql://app@management:5432/app?sslmode=prefer",
            Self::PasswordInUrl => {
                "leave it out of the URL and set PGPASSWORD, PGPASSFILE or wait.password_file"
            }
            Self::Variable(..) => {
                "correct the variable, or remove it from the environment (in a unit with UnsetEnvironment=)"
            }
            Self::NoName(_) => {
                "give a connection string with --url, and the password with PGPASSWORD, PGPASSFILE or wait.password_file"
            }
            Self::Tls(error) => error.hint(),
        }
    }
}
