//! Sends the events that wait to each receiver of `[[notify]]`. One that fails holds up neither the others nor Redis.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;

use crate::alerts::{Delivery, NotDelivered, Receiver, pause};
use crate::log;
use crate::runner::Node;

/// Between two looks at an empty queue.
const IDLE: Duration = Duration::from_secs(1);

pub(super) async fn keep(node: &Node) {
    if let Err(error) = node.alerts.forget_former_receivers().await {
        tracing::error!("former receivers' events are kept: {}", log::chain(&error));
    }
    let config = &node.tools.loaded.config;
    let receivers: Vec<Receiver> = config.notify.iter().map(Receiver::new).collect();
    join_all(receivers.iter().map(|receiver| serve(node, receiver))).await;
    // Without a receiver there is nothing to do, and no loop of the daemon ends.
    std::future::pending::<()>().await;
}

async fn serve(node: &Node, receiver: &Receiver) {
    let name = receiver.name();
    let mut failures = 0;
    loop {
        let now = Timestamp::now();
        match node.alerts.deliver_to(receiver).await {
            Ok(Delivery::Idle) => sleep(IDLE).await,
            Ok(Delivery::Confirmed) => {
                if node.outages.receivers.noted(name, None, now) {
                    tracing::info!(receiver = name, "the receiver takes events again");
                }
                failures = 0;
            }
            Ok(Delivery::LeftOut(error)) => {
                tracing::error!(
                    receiver = name,
                    "an event was left out: {}; HINT: {}",
                    log::chain(&error),
                    error.hint()
                );
                let reason = format!("an event was left out: {}", log::chain(&error));
                node.outages.receivers.noted(name, Some(reason), now);
            }
            Err(NotDelivered::Alerts(error)) => {
                tracing::error!(receiver = name, "the store fails: {}", log::chain(&error));
                sleep(pause(1, None)).await;
            }
            Err(NotDelivered::Webhook(error)) => {
                failures += 1;
                let reason = format!("{}; HINT: {}", log::chain(&error), error.hint());
                if node
                    .outages
                    .receivers
                    .noted(name, Some(reason.clone()), now)
                {
                    tracing::warn!(receiver = name, "events wait for the receiver: {reason}");
                }
                sleep(pause(failures, error.retry_after())).await;
            }
        }
    }
}
