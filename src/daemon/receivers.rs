//! Sends the events that wait to each receiver of `[[notify]]`. One that fails holds up neither the others nor Redis.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use crate::alerts::{Delivery, NotDelivered, Receiver, pause};
use crate::config::Loaded;
use crate::log;
use crate::runner::Node;
use crate::store::StoreError;

/// Between two looks at an empty queue.
const IDLE: Duration = Duration::from_secs(1);

pub(super) async fn keep(node: &Node) {
    let loaded = &node.tools.loaded;
    if let Err(error) = begin(node, loaded).await {
        tracing::error!("former receivers' events are kept: {}", log::chain(&error));
    }
    let config = &loaded.config;
    let receivers: Vec<Receiver> = config.notify.iter().map(Receiver::new).collect();
    join_all(receivers.iter().map(|receiver| serve(node, receiver))).await;
    // Without a receiver there is nothing to do, and no loop of the daemon ends.
    std::future::pending::<()>().await;
}

/// What waits from before a change of the configuration: for receivers that are gone, or under the cluster's former name.
async fn begin(node: &Node, loaded: &Loaded) -> Result<(), StoreError> {
    node.alerts.former_names().await?;
    // A receiver whose section has a mistake is not gone.
    if loaded.faults.is_empty() {
        node.alerts.forget_former_receivers().await?;
    }
    Ok(())
}

async fn serve(node: &Node, receiver: &Receiver) {
    let name = receiver.name();
    let receivers = &node.outages.receivers;
    let mut failures = 0;
    loop {
        let now = Timestamp::now();
        match node.alerts.deliver_to(receiver, now).await {
            Ok(Delivery::Idle) => {
                let _ = timeout(IDLE, node.alerts.decided()).await;
            }
            Ok(Delivery::Skipped) => {}
            Ok(Delivery::Confirmed) => {
                if receivers.noted(name, None, now) {
                    tracing::info!(receiver = name, "the receiver takes events again");
                }
                failures = 0;
            }
            Ok(Delivery::LeftOut { event, error }) => {
                let reason = format!("{}; HINT: {}", log::chain(&error), error.hint());
                tracing::error!(
                    receiver = name,
                    event,
                    "the receiver refuses this event, which is not sent again: {reason}"
                );
                receivers.left_out(name, format!("{event}: {reason}"), now);
            }
            Err(NotDelivered::Alerts(error)) => {
                tracing::error!(receiver = name, "the store fails: {}", log::chain(&error));
                sleep(pause(1, None)).await;
            }
            Err(NotDelivered::Webhook(error)) => {
                failures += 1;
                let reason = format!("{}; HINT: {}", log::chain(&error), error.hint());
                if receivers.noted(name, Some(reason.clone()), now) {
                    tracing::warn!(receiver = name, "events wait for the receiver: {reason}");
                }
                sleep(pause(failures, error.retry_after())).await;
            }
        }
    }
}
