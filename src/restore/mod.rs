//! Restores: tests into a scratch directory that cannot touch the live cluster, verified and measured; and for good.
//!
//! Preflight looks, `plan` judges (pure), then fetch, recover, verify, tear down. Never talks to WAL-G's daemon: that
//! would write the scratch cluster's WAL into the live one.

mod ahead;
mod archive_end;
mod brought;
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
mod place;
mod plan;
mod preflight;
mod proof;
mod reach;
mod recover;
mod report;
mod restore_point;
mod run;
mod scratch;
mod server;
mod shell;
mod sign;
mod startable;
mod stop_point;
mod sync;
mod tablespaces;
mod time_like;
mod until;
mod verify;
mod wal_stop;
mod watch;
mod words;
mod young_gap;

pub use brought::Held;
pub use disaster::{Outlook, Request, Restored, finish, outlook, restore};
pub use error::RestoreError;
pub use forecast::Forecast;
pub use level::Level;
pub use proof::prove;
pub use report::{Conclusion, Report, Step};
pub use run::{Options, run};
pub use shell::shell;
pub use tablespaces::Placed;
pub use until::{Until, UntilError, is_sure};
pub use verify::SqlCheck;
