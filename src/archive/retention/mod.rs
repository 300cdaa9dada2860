//! Retention: what of the base backups and the WAL is kept, why, and the deletion of the rest by the WAL-G program.
//!
//! The plan is pure, and a dry run prints what the real run does. Nothing is deleted by a guess: the program's own dry run
//! must name nothing that the plan keeps, and afterwards the bucket is read again.

mod check;
mod delete;
mod error;
mod lock;
mod look;
mod plan;
mod rules;
mod run;
mod seen;
mod wal;

pub use error::RetentionError;
pub use lock::clean_up_prune;
pub use look::permanent;
pub use plan::{Action, BackupPlan, Plan, plan_retention};
pub use run::{Report, plan, prune};
pub use seen::{Folder, Mark, Seen};
use wal::WalPlan;
