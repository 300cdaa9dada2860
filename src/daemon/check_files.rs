//! Reads the files of the checks again on SIGHUP: a new check needs no restart.

use std::future::pending;

use tokio::signal::unix::{SignalKind, signal};

use crate::runner::Node;

/// A file that is wrong costs its own check only, and none that was right before; the check `configuration` raises an alert on it.
pub(super) async fn reread_on_hang_up(node: &Node) {
    // A process that may not listen for it has no SIGHUP to miss.
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return pending().await;
    };
    while hang_up.recv().await.is_some() {
        let faults = node.tools.definitions.reread();
        for fault in &faults {
            tracing::warn!(
                "{}; what this file said before counts until it is right, and a new file does not count",
                fault.with_line()
            );
        }
        let checks = node.tools.definitions.current().len();
        tracing::info!(
            checks,
            wrong = faults.len(),
            "the checks' files were read again"
        );
    }
    pending::<()>().await;
}
