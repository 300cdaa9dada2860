//! Retention: what of the base backups and the WAL is kept, why, and the deletion of the rest by the WAL-G program.
//!
//! The plan is pure, and a dry run prints what the real run does. Nothing is deleted by a guess: the program's own dry run
//! must name nothing that the plan keeps, and afterwards the bucket is read again.

mod archive_state;
mod check;
mod delete;
mod error;
mod lock;
mod plan;
mod read;
mod rules;
mod run;
mod wal;

pub use archive_state::{ArchiveState, Folder, Mark};
pub use error::RetentionError;
pub use lock::clean_up_prune;
pub use plan::{Action, BackupPlan, PrunePlan, plan_retention};
pub use read::permanent;
pub use run::{PruneReport, plan, prune};
use wal::WalPlan;
