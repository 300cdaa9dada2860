//! The directory that a restore works in: its lock, its marker, its room, and its removal however the restore ends.

mod directory;
mod marker;
mod space;
mod sync;
mod tablespaces;

pub(crate) use directory::{Scratch, make_private, remove_work_directory, take_lock};
pub(crate) use marker::Marker;
pub(crate) use space::{
    existing_ancestor, free_bytes, judge_space, max_prefetched, usable_bytes, wal_kept,
    wal_size_limits,
};
pub(crate) use sync::sync_volume;
pub(crate) use tablespaces::{
    PlacedTablespace, TABLESPACE_MAP, allow_tablespace_links, check_fetched_tablespaces,
    has_tablespaces, placed_tablespaces, remove_dropped_tablespaces,
};
