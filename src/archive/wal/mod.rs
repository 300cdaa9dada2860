//! One WAL file at a time: `archive_command` and `restore_command`.

pub(in crate::archive) mod client;
mod error;
mod fetch;
pub(in crate::archive) mod push;
mod standby;
mod tablespace;
mod waits;

pub use error::WalError;
pub use fetch::{
    AHEAD, ASKED, COULD_NOT_LOOK, DAMAGED, MAKES_TABLESPACE, NOT_WANTED, SCRATCH, wal_fetch,
};
pub use push::wal_push;
pub use tablespace::tablespace_made;
