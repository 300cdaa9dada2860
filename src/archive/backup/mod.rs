//! Base backups: whether one may be pushed, the push, and what an interrupted one leaves.

mod data_links;
mod error;
pub(in crate::archive) mod judge;
pub(in crate::archive) mod lock;
mod push;

pub use data_links::{DataLink, data_links};
pub use error::BackupError;
pub use lock::clean_up_push;
pub use push::{PushedBackup, push};
