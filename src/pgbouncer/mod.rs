//! PgBouncer's admin console, its rows read by column name. Judges nothing.
//!
//! The console speaks the simple protocol only, one statement a call; the columns differ by release.

mod console;
mod row;
mod show;

pub(crate) use console::Console;
pub(crate) use row::{Row, RowError};
pub(crate) use show::{Database, Pool};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PgBouncerError {
    #[error(
        "cannot log in to PgBouncer's console at {place}: {}",
        crate::postgres::in_words(error)
    )]
    Connect {
        place: String,
        error: tokio_postgres::Error,
    },
    #[error("PgBouncer's console did not answer {what} within {secs} s")]
    Silent { what: String, secs: u64 },
    #[error("PgBouncer refuses {what}: {}", crate::postgres::in_words(error))]
    Query {
        what: String,
        error: tokio_postgres::Error,
    },
    #[error("cannot read PgBouncer's answer to {what}")]
    Answer {
        what: &'static str,
        #[source]
        error: RowError,
    },
}
