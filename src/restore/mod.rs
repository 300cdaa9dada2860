//! Restores: tests into a scratch directory that cannot touch the live cluster, verified and measured; and for good.
//!
//! Preflight looks, `plan` judges (pure), then fetch, recover, verify, tear down. Never talks to WAL-G's daemon: that
//! would write the scratch cluster's WAL into the live one.

mod archive_end;
mod backup_settings;
mod completion;
mod configure;
mod disaster;
pub mod dump;
mod error;
mod fetch;
#[cfg(test)]
mod fixtures;
mod forecast;
mod inspect;
mod level;
mod links;
mod live;
mod marker;
mod outlook;
mod plan;
mod preflight;
mod progress;
mod proof;
mod recover;
mod recovery_target;
mod report;
mod restore_point;
mod run;
mod scratch;
mod server;
mod server_messages;
mod setup;
mod shell;
mod startable;
mod stop_point;
mod sync;
mod tablespaces;
mod target_directory;
mod time_like;
mod until;
mod verify;
mod wal_prefetch;
mod wal_stop;
mod watch;
mod work_directory;
mod young_gap;

pub use backup_settings::Held;
pub use disaster::{Restored, finish, restore};
pub use error::RestoreError;
pub use forecast::Forecast;
pub use level::Level;
pub use outlook::{Request, outlook};
pub use proof::prove;
pub use report::{Conclusion, Report, Step};
pub use run::{Options, run};
pub use setup::Setup;
pub use shell::shell;
pub use tablespaces::Placed;
pub use until::{Until, UntilError, is_sure};
pub use verify::SqlCheck;
