//! PostgreSQL: connections with deadlines, what a server says of itself, `pg_controldata`. Judges nothing.

mod backup_session;
mod connect;
mod control;
mod control_file;
mod database_names;
mod life;
mod login_method;
mod pool;
mod relay;
mod server;
mod session;
mod tls;
mod wal_commits;
mod wal_directory;
mod wal_written;

pub(crate) use backup_session::{current_segment, end_backup_sessions};
pub(crate) use connect::{Connection, Target, connect, connect_read_only};
pub(crate) use control::{
    ControlData, control_data, ended_at, own_timeline, postmaster_run, postmaster_status,
};
pub(crate) use control_file::{ControlFile, ServerState, control_file, segment_size_in};
pub(crate) use database_names::database_names;
pub(crate) use life::{Life, is_cut};
pub(crate) use login_method::{LoginMethod, login_method};
pub(crate) use pool::Pool;
pub(crate) use relay::Relay;
pub(crate) use server::{
    Archiver, ServerIdentity, archiver, clock_behind, heavy_work, server, switch_wal,
};
pub(crate) use session::{program_options, superuser_program_options};
pub(crate) use tls::{RootCert, SslMode, Tls, TlsError, TlsFiles, TlsVersions, open, tls_failure};
pub(crate) use wal_commits::{Commit, WalReader, WalStretch, local_history, stretches};
pub(crate) use wal_directory::{WalDirectory, wal_directory};
pub(crate) use wal_written::written_after;

use std::path::PathBuf;

use crate::process::ProcessError;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot connect to PostgreSQL at {target}: {}", in_words(error))]
    Connect {
        target: String,
        error: tokio_postgres::Error,
    },
    #[error("PostgreSQL at {target} did not answer within {secs} s")]
    Silent { target: String, secs: u64 },
    #[error("cannot ask PostgreSQL {what}: {}", in_words(error))]
    Query {
        what: &'static str,
        error: tokio_postgres::Error,
    },
    #[error("the connection for checks was busy for {secs} s")]
    Busy { secs: u64 },
    #[error("the pool of connections cannot be used")]
    Pool,
    #[error("cannot read {what} in PostgreSQL's answer")]
    Answer { what: &'static str },
    #[error("cannot read the control file of {}", directory.display())]
    ControlFile {
        directory: PathBuf,
        #[source]
        source: ProcessError,
    },
    #[error("pg_controldata refuses {}: {reason}", directory.display())]
    NotADataDirectory { directory: PathBuf, reason: String },
    #[error("cannot read {}", path.display())]
    WalDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl PostgresError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Connect { error, .. } if tls::is_tls_failure(error) => {
                "TLS with the server failed: check postgres.sslmode, postgres.sslrootcert and the server's certificate".to_owned()
            }
            Self::Connect { error, .. } if in_words(error).contains("no encryption") => {
                "pg_hba.conf has no entry for this login without TLS: check postgres.sslmode, ssl on the server, and hostssl in pg_hba.conf".to_owned()
            }
            Self::Connect { error, .. } => match error.code().map(tokio_postgres::error::SqlState::code) {
                Some("28P01" | "28000") => {
                    "check postgres.user and postgres.password (or PGPASSWORD), and pg_hba.conf".to_owned()
                }
                Some("3D000") => "check postgres.database".to_owned(),
                Some("57P03") => "PostgreSQL is starting or stopping; try again in a moment".to_owned(),
                Some("53300") => "all connections are taken; see max_connections".to_owned(),
                _ => "is PostgreSQL running here? check postgres.host and postgres.port".to_owned(),
            },
            Self::Silent { .. } => "is PostgreSQL overloaded, or a firewall in between? see postgres.connect_timeout".to_owned(),
            Self::Query { .. } | Self::Pool | Self::Busy { .. } | Self::Answer { .. } => "see PostgreSQL's own log".to_owned(),
            Self::ControlFile { .. } => "check postgres.bin_directory".to_owned(),
            Self::NotADataDirectory { .. } => {
                "postgres.data_directory is the directory that holds PG_VERSION and global/pg_control".to_owned()
            }
            Self::WalDirectory { .. } => {
                "run it on a database node as the database's user; postgres.data_directory holds pg_wal".to_owned()
            }
        }
    }
}

/// The server's own message when it sent one, the innermost cause otherwise; never the query's parameters.
pub(crate) fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!(
            "{}: {} ({})",
            answer.severity(),
            answer.message(),
            answer.code().code()
        );
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
