//! What is restored from what: the target, the backup that leads to it, the WAL on the way, and what will be lost.
//!
//! The survey reads this node's live server and the bucket; the plan is made from it without any IO.

mod forecast;
mod live_server;
mod loss;
mod recovery_target;
mod restore_plan;
mod restore_point;
mod survey;
mod tablespaces;
mod time_like;
mod until;
mod wal_path;
mod young_gap;

pub(crate) use forecast::{Forecast, forecast};
pub(crate) use live_server::{LiveServer, NoLiveServer, archived_segment, read_live_server};
pub(crate) use loss::measure_rpo;
pub(crate) use recovery_target::not_in_the_wal;
pub(crate) use restore_plan::{GAP_MAY_CLOSE, LATEST, Pick, skipped_backups};
pub(crate) use restore_point::check_restore_point;
pub(crate) use survey::{Survey, check_parts, check_version, survey};
pub(crate) use until::{TargetSettings, Until, UntilError, behind_record, is_explicit};
pub(crate) use wal_path::{object_suffix, stored_segments};
