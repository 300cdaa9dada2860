//! Whether a job is this node's.

use jiff::Timestamp;

use crate::cluster::View;
use crate::config::RestoreTest;
use crate::jobs::{Job, Where};

/// Whether `job` is this node's to do.
pub(crate) fn belongs_here(job: &Job, settings: &RestoreTest, view: &View, now: Timestamp) -> bool {
    let in_recovery = view.in_recovery(now);
    match job.runs_on(settings) {
        Where::Everywhere => true,
        Where::Primary => in_recovery == Some(false) && view.superseded_by.is_none(),
        Where::Replica => in_recovery == Some(true),
    }
}
