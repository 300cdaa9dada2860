//! Restore tests: a recovery in a scratch directory that cannot touch the live cluster, verified, measured and removed.
//!
//! The live server beside it comes first; what a test found is kept as a proof.

mod live_watch;
mod preflight;
mod proof;
mod report;
mod run;
mod test_level;
mod verification;

pub(crate) use live_watch::{beside, judge_volumes, may_begin};
pub(crate) use proof::prove;
pub(crate) use report::TestResult;
pub(crate) use run::{TestOptions, run};
pub(crate) use test_level::TestLevel;
