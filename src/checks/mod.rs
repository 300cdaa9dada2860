//! What is watched: definitions from TOML, sampling, and judging as pure functions.
//!
//! A check ends in findings, each ok, warning, critical or unknown; raising alerts is not its business.
//! `for` is kept in the definition and counted by the caller that remembers findings.

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

pub use definition::{Definition, Kind, Limits, Metric, Role};
pub use error::{DefinitionError, SampleError};
#[cfg(test)]
pub use load::BUILT_IN;
pub use load::{DIRECTORY, Definitions, load};
pub use pgbouncer_up::{PgBouncerWatch, judge_pgbouncer_up};
pub use program::Oldest;
pub use replication_lag::{LagLimits, Standby, judge_replication_lag};
pub use sample::{CheckResult, Sampler};
