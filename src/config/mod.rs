//! The configuration: from sections and sources to one validated [`Config`], which never shows a secret.
//!
//! It reads files and variables and judges them, and must not connect to anything, examine
//! the server, or know what the values are used for: whether a path exists is for its user to find out.
//!
//! A setting is one entry in `keys.rs`, such as
//!
//! ```text
//! /// How long connecting may take, login included.
//! connect_timeout: Duration = Duration, Default("5s");
//! ```
//!
//! The field of the section, the key with its default, its `XDB_…` variable and its messages come from that entry. So do
//! `packaging/xdb.toml` and `docs/reference/configuration.md`: `UPDATE_EXPECT=1 cargo test --lib config::generated` writes
//! them, and the test fails where they differ. A section is a block of the same table, and its type is exported here.

mod combinations;
mod environment;
mod error;
mod faults;
mod file;
#[cfg(test)]
mod generated;
mod key;
mod keys;
mod kind;
mod load;
mod notify;
mod pam_env;
mod program_settings;
mod receivers;
mod regular_file;
mod repository_settings;
mod serving;
mod source;
mod spelling;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_complaints;
#[cfg(test)]
mod tests_secrets;

/// A public key of age.
pub use age::x25519::Recipient as AgeRecipient;
pub use error::{ConfigError, Problem};
pub use faults::Faults;
pub use keys::{
    Alerts, Archive, Cluster, Config, Dump, Haproxy, Heartbeat, Http, Node, PgBouncer, Postgres,
    Redis, RestoreTest, Retention, S3, Schedule, Wait,
};
pub use load::{Effective, Loaded, load, load_to_serve};
pub use receivers::{Endpoint, HEARTBEAT, Notify, NotifyFormat, REDIS};
pub(crate) use regular_file::open_regular;
pub use repository_settings::RepositorySettings;
pub use source::{ConfigFile, DEFAULT_FILE, Flag, SettingSource, Sources, usual_state_directory};
