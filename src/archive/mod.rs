//! What changes the repository: archiving, base backups and retention.

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
