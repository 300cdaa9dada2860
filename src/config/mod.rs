//! The configuration: from sections and sources to one validated [`Config`], which never shows a secret.
//!
//! It reads files and variables and judges them, and must not connect to anything, look at the
//! server, or know what the values are used for: whether a path exists is for its user to find out.

mod environment;
mod error;
mod faults;
mod file;
mod key;
mod keys;
mod kind;
mod load;
mod nearest;
#[cfg(test)]
mod packaged;
mod pam_env;
mod settings;
mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_complaints;
#[cfg(test)]
mod tests_secrets;
mod typed;

pub use error::{ConfigError, Problem};
pub use faults::Faults;
pub use load::{Effective, Loaded, load, load_to_serve};
pub use source::{ConfigFile, DEFAULT_FILE, Flag, Source, Sources, usual_state_directory};
pub use typed::{
    Archive, Cluster, Config, Dump, Http, Node, PgBouncer, Postgres, Redis, RestoreTest, Retention,
    S3, Schedule, Wait,
};
