//! What changes the repository: archiving, base backups and retention.
//!
//! | room | what it does |
//! |---|---|
//! | `wal` | one WAL file at a time: `archive_command` and `restore_command` |
//! | `archiver` | the daemon's service behind `archive_command`, which pushes ahead |
//! | `fill` | stores what the archive lacks and this node still holds |
//! | `backup` | base backups: may one be pushed, the push, what an interrupted one leaves |
//! | `retention` | what is kept and why, and the deletion of the rest |
//!
//! `role.rs` says whether this server may archive at all.

pub mod archiver;
pub mod backup;
mod fill;
pub mod retention;
mod role;
pub mod wal;

pub use backup::{BackupError, DataLink, PushedBackup, clean_up_push, data_links, push};
pub use fill::{FillError, Filled, Kept, fill, held_here};
pub use wal::{
    AHEAD, ASKED, COULD_NOT_LOOK, DAMAGED, MAKES_TABLESPACE, NOT_WANTED, SCRATCH, WalError,
    tablespace_made, wal_fetch, wal_push,
};
