//! Restore tests: a real restore into a scratch directory that cannot touch the live cluster, verified and measured.
//!
//! Preflight looks, `plan` judges (pure), then fetch, recover, verify, tear down. Never talks to WAL-G's daemon: that
//! would write the scratch cluster's WAL into the live one.

pub mod dump;
mod error;
mod live;
mod plan;
mod preflight;
mod proof;
mod report;
mod run;
mod scratch;
mod server;
mod verify;
mod words;

pub use error::RestoreError;
pub use proof::prove;
pub use report::{Conclusion, Report, Step};
pub use run::{Options, run};
pub use verify::SqlCheck;
