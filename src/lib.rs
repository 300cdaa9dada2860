//! xdb: if the primary burned down now, what would we get back, how fast, and how do we know?
//!
//! The rooms, top to bottom; an arrow (`use crate::…`) points down only:
//!
//! - [`cli`]: one file a verb
//! - [`restore`]: restore tests; restores what [`archive`] stored
//! - [`archive`]: WAL-G's programs and repository, archiving, base backups
//! - [`wait`]: the probe behind `xdb wait`
//! - adapters, side by side: [`process`], [`postgres`], [`storage`]
//! - [`log`]: how xdb speaks
//! - [`config`]: sections, sources, validation, secrets
//! - [`model`]: values, no IO

pub mod archive;
pub mod cli;
pub mod config;
pub mod log;
pub mod model;
pub mod postgres;
pub mod process;
pub mod restore;
pub mod storage;
pub mod wait;

#[cfg(test)]
mod layers;
