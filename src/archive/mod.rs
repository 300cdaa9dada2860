//! What changes the repository: archiving, base backups and retention.

pub mod archiver;
pub mod backup;
mod error;
mod fill;
pub mod retention;
pub mod wal;

pub use backup::{DataLink, PushedBackup, clean_up_push, data_links, push};
pub use error::ArchiveError;
pub use fill::{Filled, Kept, fill, held_here};
pub use wal::{
    AHEAD, ASKED, COULD_NOT_LOOK, DAMAGED, MAKES_TABLESPACE, SCRATCH, tablespace_made, wal_fetch,
    wal_push,
};
