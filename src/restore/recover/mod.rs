//! The engine of every restore: fetch a backup, start a server on it that only xdb can reach, replay the archive, promote.
//!
//! It never talks to WAL-G's daemon: that would write the scratch cluster's WAL into the live one.

mod configure;
mod fetch;
mod links;
mod progress;
mod recovery;
mod recovery_end;
mod server;
mod server_errors;
mod server_log;
mod server_messages;
mod stop_segment;
mod wal_prefetch;

pub(crate) use configure::{SHARED_BUFFERS, quoted};
pub(crate) use links::{clear_links, judge_links};
pub(crate) use progress::{OnMessage, report_fetch, report_recovery};
pub(crate) use recovery::{Recovery, SHUTDOWN_KEPT};
pub(crate) use recovery_end::{LoggedEnd, RecoveryEnd};
pub(crate) use server::{MAINTENANCE, Network, ScratchServer, StartFailure, refuse_root};
pub(crate) use server_errors::{
    ErrorCause, error_cause, error_words, proven_damage, query_failure,
};
pub(crate) use server_log::log_last_lines;
pub(crate) use server_messages::without_values;
pub(crate) use stop_segment::StopSegment;
