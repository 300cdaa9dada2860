//! Stores what the archive lacks and this standby still holds.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::every;
use crate::archive::{self, FillError, Filled, Kept};
use crate::log;
use crate::repository::RepositoryHandle;
use crate::runner::Node;
use crate::store::StateFiles;

/// Between two looks, in seconds.
const PERIOD_SECS: u64 = 30;
/// For one look, and what it stores.
const LIMIT: Duration = Duration::from_mins(10);

/// Looks while this node is a standby; a primary's archive is filled by its own archiver, or by `xdb archive fill`.
pub(super) async fn keep(node: &Node) {
    let state = StateFiles::of(&node.tools.loaded.config.node.state_directory);
    let mut told = Filled::default();
    let mut failing = false;
    let mut ticks = every(PERIOD_SECS);
    loop {
        ticks.tick().await;
        if node.view.borrow().in_recovery(Timestamp::now()) != Some(true) {
            continue;
        }
        let error = match timeout(LIMIT, look(&node.tools.repository, &state, &told)).await {
            Ok(Ok(found)) => {
                (told, failing) = (found, false);
                continue;
            }
            Ok(Err(error)) if error.is_busy() => continue,
            Ok(Err(error)) => log::chain(&error),
            Err(_) => format!("not done within {} s", LIMIT.as_secs()),
        };
        // The checks report that S3 is away; once is enough here.
        if !failing {
            tracing::warn!("the archive's gaps are not filled: {error}");
        }
        failing = true;
    }
}

/// One look; what was missing at the look before already is stored. Until then the primary may store it itself, and its
/// daemon sees the gap and reports it.
async fn look(
    repository: &RepositoryHandle,
    state: &StateFiles,
    before: &Filled,
) -> Result<Filled, FillError> {
    let repository = repository.get().await?;
    let found = archive::fill(&repository, state, true).await?;
    for Kept { name, reason } in found.kept.iter().filter(|it| !before.kept.contains(it)) {
        tracing::warn!("the archive lacks {name}, and this standby's is not whole: {reason}");
    }
    if found.stored.iter().any(|name| before.stored.contains(name)) {
        let filled = archive::fill(&repository, state, false).await?;
        if !filled.stored.is_empty() {
            let names = filled.stored.join(", ");
            tracing::warn!("the archive lacked {names}: stored by this standby");
        }
    } else if !found.stored.is_empty() {
        let names = found.stored.join(", ");
        tracing::warn!("the archive lacks {names}: this standby holds it and stores it soon");
    }
    Ok(found)
}
