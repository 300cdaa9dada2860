//! This node's key in Redis each 30 s, and the alerts that wait there for Redis to be back.

use std::time::Duration;

use serde_json::json;

use super::Node;
use crate::model::Scope;
use crate::redis::Keys;

const PERIOD: Duration = Duration::from_secs(30);

/// Shows this node, and mends what Redis lost.
pub(super) async fn beat(node: &Node) {
    let config = &node.tools.loaded.config;
    let keys = Keys::new(&config.cluster.name);
    let hostname = &config.node.hostname;
    let mut view = node.view.clone();
    loop {
        let mut own = vec![Scope::Node(hostname.clone())];
        own.extend(view.borrow().speaks_for_cluster().then_some(Scope::Cluster));
        let state = json!({ "v": 1, "hostname": hostname, "version": env!("CARGO_PKG_VERSION"), "view": *view.borrow() });
        if let Err(error) = node
            .redis
            .publish_node(&keys, hostname, &state.to_string())
            .await
        {
            tracing::warn!("the heartbeat did not reach Redis: {error}");
        } else if let Err(error) = node.alerts.reconcile(&node.redis, &own).await {
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
