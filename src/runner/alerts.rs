//! The alerts of this node: ends them, and sends their events to Redis.

use jiff::Timestamp;

use super::Node;
use crate::alerts::AlertsError;
use crate::log;
use crate::model::AlertKey;

/// Ends this node's alerts of `which`, after a role change for example. The next check raises again what still holds.
pub(crate) async fn resolve(
    node: &Node,
    which: impl Fn(&AlertKey) -> bool + Send + Sync + 'static,
    reason: &str,
) {
    if let Err(error) = node.alerts.resolve(which, reason, Timestamp::now()).await {
        tracing::error!("alerts cannot be resolved: {}", log::chain(&error));
    }
    deliver(node).await;
}

/// Sends what waits for Redis; while it is away, it waits on.
pub(crate) async fn deliver(node: &Node) {
    match node.alerts.deliver(&node.redis).await {
        Ok(0) => {}
        Ok(events) => tracing::info!(events, "alerts delivered"),
        Err(AlertsError::Redis(error)) => {
            tracing::warn!("alerts wait for Redis: {error}; HINT: {}", error.hint());
        }
        Err(AlertsError::Store(error)) => {
            tracing::error!("alerts wait, the store fails: {}", log::chain(&error));
        }
    }
}
