//! This node's key in Redis each 30 s, and the alerts that wait there for Redis to be back.

use std::time::Duration;

use jiff::Timestamp;

use super::{Node, judge};
use crate::alerts::AlertsError;
use crate::cluster::Knowledge;
use crate::http::Shown;
use crate::model::{AlertKey, Scope};
use crate::redis::Keys;

const PERIOD: Duration = Duration::from_secs(30);

/// Shows this node, and mends what Redis lost.
pub(super) async fn beat(node: &Node, shown: &Shown) {
    let keys = Keys::new(&node.tools.loaded.config.cluster.name);
    let mut view = node.view.clone();
    loop {
        let now = Timestamp::now();
        let mut state = shown.state(now);
        let known = node.tools.known.borrow().clone();
        let status = judge::status(node, &state.view, &known, now);
        state.verdict = Some(status.verdict);
        (state.live_rpo, state.rto_secs) = (Some(status.rpo), status.rto.secs);
        let json = serde_json::to_string(&state).expect("a node's state has text keys only");
        if let Err(error) = node.redis.publish_node(&keys, node.hostname(), &json).await {
            tracing::warn!("the heartbeat did not reach Redis: {error}");
        } else if let Err(error) = mend(node, &known, now).await {
            tracing::warn!("alerts in Redis cannot be compared: {error}");
        }
        super::publish::deliver(node).await;
        super::successes::show(node).await;
        // A change of role is shown at once.
        let role = view.borrow().sample.map(|sample| sample.in_recovery);
        let changed = view.wait_for(|view| view.sample.map(|sample| sample.in_recovery) != role);
        let _ = tokio::time::timeout(PERIOD, changed).await;
    }
}

/// Makes Redis show the alerts that this node answers for; a silent peer's end here, for it cannot end them itself.
async fn mend(node: &Node, known: &Knowledge, now: Timestamp) -> Result<(), AlertsError> {
    let mut scopes = vec![Scope::Node(node.hostname().to_owned())];
    let mut silent = Vec::new();
    if judge::speaks(node, now) == Some(true) {
        scopes.push(Scope::Cluster);
        let peers = known.peers.iter().filter(|peer| peer.live(now).is_none());
        silent.extend(peers.map(|peer| Scope::Node(peer.name().to_owned())));
    }
    scopes.extend(silent.iter().cloned());
    node.alerts.reconcile(&node.redis, &scopes).await?;
    let of_silent = move |key: &AlertKey| silent.contains(&key.scope);
    let ended = node
        .alerts
        .resolve(of_silent, "the node is silent", now)
        .await?;
    if !ended.is_empty() {
        tracing::info!(events = ended.len(), "a silent node's alerts were ended");
    }
    Ok(())
}
