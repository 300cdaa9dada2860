//! Tests against real servers: each starts a container of its own from the image `xdb-lab`
//! (`./dev image` builds it), so they run in any order and side by side.

#![allow(unreachable_pub, reason = "one crate without users")]

mod alert_ends;
mod alerts;
mod archive;
mod archive_faults;
mod archive_status;
mod archiver;
mod backup;
mod backup_status;
mod catalog;
mod checks;
mod compose;
mod conditional_writes;
mod config;
mod daemon;
mod dump;
mod dump_test;
mod faults;
mod harness;
mod headline;
mod high_water;
mod hostile;
mod jobs;
mod locks;
mod logs;
mod programs;
mod prune;
mod restore;
mod restore_test;
mod segment_size;
mod serving;
mod smoke;
mod standby_archive;
mod state_store;
mod systemd;
mod timelines;
mod wait;
