//! Stores what the archive lacks and this standby still holds.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::{Node, every};
use crate::archive::{self, Kept};
use crate::log;

/// Between two looks, in seconds.
const PERIOD_SECS: u64 = 30;
/// For one look, and what it stores.
const LIMIT: Duration = Duration::from_mins(10);

/// Looks while this node is a standby; a primary's archive is filled by its own archiver, or by `xdb archive fill`.
pub(super) async fn keep(node: &Node) {
    let config = &node.tools.loaded.config;
    let mut told: Vec<Kept> = Vec::new();
    let mut failing = false;
    let mut ticks = every(PERIOD_SECS);
    loop {
        ticks.tick().await;
        if node.view.borrow().in_recovery(Timestamp::now()) != Some(true) {
            continue;
        }
        match timeout(LIMIT, archive::fill(config, false)).await {
            Ok(Ok(filled)) => {
                failing = false;
                if !filled.stored.is_empty() {
                    let names = filled.stored.join(", ");
                    tracing::warn!("the archive lacked {names}: stored by this standby");
                }
                for kept in filled.kept.iter().filter(|kept| !told.contains(kept)) {
                    let Kept { name, reason } = kept;
                    tracing::warn!(
                        "the archive lacks {name}, and this standby's is not whole: {reason}"
                    );
                }
                told = filled.kept;
            }
            Ok(Err(error)) if error.is_busy() => {}
            // The checks report that S3 is away; once is enough here.
            _ if failing => {}
            Ok(Err(error)) => {
                failing = true;
                tracing::warn!("the archive's gaps are not filled: {}", log::chain(&error));
            }
            Err(_) => {
                failing = true;
                let secs = LIMIT.as_secs();
                tracing::warn!("the archive's gaps are not filled: not done within {secs} s");
            }
        }
    }
}
