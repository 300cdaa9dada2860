//! Exchanges silences and acknowledgements with Redis, where every command line leaves them, and with the other nodes, for
//! when Redis is away.

use jiff::Timestamp;
use tokio::sync::watch;

use super::every;
use crate::alerts::AlertsError;
use crate::cluster::Knowledge;
use crate::log;
use crate::model::Silence;
use crate::runner::Node;
use crate::store::StoreError;

/// Between two looks, in seconds.
const PERIOD: u64 = 5;
/// Of one node's copy, the newest: every second each peer asks for them.
const SHOWN: usize = 200;

pub(super) async fn keep(node: &Node, known: &watch::Sender<Knowledge>) {
    let mut ticks = every(PERIOD);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let exchanged = exchange_with_peers(node, known, now).await;
        if let Err(error) = exchanged {
            tracing::error!("silences cannot be kept: {}", log::chain(&error));
            continue;
        }
        match node.alerts.sync_silences(&node.redis, now).await {
            Ok(()) => {}
            // The heartbeat says so, each time.
            Err(AlertsError::Redis(error)) => tracing::debug!("silences wait for Redis: {error}"),
            Err(AlertsError::Store(error)) => {
                tracing::error!("silences cannot be kept: {}", log::chain(&error));
            }
        }
    }
}

/// Takes over what live peers know, and shows them what this node knows.
async fn exchange_with_peers(
    node: &Node,
    known: &watch::Sender<Knowledge>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let theirs: Vec<Silence> = {
        let known = known.borrow();
        let live = known.peers.iter().filter_map(|peer| peer.live(now));
        live.flat_map(|state| state.silences.clone()).collect()
    };
    let mut own = node.alerts.merge_silences(theirs).await?;
    own.sort_by_key(|silence| std::cmp::Reverse(silence.created_at));
    own.truncate(SHOWN);
    known.send_if_modified(|known| {
        let changed = known.silences != own;
        known.silences = own;
        changed
    });
    Ok(())
}
