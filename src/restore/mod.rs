//! Restore tests: a real restore into a scratch directory that cannot touch the live cluster, verified and measured.
//!
//! Preflight looks, `plan` judges (pure), then fetch, recover, verify, tear down. Never talks to WAL-G's daemon: that
//! would write the scratch cluster's WAL into the live one.

mod error;
mod fetch;
mod inspect;
mod level;
mod live;
mod marker;
mod plan;
mod preflight;
mod report;
mod run;
mod scratch;
mod server;
mod verify;
mod watch;
mod words;

pub use error::RestoreError;
pub use level::Level;
pub use report::{Conclusion, Report, Step};
pub use run::{Options, run};
pub use verify::SqlCheck;
