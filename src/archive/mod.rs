//! WAL-G: its programs, its repository in the bucket, archiving and base backups.
//!
//! The programs are driven, never rewritten; what is in the bucket xdb reads for itself.

mod ancestry;
mod archive_end;
pub mod archiver;
mod backup;
pub mod catalog;
mod catalog_cache;
mod data_links;
mod environment;
mod error;
mod fill;
mod forget;
mod high_water;
pub mod program;
mod proofs;
mod push_judge;
mod push_lock;
mod restore_speed;
pub mod retention;
mod segment_header;
mod standby;
mod timeline_files;
mod timelines;
mod verify;
mod wal_client;
mod wal_fetch;
mod wal_header;
mod wal_push;
mod wal_role;
mod wal_tablespace;

use crate::config::Config;
use crate::storage::Repository;
pub use archive_end::last_in_a_row;
pub use backup::{PushedBackup, push};
pub use catalog_cache::{Look, forget_catalog, read_catalog};
pub use data_links::{DataLink, data_links};
pub use environment::{SEGMENT_SIZE, add_ambient_aws, command, encrypts, set_segment_size};
pub use error::ArchiveError;
pub use fill::{Filled, Kept, fill, held_here};
pub use forget::{Forgotten, ShownByPeers, forget_timeline, remember_timeline};
pub use high_water::{Said, high_water, last_archived, raise_high_water};
pub use program::{Program, Trial, try_settings};
pub use proofs::learn_tests;
pub use push_lock::clean_up_push;
pub use restore_speed::{RestoreTime, RestoreWork, expect_restore};
pub use segment_header::judge_file;
pub use timelines::{NewerTimeline, PeerOn, Relation, Timelines};
pub use verify::{acknowledge, verify};
pub use wal_client::stored_as;
pub use wal_fetch::{AHEAD, ASKED, COULD_NOT_LOOK, DAMAGED, MAKES_TABLESPACE, SCRATCH, wal_fetch};
pub use wal_push::wal_push;
pub use wal_role::{own_history, position_of, superseded};
pub use wal_tablespace::tablespace_made;

/// The WAL-G repository of `config` (`WALG_S3_PREFIX`).
///
/// # Errors
/// When a placeholder's value is not known here.
pub fn repository(config: &Config) -> Result<Repository, ArchiveError> {
    let template = &config.archive.repository;
    Ok(Repository::fill("archive.repository", template, config)?)
}
