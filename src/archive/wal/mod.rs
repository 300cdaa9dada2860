//! One WAL file at a time: `archive_command` and `restore_command`.

pub(in crate::archive) mod client;
mod fetch;
pub(in crate::archive) mod push;
pub(in crate::archive) mod role;
mod standby;
mod tablespace;

pub use fetch::{AHEAD, ASKED, COULD_NOT_LOOK, DAMAGED, MAKES_TABLESPACE, SCRATCH, wal_fetch};
pub use push::wal_push;
pub(in crate::archive) use standby::Waits;
pub use tablespace::tablespace_made;
