//! WAL-G: its programs, its repository in the bucket, archiving and base backups.
//!
//! The programs are driven, never rewritten; what is in the bucket xdb reads for itself.

mod backup;
pub mod catalog;
mod environment;
mod error;
pub mod program;
mod push_lock;
mod repository;
mod wal_client;
mod wal_fetch;
mod wal_push;
mod wal_role;

pub use backup::{PushedBackup, clean_up_push, push};
pub use environment::{add_ambient_aws, command};
pub use error::ArchiveError;
pub use program::Program;
pub use repository::Repository;
pub use wal_fetch::{COULD_NOT_LOOK, wal_fetch};
pub use wal_push::wal_push;
