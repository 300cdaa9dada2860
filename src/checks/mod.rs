//! What is watched: definitions from TOML, sampling, and judging as pure functions.
//!
//! A check ends in findings, each ok, warning, critical or unknown; raising alerts is not its business.
//! `for` is only stored here: the runner measures how long a finding has lasted.

mod age;
mod archiver;
mod configuration;
mod definition;
mod error;
mod load;
mod parse;
mod pgbouncer;
mod pgbouncer_up;
mod program;
mod replication_lag;
mod sample;
mod server;
mod shipped;
mod values;
mod wal_volume;

pub(crate) use definition::{Definition, Kind, LagLimits, Limits, Metric, Role};
pub(crate) use error::{DefinitionError, SampleError};
#[cfg(test)]
pub(crate) use load::BUILT_IN;
pub(crate) use load::{DIRECTORY, Definitions, load};
pub(crate) use pgbouncer_up::{PGBOUNCER_DOWN, PgBouncerWatch, judge_pgbouncer_up};
pub(crate) use program::Oldest;
pub(crate) use replication_lag::{Standby, judge_replication_lag};
pub(crate) use sample::{CheckResult, Sampler};
