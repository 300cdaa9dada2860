//! Reads the versions and the settings of this node's servers, which the other nodes compare with their own.

use tokio::sync::watch;

use super::every;
use crate::cluster::Knowledge;
use crate::log;
use crate::runner::Node;

/// Seconds between two looks.
const EACH: u64 = 30;

/// While PostgreSQL does not answer, what was read before stands.
pub(super) async fn keep(node: &Node, known: &watch::Sender<Knowledge>) {
    let mut ticks = every(EACH);
    loop {
        ticks.tick().await;
        if node.view.borrow().current_run().is_none() {
            continue;
        }
        match node.tools.sampler.server_settings().await {
            Ok(read) => {
                let read = Some(read);
                known.send_if_modified(|known| {
                    let changed = known.server != read;
                    known.server = read;
                    changed
                });
            }
            Err(error) => tracing::debug!("the settings: {}", log::chain(&error)),
        }
    }
}
