//! Prunes dump sets by the `[retention]` of the base backups: what is kept, why, and the deletion of the rest.
//!
//! The plan is pure, and a dry run prints what the real run does. Only this cluster's sets and uploads are ever deleted:
//! whatever else lies below `dump.repository` is named and left alone.

mod owner;
mod plan;
mod run;
mod seen;

pub(crate) use plan::DumpPlan;
pub(crate) use run::{DumpPruneReport, look_and_plan, prune};
