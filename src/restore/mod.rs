//! Restores: tests into a scratch directory that cannot touch the live cluster, verified and measured; and for good.
//!
//! | room | what it does | uses |
//! |---|---|---|
//! | `cluster` | `xdb restore`: a cluster that is kept | `verify`, `recover`, `plan`, `scratch` |
//! | `drill` | restore tests of backups | `verify`, `recover`, `plan`, `scratch` |
//! | `dump` | restore tests of dumps | `drill` (beside the live server), `recover`, `plan`, `scratch` |
//! | `verify` | judges what came back | `recover`, `plan`, `scratch` |
//! | `recover` | fetches, starts, replays, promotes | `plan`, `scratch` |
//! | `plan` | decides what is restored from what | `scratch` |
//! | `scratch` | the directory of a restore | |
//!
//! The files here are what every room shares: errors, steps, verifications, and the conclusion from them.

mod cluster;
mod conclusion;
mod drill;
pub(crate) mod dump;
mod error;
mod plan;
mod record;
mod recover;
mod scratch;
mod setup;
mod steps;
mod verifications;
mod verify;

use conclusion::{Advice, conclude, conclusion_of};
use record::RestoreRecord;
use steps::{OnStep, Steps, secs};
use verifications::{Verifications, named_reason};

pub(crate) use cluster::{
    HeldSetting, RestoreRequest, RestoredCluster, check_target, finish_restore, outlook,
    restore_cluster, shell,
};
pub(crate) use conclusion::Conclusion;
pub(crate) use drill::{TestLevel, TestOptions, TestResult, prove, run};
pub(crate) use error::RestoreError;
pub(crate) use plan::{Forecast, Until, UntilError, is_explicit};
pub(crate) use scratch::PlacedTablespace;
pub(crate) use setup::Setup;
pub(crate) use steps::Step;
pub(crate) use verify::SqlCheck;
